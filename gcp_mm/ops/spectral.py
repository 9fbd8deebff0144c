r"""Functions of covariance matrices through their eigenvalues: powers and the logarithm.

f(A) = U f(Lambda) U^T. Its derivative multiplies, in the eigenbasis, by divided differences
(Daleckii and Krein, 1965; see :mod:`.eigenvalues`). As normalizations of covariance pooling: Li et
al., Is Second-Order Information Helpful for Large-Scale Visual Recognition, ICCV 2017,
https://arxiv.org/abs/1703.08050 (powers), and Chen et al., Understanding Matrix Function
Normalizations in Covariance Pooling through the Lens of Riemannian Geometry, ICLR 2025,
https://arxiv.org/abs/2407.10484 (powers and the logarithm).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .arguments import check_number, check_square
from .covariance import center, flatten_positions, scatter
from .eigenvalues import EPS, Log, Power
from .precision import full_precision, full_products
from .psd_eigh import psd_spectrum, symmetric_part


@full_precision
def matrix_power(cov: Tensor, /, exponent: float) -> Tensor:
    """Power of symmetric positive semi-definite matrices; 1/2 is the exact square root.

    Computed in float64. For the root alone, :func:`matrix_sqrt_eigh` is faster and has second
    derivatives.

    Args:
        cov: (..., D, D), symmetric positive semi-definite; only its lower triangle is read.
            Eigenvalues within rounding error of zero count as zero.
        exponent: above 0.

    Returns:
        (..., D, D), float32 or, for float64 input, float64. Differentiable once.

    Raises:
        TypeError: if `cov` is not a floating-point tensor or `exponent` not a number.
        ValueError: if the matrices are not square or have a negative eigenvalue beyond rounding,
            or `exponent` is not above 0.
        torch.linalg.LinAlgError: if they hold NaN or infinity.
    """
    check_number('exponent', exponent)
    check_square(cov)
    return _MatrixFunction.apply(cov, Power(float(exponent)))


@full_precision
def matrix_log(cov: Tensor, /, eps: float = EPS) -> Tensor:
    """Logarithm of symmetric positive semi-definite matrices, log(A + eps I).

    Computed in float64. The logarithm needs full rank, which a covariance of fewer positions than
    channels does not have: hence `eps`.

    Args:
        cov: (..., D, D), symmetric positive semi-definite; only its lower triangle is read. Give
            float64 for gradients of singular matrices: the slope at zero, 1 / eps, amplifies the
            rounding error of `cov`.
        eps: above 0; in units of `cov`.

    Returns:
        (..., D, D), float32 or, for float64 input, float64. Differentiable once.

    Raises:
        TypeError: if `cov` is not a floating-point tensor or `eps` not a number.
        ValueError: if the matrices are not square or have a negative eigenvalue beyond rounding,
            or `eps` is not above 0.
        torch.linalg.LinAlgError: if they hold NaN or infinity.
    """
    check_number('eps', eps)
    check_square(cov)
    return _MatrixFunction.apply(cov, Log(eps))


def pool_by_spectrum(x: Tensor, function: Power | Log) -> Tensor:
    """Function of the covariance of features, from the smaller of covariance and Gram matrix.

    Args:
        x: features, (B, D, H, W) or (B, D, N), float32 or float64; computed in float64.
        function: of the eigenvalues.

    Returns:
        (B, D, D), in the dtype of `x`. Differentiable once.
    """
    return _PoolBySpectrum.apply(flatten_positions(x), function)


class _MatrixFunction(Function):
    @staticmethod
    def forward(ctx: Any, cov: Tensor, function: Power | Log) -> Tensor:
        lam, u = psd_spectrum(cov.double(), cov.dtype)
        ctx.save_for_backward(lam, u)
        ctx.function = function
        out = (u * function.value(lam)[..., None, :]) @ u.mT
        out.diagonal(dim1=-2, dim2=-1).add_(function.at_zero)
        return out.to(cov.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        lam, u = ctx.saved_tensors
        with full_products(grad):
            differences = ctx.function.differences(lam[..., :, None], lam[..., None, :])
            inner = u.mT @ symmetric_part(grad.double()) @ u
            return (u @ (differences * inner) @ u.mT).to(grad.dtype), None


class _PoolBySpectrum(Function):
    """f(X X^T / N) of centered features X = U S V^T sqrt(N), U of min(D, N) columns.

    The gradient of the features is 2/N sym(dA) X for the gradient dA of the covariance A. X lies
    in the span of U, so that of U's complement only the divided differences with zero are needed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Power | Log) -> Tensor:
        d, n = x.shape[1:]
        features = center(x.double())
        if n < d:
            lam, v = psd_spectrum(features.mT @ features / n)
            u = features @ (v * torch.where(lam > 0, (lam * n).rsqrt(), 0)[:, None])
        else:
            lam, u = psd_spectrum(scatter(features) / n)
        ctx.save_for_backward(features, lam, u)
        ctx.function, ctx.dtype = function, x.dtype
        out = (u * function.value(lam)[:, None]) @ u.mT
        out.diagonal(dim1=1, dim2=2).add_(function.at_zero)
        return out.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        features, lam, u = ctx.saved_tensors
        n = features.shape[2]
        with full_products(grad):
            gradient = symmetric_part(grad.double())
            ahead = gradient @ u
            inner = u.mT @ ahead
            differences = ctx.function.differences(lam[:, :, None], lam[:, None, :])
            da_u = u @ (differences * inner)
            if u.shape[2] < u.shape[1]:
                with_zero = ctx.function.differences(lam, torch.zeros_like(lam))
                da_u += (ahead - u @ inner) * with_zero[:, None]
            dx = 2 / n * da_u @ (u.mT @ features)
            # the adjoint of centering
            return (dx - dx.mean(2, keepdim=True)).to(ctx.dtype), None
