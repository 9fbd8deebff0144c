"""Exact matrix square root by eigendecomposition, eq. (2) of https://arxiv.org/abs/2003.11241.

The derivative of S = A^{1/2} solves the Lyapunov equation S dS + dS S = dA. In the eigenbasis of
S that is a division by s_i + s_j, where autograd through an eigendecomposition divides by
lambda_i - lambda_j: this form has no pole at equal eigenvalues.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .arguments import check_square
from .precision import full_precision, full_products
from .psd_eigh import psd_spectrum, symmetric_part


@full_precision
def matrix_sqrt_eigh(cov: Tensor, /) -> Tensor:
    r"""Exact square root :math:`U \Lambda^{1/2} U^T` of symmetric positive semi-definite matrices.

    Prefer it as the reference, or on a CPU; on a GPU batched eigendecomposition is slow and
    :func:`matrix_sqrt_newton_schulz` is the layer the paper trains with. Eigenvalues within
    rounding error of zero count as zero, and the directions they span pass no gradient among
    themselves. Differentiable any number of times by autograd
    (not by torch.func).

    Args:
        cov: (..., D, D), symmetric positive semi-definite; only its lower triangle is read.
            float16 and bfloat16 are computed in float32.

    Returns:
        (..., D, D), float32 or, for float64 input, float64.

    Raises:
        TypeError: if `cov` is not a floating-point tensor.
        ValueError: if the matrices are not square, or have a negative eigenvalue beyond rounding.
        torch.linalg.LinAlgError: if they hold NaN or infinity.
    """
    check_square(cov)
    return _SqrtEigh.apply(cov)


class _SqrtEigh(Function):
    @staticmethod
    def forward(ctx: Any, cov: Tensor) -> Tensor:
        lam, u = psd_spectrum(cov)
        s = lam.sqrt()
        root = (u * s[..., None, :]) @ u.mT
        ctx.save_for_backward(root, u, s)
        return root

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        with full_products(grad):
            return _Lyapunov.apply(*ctx.saved_tensors, grad)


class _Lyapunov(Function):
    """Solve S X + X S = sym(G) for symmetric S = U diag(s) U^T, least squares where s_i + s_j = 0.

    U and s only carry what is already known of S; derivatives flow through S and G.
    """

    @staticmethod
    def forward(ctx: Any, root: Tensor, u: Tensor, s: Tensor, g: Tensor) -> Tensor:
        sums = s[..., :, None] + s[..., None, :]
        inverse = torch.where(sums > 0, 1 / sums, 0)
        x = u @ (inverse * (u.mT @ symmetric_part(g) @ u)) @ u.mT
        ctx.save_for_backward(root, u, s, x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        root, u, s, x = ctx.saved_tensors
        with full_products(grad):
            z = _Lyapunov.apply(root, u, s, grad)  # the solution operator is its own adjoint
            return -(z @ x + x @ z), None, None, z
