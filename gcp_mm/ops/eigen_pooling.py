"""The Newton-Schulz pooling, for any number of iterations, by one eigendecomposition.

K iterations are a polynomial: applied to a symmetric matrix V diag(lambda) V^T it acts on the
eigenvalues alone. Its derivative does too, by the Daleckii-Krein theorem: in the basis V the
gradient G becomes f[i,j] G_ij with the divided differences f[i,j] = (f(lambda_i) - f(lambda_j)) /
(lambda_i - lambda_j). These come out of the recurrence of the iteration itself by the product rule
(f g)[i,j] = f_i g[i,j] + f[i,j] g_j: nothing is divided, so nearly equal eigenvalues do no harm.
"""

import torch
from torch import Tensor
from torch.autograd import Function

from .covariance import centre, normalise, scatter
from .newton_schulz_pooling import pool_by_newton_schulz
from .precision import autocast_off
from .triangle import triu_vector, triu_vector_inverse


def pool_by_eigh(x: Tensor, iterations: int, save: str = 'auto') -> Tensor:
    """Pooling of features, differentiable any number of times.

    Args:
        x: (B, D, N) features, float32 or float64.
        iterations: Newton-Schulz iterations.
        save: what the backward finds, see :func:`global_covariance_pooling`.

    Returns:
        (B, D(D+1)/2), the upper triangle of sqrt(tr) p(Sigma / tr).

    Raises:
        torch.linalg.LinAlgError: if the features hold NaN or infinity.
    """
    return _Pool.apply(x, iterations, save)


def iterate_on_spectrum(lam: Tensor, iterations: int) -> tuple[Tensor, ...]:
    """Y_K and Z_K at eigenvalues, with their divided differences.

    Args:
        lam: (..., n) eigenvalues in [0, 1].
        iterations: number of iterations K.

    Returns:
        Y_K and Z_K, (..., n), and their divided differences, (..., n, n).
    """
    y, z = lam, torch.ones_like(lam)
    dy = torch.ones_like(lam[..., :, None] * lam[..., None, :])
    dz = torch.zeros_like(dy)
    for _ in range(iterations):
        t = (3 - z * y) / 2
        dt = _product_rule(z, dz, y, dy) / -2
        y, dy, z, dz = y * t, _product_rule(y, dy, t, dt), t * z, _product_rule(t, dt, z, dz)
    return y, z, dy, dz


def _product_rule(f, df, g, dg):
    return f[..., :, None] * dg + df * g[..., None, :]


class _Pool(Function):
    @staticmethod
    def forward(ctx, x, iterations, save):
        out, *saved = _forward(x, iterations)
        ctx.iterations = iterations
        ctx.save_for_backward(x, *(() if save == 'input' else saved))
        return out

    @staticmethod
    def backward(ctx, grad):
        x, *saved = ctx.saved_tensors
        with autocast_off(grad.device.type):
            if torch.is_grad_enabled():  # to be differentiated again: by autograd
                with torch.enable_grad():
                    out = pool_by_newton_schulz(x, ctx.iterations)
                return torch.autograd.grad(out, x, grad, create_graph=True)[0], None, None
            saved = saved or _forward(x, ctx.iterations)[1:]
            return _backward(grad, x, ctx.iterations, *saved), None, None


def _forward(x, iterations):
    d, n = x.shape[1:]
    x, tau, _ = normalise(centre(x))
    lam, v = _eigh(x.mT @ x if n < d else scatter(x))
    y, z, *_ = iterate_on_spectrum(lam, iterations)
    u = x @ v if n < d else v
    values = (z if n < d else y)[:, None] * tau.sqrt()
    return triu_vector((u * values) @ u.mT), lam, v


def _backward(grad, x, iterations, lam, v):
    d, n = x.shape[1:]
    x, tau, scale = normalise(centre(x))
    y, z, dy, dz = iterate_on_spectrum(lam, iterations)
    g = triu_vector_inverse(grad)  # the off-diagonals stand in both triangles
    g.diagonal(dim1=-2, dim2=-1).mul_(2)
    g.mul_(tau.sqrt())
    if n < d:  # p(x x^T) = x Z_K(x^T x) x^T
        u = x @ v
        gu = g @ u
        dx = (gu * z[:, None] + u @ (dz * (u.mT @ gu))) @ v.mT
        dtau = (u * gu * z[:, None]).sum((1, 2), keepdim=True) / 2
    else:
        gv = v.mT @ g @ v
        dx = v @ (dy * gv) @ (v.mT @ x)
        dtau = (gv.diagonal(dim1=-2, dim2=-1) * y).sum(1)[:, None, None] / 2
    # tau scales the result and the features: 2 tau dL/dtau, with d tau = 2 x . dx / N
    dtau = dtau - (x * dx).sum((1, 2), keepdim=True)
    return (dx + dtau * x) * scale  # x's rows sum to zero, and so do those of dx: centring is done


def _eigh(a):
    """Eigenvalues and eigenvectors, found in float64: float32's are off by ten times its eps."""
    lam, v = torch.linalg.eigh(a.double())
    return lam.to(a.dtype), v.to(a.dtype)
