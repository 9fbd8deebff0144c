"""Eigendecomposition of positive semi-definite matrices, singular ones included.

LAPACK reduces a matrix to tridiagonal form first. Where a large part of the matrix is zero (dead
channels, a layer that few inputs reach), each step of that reduction multiplies what is left by
about eps, until the tridiagonal matrix holds denormal numbers. The iteration on those does not
converge, and :func:`torch.linalg.eigh` raises LinAlgError. Whether a given matrix is hit depends on
the processor's rounding.
"""

import torch
from torch import Tensor

from .tracing import is_traced


def psd_spectrum(a: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Eigenvalues, those within rounding error of zero set to zero, and eigenvectors.

    The matrix is scaled to a largest entry of 1, and eps^2 is added to its diagonal. That stops
    the underflow, and rounds away wherever a diagonal entry is above eps.

    Args:
        a: (..., n, n), n > 0, symmetric positive semi-definite; only its lower triangle is read.
        dtype: in which `a` was computed, if another one than its own: that of the rounding error.

    Returns:
        The eigenvalues, (..., n), ascending, and the eigenvectors, (..., n, n), in columns.

    Raises:
        ValueError: if an eigenvalue is negative by more than the square root of the rounding error
            of one operation, relative to the largest one; not while traced.
        torch.linalg.LinAlgError: if `a` holds NaN or infinity.
    """
    size = a.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)  # no entry is larger
    size = torch.where(size > 0, size, 1)
    lift = torch.finfo(a.dtype).eps ** 2
    scaled = a / size[..., None]
    scaled.diagonal(dim1=-2, dim2=-1).add_(lift)
    lam, u = torch.linalg.eigh(scaled)
    if not is_traced(lam) and not lam.isfinite().all():  # LAPACK raises at some sizes only
        raise torch.linalg.LinAlgError('cov: expected finite matrices, got NaN or infinity')
    lam = (lam - lift) * size
    eps = torch.finfo(dtype or a.dtype).eps
    if not is_traced(lam) and (lam < -(eps**0.5) * lam.abs().amax(-1, keepdim=True)).any():
        raise ValueError(
            'cov: expected positive semi-definite matrices, got one with the eigenvalue '
            f'{lam.min().item():.3g}'
        )
    return torch.where(lam > eps * a.shape[-1] * lam[..., -1:], lam, 0), u


def symmetric_part(m: Tensor) -> Tensor:
    """(M + M^T) / 2 of (..., n, n) matrices."""
    return (m + m.mT) / 2
