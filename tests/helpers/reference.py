"""What the tests of the pooling hold its implementations to."""

import numpy as np
import torch

from gcp_mm.ops import global_covariance_pooling

FEATURES = dict(
    gaussian=lambda x: x,
    relu_sparse=lambda x: (x - 1).relu(),
    rank_1=lambda x: x[:, :, :1] @ x[:, :1],
    mean_100=lambda x: x + 100,
    small=lambda x: x * 1e-4,
    large=lambda x: x * 1e4,
    dead_channels=lambda x: x * (torch.arange(x.shape[1])[:, None] % 10 == 0),
)


# N > D, N < D, batch 1, 3-D
SHAPES = [(3, 6, 4, 5), (2, 8, 2, 2), (1, 5, 3, 3), (2, 4, 7)]


def features(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def random_features(*shape, seed=0, dtype=torch.float64, requires_grad=False):
    """Drawn in float64, so that the same in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_(requires_grad)


def scalar_newton_schulz(x, iterations):
    """Y_K of the iteration at each number of an array in [0, 1]."""
    y, z = x, np.ones_like(x)
    for _ in range(iterations):
        t = (3 - z * y) / 2
        y, z = y * t, t * z
    return y


def numpy_newton_schulz(sigma, iterations):
    """The iteration on the spectrum of (..., D, D): all its matrices are polynomials in one."""
    lam, u = np.linalg.eigh(sigma)
    tau = np.trace(sigma, axis1=-2, axis2=-1)[..., None]
    y = scalar_newton_schulz(lam / np.where(tau > 0, tau, 1), iterations)
    return u * (np.sqrt(tau) * y)[..., None, :] @ u.swapaxes(-1, -2)


def numpy_log(sigma, eps=1e-6):
    """log(sigma + eps I)."""
    lam, u = np.linalg.eigh(sigma)
    return u * np.log(lam.clip(0) + eps)[..., None, :] @ u.swapaxes(-1, -2)


def numpy_log_cholesky(sigma, eps=1e-6):
    """The Cholesky factor with the logarithm of its diagonal, plus its transpose."""
    factors = np.linalg.cholesky(sigma + eps * np.eye(sigma.shape[-1]))
    t = np.array([np.tril(m, -1) + np.diag(np.log(np.diag(m))) for m in factors])
    return t + t.swapaxes(-1, -2)


def numpy_signed_sqrt(m):
    """The signed square root of each entry, of length 1."""
    root = np.sign(m) * np.sqrt(np.abs(m))
    return root / np.sqrt((root**2).sum((-2, -1), keepdims=True))


def reference(x, iterations=5, method='newton_schulz'):
    """Output, a random gradient of it, and the gradient of the features: in float64."""
    x = x.double().requires_grad_()
    out = global_covariance_pooling(x, iterations, method=method)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(out.shape, generator=generator, dtype=out.dtype).to(out.device)
    return out.detach(), grad, torch.autograd.grad(out, x, grad)[0]


def relative_error(value, expected):
    # Zeros, of a single position, must be zeros exactly.
    return ((value - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def allowed_errors(x, iterations=5, method='circuit'):
    """Largest relative errors in float32, of output and gradient against :func:`reference`.

    Rounding errors depend on the processor, which decides the order of sums. In the iteration they
    grow by 3/2 a step where eigenvalues are zero, and by the root of the numbers in a sum. The
    circuit may have twice the rounding error that the iteration in float32 has on the same
    features, here and now, plus 8 eps where that is small. The circuit's own error comes on top: it
    is that of the circuit in float64, and the same on every processor.

    Args:
        x: features of any dtype and scale.
        iterations: Newton-Schulz iterations.
        method: 'circuit' or 'newton_schulz'; 'auto' for float32's choice.
    """
    if method == 'auto':
        method = 'circuit' if iterations in (3, 5) else 'newton_schulz'
    eps = torch.finfo(torch.float32).eps
    limit = eps * (4 + 1.5**iterations * max(x.flatten(2).shape[1:]) ** 0.5)
    if method == 'newton_schulz':
        return limit, limit
    # At a scale where neither squares nor their gradients leave float32's range
    x = x.float() / x.float().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    expected, grad, expected_dx = reference(x, iterations)
    leaf = x.detach().requires_grad_()
    out = global_covariance_pooling(leaf, iterations, method='newton_schulz')
    (dx,) = torch.autograd.grad(out, leaf, grad.float())
    errors = relative_error(out.detach(), expected), relative_error(dx, expected_dx)
    assert max(errors) <= limit
    bounds = [2 * error + 8 * eps for error in errors]
    out, _, dx = reference(x, iterations, 'circuit')
    own = relative_error(out, expected), relative_error(dx, expected_dx)
    # The error that the coefficients of circuits.json were fitted to, not one of rounding
    assert own[0] < 6e-7
    assert own[1] < 4e-6
    return tuple(bound + error for bound, error in zip(bounds, own, strict=True))
