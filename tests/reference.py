"""What the tests of the pooling hold its implementations to."""

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


def features(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def reference(x, iterations=5):
    """Output, a random gradient of it, and the gradient of the features: iterated in float64."""
    x = x.double().requires_grad_()
    out = global_covariance_pooling(x, iterations, method='newton_schulz')
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(out.shape, generator=generator, dtype=out.dtype).to(out.device)
    return out.detach(), grad, torch.autograd.grad(out, x, grad)[0]


def relative_error(value, expected):
    # Zeros, of a single position, must be zeros exactly.
    return ((value - expected).norm() / expected.norm().clamp_min(1e-30)).item()
