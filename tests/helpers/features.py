"""Features with channels that are correlated and of different scales."""

import torch


def features(shape, seed=0):
    """Random features, float64, of a shape (B, D, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    mix = torch.randn(shape[1], shape[1], generator=generator, dtype=torch.float64)
    return torch.einsum('dc,bchw->bdhw', mix, x)
