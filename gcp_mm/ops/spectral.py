r"""Functions of covariance matrices through their eigenvalues: powers and the logarithm.

f(A) = U f(Lambda) U^T. Its derivative multiplies, in the eigenbasis, by the divided differences

    F_ij = (f(lambda_i) - f(lambda_j)) / (lambda_i - lambda_j),    F_ii = f'(lambda_i)

(Daleckii and Krein, 1965), which are evaluated here without cancellation: they have no pole at equal
eigenvalues. As normalisations of covariance pooling: Li et al., Is Second-Order Information Helpful
for Large-Scale Visual Recognition, ICCV 2017, https://arxiv.org/abs/1703.08050 (powers), and Chen
et al., Understanding Matrix Function Normalizations in Covariance Pooling through the Lens of
Riemannian Geometry, ICLR 2025, https://arxiv.org/abs/2407.10484 (powers and the logarithm).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .covariance import centre, flatten_positions, scatter
from .newton_schulz import check_square
from .precision import autocast_off, full_precision
from .psd_eigh import psd_eigh

EPS = 1e-6  # added to the eigenvalues before a logarithm


@dataclass(frozen=True)
class Power:
    """lambda^exponent, with 0 at 0.

    Attributes:
        exponent: above 0. Below 1 the derivative at zero is infinite: directions in which both
            eigenvalues are zero pass no gradient.
    """

    exponent: float
    at_zero: float = 0.0

    def value(self, lam: Tensor) -> Tensor:
        """f of eigenvalues, which are zero or positive."""
        return lam**self.exponent

    def differences(self, a: Tensor, b: Tensor) -> Tensor:
        """Divided differences of eigenvalues that broadcast, zero or positive."""
        zero = (a == 0) | (b == 0)
        log_a, log_b = (torch.where(zero, 1, lam).log() for lam in (a, b))
        half = (log_a - log_b).abs() / 2
        small = half < 1e-4
        safe = torch.where(small, 1, half)
        p = self.exponent
        # sinh(p h) / sinh(h), with its factors e^h taken out
        ratio = ((p - 1) * safe).exp() * torch.expm1(-2 * p * safe) / torch.expm1(-2 * safe)
        ratio = torch.where(small, p * (1 + (p * p - 1) * half.square() / 6), ratio)
        middle = ((p - 1) * (log_a + log_b) / 2).exp()
        largest = torch.maximum(a, b)
        one_zero = torch.where(largest > 0, largest, 1) ** (p - 1)
        both_zero = torch.full_like(largest, float(p == 1))
        return torch.where(
            zero, torch.where(largest > 0, one_zero, both_zero), middle * ratio
        )


@dataclass(frozen=True)
class Log:
    """log(lambda + eps) - log(eps), which is 0 at 0; `at_zero` is log(eps)."""

    eps: float = EPS

    @property
    def at_zero(self) -> float:
        """What f(A) has on the diagonal beside the values: log(eps)."""
        return math.log(self.eps)

    def value(self, lam: Tensor) -> Tensor:
        """f of eigenvalues, less log(eps)."""
        return torch.log1p(lam / self.eps)

    def differences(self, a: Tensor, b: Tensor) -> Tensor:
        """Divided differences of eigenvalues that broadcast, zero or positive."""
        total = a + b + 2 * self.eps
        z = (a - b) / total
        small = z.abs() < 1e-4
        safe = torch.where(small, 0.5, z)
        return torch.where(small, 1 + z.square() / 3, torch.atanh(safe) / safe) * 2 / total


@full_precision
def matrix_power(cov: Tensor, exponent: float) -> Tensor:
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
        ValueError: if the matrices are not square, or `exponent` is not above 0.
        torch.linalg.LinAlgError: if they hold NaN or infinity.
    """
    check_exponent(exponent)
    return _matrix_function(cov, Power(float(exponent)))


@full_precision
def matrix_log(cov: Tensor, eps: float = EPS) -> Tensor:
    """Logarithm of symmetric positive semi-definite matrices, log(A + eps I).

    Computed in float64. The logarithm needs full rank, which a covariance of fewer positions than
    channels does not have: hence `eps`.

    Args:
        cov: (..., D, D), symmetric positive semi-definite; only its lower triangle is read.
        eps: above 0; in units of `cov`.

    Returns:
        (..., D, D), float32 or, for float64 input, float64. Differentiable once.

    Raises:
        TypeError: if `cov` is not a floating-point tensor.
        ValueError: if the matrices are not square, or `eps` is not above 0.
        torch.linalg.LinAlgError: if they hold NaN or infinity.
    """
    check_eps(eps)
    return _matrix_function(cov, Log(eps))


def pool_by_spectrum(x: Tensor, function: Power | Log) -> Tensor:
    """Function of the covariance of features, from the smaller of covariance and Gram matrix.

    Args:
        x: features, (B, D, H, W) or (B, D, N), float32 or float64; computed in float64.
        function: of the eigenvalues.

    Returns:
        (B, D, D), in the dtype of `x`. Differentiable once.
    """
    return _PoolBySpectrum.apply(flatten_positions(x), function)


def check_exponent(value: float) -> None:
    """Raise TypeError or ValueError unless `value` is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f'exponent: expected a number above 0, got {value!r}')
    if not 0 < value < math.inf:
        raise ValueError(f'exponent: expected a number above 0, got {value}; the square root is 0.5')


def check_eps(value: float) -> None:
    """Raise ValueError unless `value` is above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f'eps: expected a number above 0, got {value}')


def _matrix_function(cov, function):
    check_square(cov)
    return _MatrixFunction.apply(cov, function)


class _MatrixFunction(Function):
    @staticmethod
    def forward(ctx, cov, function):
        lam, u = _spectrum(cov.double())
        ctx.save_for_backward(lam, u)
        ctx.function = function
        out = (u * function.value(lam)[..., None, :]) @ u.mT
        out.diagonal(dim1=-2, dim2=-1).add_(function.at_zero)
        return out.to(cov.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        lam, u = ctx.saved_tensors
        with autocast_off(grad.device.type):
            differences = ctx.function.differences(lam[..., :, None], lam[..., None, :])
            inner = u.mT @ _sym(grad.double()) @ u
            return (u @ (differences * inner) @ u.mT).to(grad.dtype), None


class _PoolBySpectrum(Function):
    """f(X X^T / N) of centred features X = U S V^T sqrt(N), U of min(D, N) columns.

    The gradient of the features is 2/N sym(dA) X for the gradient dA of the covariance A. X lies
    in the span of U, so that of U's complement only the divided differences with zero are needed.
    """

    @staticmethod
    def forward(ctx, x, function):
        d, n = x.shape[1:]
        features = centre(x.double())
        if n < d:
            lam, v = _spectrum(features.mT @ features / n)
            u = features @ (v * torch.where(lam > 0, (lam * n).rsqrt(), 0)[:, None])
        else:
            lam, u = _spectrum(scatter(features) / n)
        ctx.save_for_backward(features, lam, u)
        ctx.function, ctx.dtype = function, x.dtype
        out = (u * function.value(lam)[:, None]) @ u.mT
        out.diagonal(dim1=1, dim2=2).add_(function.at_zero)
        return out.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        features, lam, u = ctx.saved_tensors
        n = features.shape[2]
        with autocast_off(grad.device.type):
            gradient = _sym(grad.double())
            ahead = gradient @ u
            inner = u.mT @ ahead
            differences = ctx.function.differences(lam[:, :, None], lam[:, None, :])
            da_u = u @ (differences * inner)
            if u.shape[2] < u.shape[1]:
                with_zero = ctx.function.differences(lam, torch.zeros_like(lam))
                da_u += (ahead - u @ inner) * with_zero[:, None]
            dx = 2 / n * da_u @ (u.mT @ features)
            # the adjoint of centring
            return (dx - dx.mean(2, keepdim=True)).to(ctx.dtype), None


def _spectrum(a):
    """Eigenvalues, zero where they are within rounding error of it, and eigenvectors."""
    lam, u = psd_eigh(a)
    rounding = torch.finfo(a.dtype).eps * a.shape[-1] * lam[..., -1:]
    return torch.where(lam > rounding, lam, 0), u


def _sym(m):
    return (m + m.mT) / 2
