"""What mmengine's Runner saves beside the weights, for PyTorch's `weights_only` reader.

From PyTorch 2.6 on `torch.load` reads tensors and plain Python values alone, unless it is told
otherwise, and so refuses the checkpoints of mmengine: open-mmlab/mmengine issue 1655.
"""

import codecs
import pickle
from collections import Counter

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

try:
    from numpy._core import multiarray
except ImportError:  # NumPy 1
    from numpy.core import multiarray


def _statistic(owner, name):
    """In place of `getattr`, by which a HistoryBuffer names its own statistics."""
    if owner is not HistoryBuffer or not isinstance(name, str) or name.startswith('_'):
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL getattr of {name!r}')
    return getattr(owner, name)


# Its record of scalars, in NumPy arrays, by the names that it has in a file. NumPy's are those of
# the version that wrote the file.
RECORDS = {
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    'builtins.getattr': _statistic,
    'collections.Counter': Counter,  # of the milestones of a schedule
    '_codecs.encode': codecs.encode,  # of the bytes in arrays
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': np.dtype,
    **{
        f'numpy.{core}.multiarray.{name}': getattr(multiarray, name)
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    },
}
DTYPES = {type(np.dtype(kind)) for kind in 'bBiIlLqQfd'}  # as `numpy.dtype` makes them


def allow_records() -> None:
    """Let `torch.load` with `weights_only=True` read a Runner's checkpoints, and no more."""
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # PyTorch 2.6
        allowed = [*((value, name) for name, value in RECORDS.items()), *DTYPES]
        torch.serialization.add_safe_globals(allowed)
