"""Symmetric matrix <-> vector of its upper triangle.

The layout is row-major with the diagonal, off-diagonals not scaled: (0,0), (0,1), ..., (0,D-1),
(1,1), (1,2), ... Classifier weights of released checkpoints depend on it, so it never changes.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .arguments import check_square
from .tracing import is_compiling, is_traced

# Written into converted checkpoints, so that another layout could never be taken for this one
VECTOR_LAYOUT = 'row-major upper triangle'


def triu_vector(m: Tensor, out: Tensor | None = None) -> Tensor:
    """Row-major upper triangle of square matrices.

    Args:
        m: (..., D, D), any dtype.
        out: tensor of the result's shape and dtype to write it to, where no gradient is recorded.

    Returns:
        (..., D(D+1)/2), the same dtype.

    Raises:
        ValueError: if the matrices are not square.
    """
    check_square(m)
    flat, index = m.flatten(-2), _index(_packing, m.shape[-1], m)
    if out is None:
        return flat.index_select(-1, index)
    return torch.index_select(flat, -1, index, out=out)


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
    return v.index_select(-1, _index(_unpacking, d, v)).unflatten(-1, (d, d))


def triu_vector_adjoint(grad: Tensor) -> Tensor:
    """G + G^T for a gradient of :func:`triu_vector`, G its upper triangle in a matrix.

    Args:
        grad: (..., D(D+1)/2), any dtype, no gradient is recorded.

    Returns:
        (..., D, D), the same dtype: twice the gradient with respect to symmetric matrices.
    """
    g = triu_vector_inverse(grad)  # the off-diagonals stand in both triangles
    g.diagonal(dim1=-2, dim2=-1).mul_(2)
    return g


def _index(make: Callable[[int, torch.device], Tensor], d: int, x: Tensor) -> Tensor:
    """The index `make` gives, for tensors such as `x`."""
    # A compiler's stand-in for a tensor must not be left behind for others.
    return make(d, x.device) if is_traced(x) else _cached(make, d, x.device)


@functools.lru_cache(maxsize=64)
def _cached(make: Callable[[int, torch.device], Tensor], d: int, device: torch.device) -> Tensor:
    # Not an inference tensor, even if first asked for under inference_mode: backward saves it.
    with torch.inference_mode(False):
        return make(d, device)


# Where a compiler records them, in PyTorch; else by NumPy, so that a tracer sees a constant and not
# how it was made.


def _packing(d: int, device: torch.device) -> Tensor:
    """Position in the flattened matrix of each element of the vector, (D(D+1)/2,) int64."""
    if is_compiling():
        at = torch.triu_indices(d, d, device=device)
        return at[0] * d + at[1]
    row, col = np.triu_indices(int(d))
    return torch.as_tensor(row * int(d) + col, device=device)


def _unpacking(d: int, device: torch.device) -> Tensor:
    """Position in the vector of each element of the flattened matrix, (D^2,) int64."""
    if is_compiling():
        i = torch.arange(d, device=device)
        row, col = torch.minimum(i[:, None], i), torch.maximum(i[:, None], i)
        return (row * d - row * (row + 1) // 2 + col).flatten()
    k = np.arange(int(d))
    rows, cols = np.minimum(k[:, None], k), np.maximum(k[:, None], k)
    return torch.as_tensor((rows * d - rows * (rows + 1) // 2 + cols).ravel(), device=device)
