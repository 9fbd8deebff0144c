"""Methods of other papers that the benchmarks compare with, written from the papers.

Each function pools (B, D, N) float32 or float64 features to (B, D(D+1)/2). The covariance and the
packing of its upper triangle are this project's, so that only the rest differs. Not for use.
"""

import math

import torch
from numpy.polynomial import Polynomial
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gcp_mm.ops import covariance, triu_vector


def mpn_cov(x):
    """Exact square root by an eigendecomposition in float64, with the textbook backward.

    Li et al., Is Second-Order Information Helpful for Large-Scale Visual Recognition, ICCV 2017,
    https://arxiv.org/abs/1703.08050, with the power 1/2.
    """
    return triu_vector(_SqrtByEigenvectors.apply(covariance(x.double()))).to(x.dtype)


def mpa_lya(x):
    """Fast differentiable square root: Pade approximant forward, Lyapunov equation backward.

    Song et al., Fast Differentiable Matrix Square Root, ICLR 2022,
    https://arxiv.org/abs/2201.08663. An eigenvalue 0 becomes sqrt(||A||_F) / 11.
    """
    return triu_vector(_SqrtByPade.apply(covariance(x)))


def bilinear(x):
    """Signed square roots of the second moment's entries, then length 1: B-CNN, by autograd.

    Lin et al., Bilinear CNN Models for Fine-grained Visual Recognition, ICCV 2015,
    https://arxiv.org/abs/1504.07889. The length is that of the whole matrix.
    """
    moment = x @ x.mT / x.shape[2]
    root = moment.sign() * torch.sqrt(moment.abs() + 1e-10)
    return triu_vector(root / root.norm(dim=(1, 2), keepdim=True))


class _SqrtByEigenvectors(Function):
    """U Lambda^(1/2) U^T with separate gradients of U and Lambda.

    That of U is divided by lambda_j - lambda_i, and dropped where they are equal. Eigenvalues
    within rounding error of zero count as zero and have no gradient, as published.
    """

    @staticmethod
    def forward(ctx, a):
        lam, u = torch.linalg.eigh(a)
        rounding = torch.finfo(a.dtype).eps * a.shape[-1] * lam[:, -1:]
        lam = torch.where(lam > rounding, lam, 0)
        ctx.save_for_backward(lam, u)
        return u * lam.sqrt()[:, None] @ u.mT

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        lam, u = ctx.saved_tensors
        root = lam.sqrt()
        grad = (grad + grad.mT) / 2
        du = 2 * grad @ u * root[:, None]
        dlam = (u * (grad @ u)).sum(1) * torch.where(lam > 0, 0.5 / root, 0)
        differences = lam[:, None] - lam[:, :, None]
        inner = torch.where(differences != 0, u.mT @ du / differences, 0) + torch.diag_embed(dlam)
        return u @ ((inner + inner.mT) / 2) @ u.mT


def pade(degree=5):
    """[degree, degree] Pade approximant P / Q of sqrt(1 - z): coefficients from z^0 up, two lists.

    With s^2 = 1 - z and n = 2 degree + 1, P and s Q are the even and the odd part of (1 + s)^n:
    P - s Q = (1 - s)^n = O(z^n).
    """
    n = 2 * degree + 1
    one_minus_z = Polynomial([1, -1])
    even, odd = (
        Polynomial([math.comb(n, k) for k in range(first, n + 1, 2)])(one_minus_z) / 2 ** (n - 1)
        for first in (0, 1)
    )
    return even.coef.tolist(), odd.coef.tolist()


class _SqrtByPade(Function):
    """P(Z) / Q(Z) for Z = I - A / ||A||_F, and 8 steps of the sign iteration in the backward."""

    @staticmethod
    def forward(ctx, a):
        norm = a.norm(dim=(1, 2), keepdim=True)
        eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        z = eye - a / norm
        powers = [eye, z]
        p, q = pade()
        while len(powers) < len(p):
            powers.append(powers[-1] @ z)
        p, q = (sum(c * m for c, m in zip(cs, powers, strict=True)) for cs in (p, q))
        root = torch.linalg.solve(q, p) * norm.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        # X of S X + X S = G is half the upper right block of sign([[S, G], [0, -S]]). The iteration
        # keeps the form [[B, C], [0, -B]]:
        #   C <- (C (3 I - B^2) - B (B C - C B)) / 2,    B <- B (3 I - B^2) / 2
        (root,) = ctx.saved_tensors
        norm = root.norm(dim=(1, 2), keepdim=True)
        b, c = root / norm, grad / norm
        three = 3 * torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
        for _ in range(8):
            factor = three - b @ b
            c = (c @ factor - b @ (b @ c - c @ b)) / 2
            b = b @ factor / 2
        return c / 2
