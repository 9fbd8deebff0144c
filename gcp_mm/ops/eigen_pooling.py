"""The Newton-Schulz pooling, for any number of iterations, by one eigendecomposition.

K iterations are a polynomial: applied to a symmetric matrix V diag(lambda) V^T it acts on the
eigenvalues alone. Its derivative does too, by the Daleckii-Krein theorem: in the basis V the
gradient G becomes f[i,j] G_ij with the divided differences f[i,j] = (f(lambda_i) - f(lambda_j)) /
(lambda_i - lambda_j). These come out of the recurrence of the iteration itself by the product rule
(f g)[i,j] = f_i g[i,j] + f[i,j] g_j: nothing is divided, so nearly equal eigenvalues do no harm.
"""

import torch
from torch import Tensor

from .covariance import centre, normalise, scatter
from .newton_schulz_pooling import pool_by_newton_schulz
from .pool_function import Pooling
from .psd_eigh import psd_eigh
from .triangle import triu_vector, triu_vector_adjoint


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

    def forward(x, keep):
        out, *saved = _forward(x, iterations)
        return out, saved

    def backward(grad, x, saved):
        return _backward(grad, x, iterations, *(saved or forward(x, True)[1]))

    def plain(x):
        return pool_by_newton_schulz(x, iterations)

    return Pooling(forward, backward, plain).apply(x, save)


def iterates(lam: Tensor, iterations: int) -> list[tuple[Tensor, Tensor]]:
    """Y_k and Z_k at eigenvalues, k = 0 ... K.

    Args:
        lam: (..., n) eigenvalues in [0, 1].
        iterations: number of iterations K.

    Returns:
        K + 1 pairs of (..., n).
    """
    y, z = lam, torch.ones_like(lam)
    pairs = [(y, z)]
    for _ in range(iterations):
        t = (3 - z * y) / 2
        y, z = y * t, t * z
        pairs.append((y, z))
    return pairs


def divided_differences(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Divided differences of Y_K and Z_K, each (..., n, n), from all :func:`iterates`."""
    lam, _ = pairs[0]
    dy = torch.ones_like(lam[..., :, None] * lam[..., None, :])
    dz = torch.zeros_like(dy)
    for y, z in pairs[:-1]:
        t = (3 - z * y) / 2
        dt = _product_rule(z, dz, y, dy) / -2
        dy, dz = _product_rule(y, dy, t, dt), _product_rule(t, dt, z, dz)
    return dy, dz


def _product_rule(f, df, g, dg):
    return f[..., :, None] * dg + df * g[..., None, :]


def _forward(x, iterations):
    """Output, and the eigenvalues and eigenvectors."""
    d, n = x.shape[1:]
    x, tau, _ = normalise(centre(x))
    lam, v = _eigh(x.mT @ x if n < d else scatter(x))
    y, z = iterates(lam, iterations)[-1]
    u = x @ v if n < d else v
    values = (z if n < d else y)[:, None] * tau.sqrt()
    return triu_vector((u * values) @ u.mT), lam, v


def _backward(grad, x, iterations, lam, v):
    d, n = x.shape[1:]
    x, tau, scale = normalise(centre(x))
    pairs = iterates(lam, iterations)
    y, z = pairs[-1]
    dy, dz = divided_differences(pairs)
    g = triu_vector_adjoint(grad).mul_(tau.sqrt())
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
    lam, v = psd_eigh(a.double())
    return lam.to(a.dtype), v.to(a.dtype)
