"""Symmetric matrix <-> vector of its upper triangle.

The layout is row-major with the diagonal, off-diagonals not scaled: (0,0), (0,1), ..., (0,D-1),
(1,1), (1,2), ... Classifier weights of released checkpoints depend on it, so it never changes.
"""

import functools
import math

import torch
from torch import Tensor

from .newton_schulz import check_square


def triu_vector(m: Tensor) -> Tensor:
    """Row-major upper triangle of square matrices.

    Args:
        m: (..., D, D), any dtype.

    Returns:
        (..., D(D+1)/2), the same dtype.

    Raises:
        ValueError: if the matrices are not square.
    """
    check_square(m)
    return m.flatten(-2).index_select(-1, _packing(m.shape[-1], m.device))


def triu_vector_inverse(v: Tensor) -> Tensor:
    """Symmetric matrices from their row-major upper triangles; inverse of :func:`triu_vector`.

    Args:
        v: (..., D(D+1)/2), any dtype.

    Returns:
        (..., D, D), the same dtype.

    Raises:
        ValueError: if the length is no triangular number.
    """
    length = v.shape[-1] if v.dim() else 0
    d = (math.isqrt(8 * length + 1) - 1) // 2
    if length == 0 or d * (d + 1) // 2 != length:
        raise ValueError(
            f'v: expected a last dimension of length D(D+1)/2, got shape {tuple(v.shape)}'
        )
    return v.index_select(-1, _unpacking(d, v.device)).unflatten(-1, (d, d))


@functools.lru_cache(maxsize=32)
def _packing(d: int, device: torch.device) -> Tensor:
    """Position in the flattened matrix of each element of the vector, (D(D+1)/2,) int64."""
    # Not an inference tensor, even if first asked for under inference_mode: backward saves it.
    with torch.inference_mode(False):
        row, col = torch.triu_indices(d, d, device=device)
        return row * d + col


@functools.lru_cache(maxsize=32)
def _unpacking(d: int, device: torch.device) -> Tensor:
    """Position in the vector of each element of the flattened matrix, (D^2,) int64."""
    with torch.inference_mode(False):
        i = torch.arange(d, device=device)
        row, col = torch.minimum(i[:, None], i), torch.maximum(i[:, None], i)
        return (row * d - row * (row + 1) // 2 + col).flatten()
