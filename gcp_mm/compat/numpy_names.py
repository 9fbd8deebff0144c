"""Names that NumPy has removed and OpenMMLab's releases use.

`numpy.in1d` went in NumPy 2.4 (numpy/numpy pull request 29978); MMPretrain 1.2's RetrievalRecall
and RetrievalAveragePrecision call it.
"""

import numpy as np


def add_removed_names() -> None:
    """Define each of these names that the installed NumPy lacks."""
    if not hasattr(np, 'in1d'):
        np.in1d = _in1d


def _in1d(ar1, ar2, assume_unique=False, invert=False):
    return np.isin(np.ravel(ar1), ar2, assume_unique=assume_unique, invert=invert)
