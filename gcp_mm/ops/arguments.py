"""Checks of arguments that several functions share."""

import math
from numbers import Integral, Real

from torch import Tensor


def check_square(m: Tensor) -> None:
    """Raise ValueError unless `m` is (..., D, D)."""
    if m.dim() < 2 or m.shape[-1] != m.shape[-2]:
        raise ValueError(
            f'expected square matrices (..., D, D) as first argument, got shape {tuple(m.shape)}'
        )


def check_integer(name: str, value: int, low: int = 1, high: int | None = None) -> None:
    """Raise TypeError or ValueError unless `value` is an integer from `low` to `high`."""
    wanted = f'an integer of at least {low}' + ('' if high is None else f' and at most {high}')
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f'{name}: expected {wanted}, got {value!r}')
    if value < low or (high is not None and value > high):
        raise ValueError(f'{name}: expected {wanted}, got {value}')


def check_number(name: str, value: float, high: float | None = None) -> None:
    """Raise TypeError or ValueError unless `value` is a number above 0 and up to `high`."""
    wanted = 'a number above 0' + ('' if high is None else f' and at most {high}')
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f'{name}: expected {wanted}, got {value!r}')
    if not 0 < value < math.inf or (high is not None and value > high):
        raise ValueError(f'{name}: expected {wanted}, got {value}')
