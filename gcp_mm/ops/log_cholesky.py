r"""Log-Cholesky normalization of covariance matrices.

Chen et al., Understanding Matrix Function Normalizations in Covariance Pooling through the Lens of
Riemannian Geometry, ICLR 2025, https://arxiv.org/abs/2407.10484. With the Cholesky factor L of
A + eps I and T = strict lower triangle of L + diag(log diag L), the result is T + T^T.
"""

import torch
from torch import Tensor

from .arguments import check_number, check_square
from .eigenvalues import EPS
from .precision import full_precision


@full_precision
def log_cholesky(cov: Tensor, /, eps: float = EPS) -> Tensor:
    """Log-Cholesky coordinates of symmetric positive semi-definite matrices.

    Computed in float64. It depends on the order of the channels, and there is no way through the
    Gram matrix of the positions: the cost is that of D x D matrices always.

    Args:
        cov: (..., D, D), symmetric positive semi-definite; only its lower triangle is read.
        eps: above 0, in units of `cov`. Beside it the diagonal gets the rounding error of `cov`,
            2.2e-16 trace(A) in float64 and 1.2e-7 trace(A) in float32, lest rounding has made
            eigenvalues negative. Give float64 where `eps` is to be seen.

    Returns:
        (..., D, D), symmetric, float32 or, for float64 input, float64.

    Raises:
        TypeError: if `cov` is not a floating-point tensor or `eps` not a number.
        ValueError: if the matrices are not square, or `eps` is not above 0.
        torch.linalg.LinAlgError: if they hold NaN or infinity, or have a negative eigenvalue.
    """
    check_square(cov)
    check_number('eps', eps)
    a = cov.double()
    trace = a.diagonal(dim1=-2, dim2=-1).sum(-1)
    lift = eps + torch.finfo(cov.dtype).eps * trace.detach()
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    factor = torch.linalg.cholesky(a + lift[..., None, None] * eye)
    t = factor.tril(-1) + torch.diag_embed(factor.diagonal(dim1=-2, dim2=-1).log())
    return (t + t.mT).to(cov.dtype)
