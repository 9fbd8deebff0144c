"""Checks of arguments that several functions share."""

from torch import Tensor


def check_square(m: Tensor) -> None:
    """Raise ValueError unless `m` is (..., D, D)."""
    if m.dim() < 2 or m.shape[-1] != m.shape[-2]:
        raise ValueError(
            f'expected square matrices (..., D, D) as first argument, got shape {tuple(m.shape)}'
        )


def check_positive(name: str, value: int, least: int = 1) -> None:
    """Raise TypeError or ValueError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f'{name}: expected an integer, got {value!r}')
    if value < least:
        raise ValueError(f'{name}: expected at least {least}, got {value}')
