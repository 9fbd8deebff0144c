"""Shifts of the hue with NumPy 2.

mmcv's `adjust_hue` converts the shift, which may be negative, by `numpy.uint8`, and that raises
OverflowError since NumPy 2 (VBTI-development/onedl-mmcv pull request 41, for the fork). So
MMPretrain's `ColorJitter` with `hue` fails at half of the images.
"""

import functools

import mmcv
import numpy as np


class _Shift(float):
    """A factor whose products are integers of NumPy, which convert modulo 256 as before."""

    def __mul__(self, other):
        return np.int64(float(self) * other)


def allow_negative_hue() -> None:
    """Make `mmcv.adjust_hue` take negative factors again."""
    adjust = mmcv.adjust_hue

    @functools.wraps(adjust)
    def adjust_hue(img, hue_factor, *args, **kwargs):
        return adjust(img, _Shift(hue_factor), *args, **kwargs)

    mmcv.adjust_hue = adjust_hue
