"""What OpenMMLab's releases need of NumPy 1, with NumPy 2.

MMPretrain 1.2's RetrievalRecall and RetrievalAveragePrecision call `numpy.in1d`, which NumPy 2.4
has removed (numpy/numpy pull request 29978). mmcv's `adjust_hue` converts the shift, which may be
negative, by `numpy.uint8`, and that raises OverflowError since NumPy 2 (for the fork,
VBTI-development/onedl-mmcv pull request 41): MMPretrain's `ColorJitter` with `hue` fails at half of
the images.
"""

import functools

import numpy as np


def add_in1d() -> None:
    """Define `numpy.in1d` where the installed NumPy lacks it."""
    if not hasattr(np, 'in1d'):
        np.in1d = _in1d


def _in1d(ar1, ar2, assume_unique=False, invert=False):
    return np.isin(np.ravel(ar1), ar2, assume_unique=assume_unique, invert=invert)


class _Shift(float):
    """A factor whose products are integers of NumPy, which convert modulo 256 as before."""

    def __mul__(self, other):
        return np.int64(float(self) * other)


def allow_negative_hue() -> None:
    """Make `mmcv.adjust_hue` take negative factors again."""
    import mmcv

    adjust = mmcv.adjust_hue

    @functools.wraps(adjust)
    def adjust_hue(img, hue_factor, *args, **kwargs):
        return adjust(img, _Shift(hue_factor), *args, **kwargs)

    mmcv.adjust_hue = adjust_hue
