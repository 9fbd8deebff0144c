"""Matrix square root by the coupled Newton-Schulz iteration (iSQRT-COV).

Li et al., Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix
Square Root Normalization, CVPR 2018, https://arxiv.org/abs/1712.01034.
"""

import torch
from torch import Tensor

from .arguments import check_integer, check_square
from .precision import full_precision

# In the null space of a singular matrix Z_k grows 1.5-fold a step, and the rounding errors of Y_k
# with it: 1e-6 of the root in float32 after 12 steps, 1e-5 after 20, NaN after 30.
MAX_ITERATIONS = 12


@full_precision
def matrix_sqrt_newton_schulz(cov: Tensor, /, iterations: int = 5) -> Tensor:
    r"""Approximate square root of symmetric positive semi-definite matrices by products alone.

    The trace pre-normalizes the matrix so that the iteration converges, and post-compensates the
    result::

        A = cov / tr(cov);  Y_0 = A;  Z_0 = I
        Y_{k+1} = Y_k (3 I - Z_k Y_k) / 2
        Z_{k+1} = (3 I - Z_k Y_k) Z_k / 2
        sqrt(cov) ~ sqrt(tr(cov)) Y_K

    Prefer it on a GPU and wherever released weights are used: they were trained with exactly five
    iterations, and expect that function rather than the exact root. Eigenvalues far below the
    trace have not converged after five iterations (:math:`\lambda / tr = 1/256` yields 0.45 of
    its root); for the exact root see :func:`matrix_sqrt_eigh`.

    Args:
        cov: (..., D, D), symmetric positive semi-definite. A zero matrix gives zeros and a
            finite gradient, NaN gives NaN. float16 and bfloat16 are computed in float32.
        iterations: number of iterations K, 1 to :data:`MAX_ITERATIONS`.

    Returns:
        (..., D, D), float32 or, for float64 input, float64.

    Raises:
        TypeError: if `cov` is not a floating-point tensor or `iterations` not an integer.
        ValueError: if the matrices are not square or `iterations` is out of range.
    """
    check_square(cov)
    check_integer('iterations', iterations, high=MAX_ITERATIONS)

    trace, present = guard_trace(cov.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None])
    y, _, t = newton_schulz(cov / trace * present, iterations)
    return trace.sqrt() * (y @ t)


def newton_schulz(a: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """The iteration up to its last two products, of which a caller needs one.

    Args:
        a: (..., n, n), symmetric, spectrum in [0, 1].
        iterations: number of iterations K, at least 1.

    Returns:
        y, z and t, each (..., n, n) or, z for K = 1, (n, n): Y_K = y t approximates the square
        root of `a`, Z_K = t z its inverse, and Y_K = a Z_K.
    """
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    y, z, t = a, eye, (3 * eye - a) / 2
    for k in range(iterations - 1):
        y, z = y @ t, t @ z if k else t  # Z_0 = I needs no product
        t = (3 * eye - z @ y) / 2
    return y, z, t


def guard_trace(trace: Tensor) -> tuple[Tensor, Tensor]:
    """Make a trace safe to divide by.

    Args:
        trace: any shape, not negative.

    Returns:
        The trace, and 1 in its shape; or 1 and 0 where it is so small that its reciprocal would
        overflow in the backward: no matrix to speak of, taken for zero.
    """
    vanishing = trace < torch.finfo(trace.dtype).tiny
    return trace.masked_fill(vanishing, 1.0), (~vanishing).to(trace.dtype)
