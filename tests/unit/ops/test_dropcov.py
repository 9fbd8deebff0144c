"""DropCov: its probability by hand, and plain covariance pooling at test time."""

import math

import numpy as np
import pytest
import torch

from gcp_mm.ops import DropCov, GlobalCovariancePool2d, dropcov_probability


def by_hand(x, attention):
    """The formula, in NumPy, image by image."""
    cosines = []
    for sample, y in zip(x.flatten(2).double().numpy(), attention.double().numpy(), strict=True):
        row_sums = np.cov(sample, bias=True).sum(1)
        cosines.append(row_sums @ y / np.linalg.norm(row_sums) / np.linalg.norm(y))
    return 1 - 10 / math.log2(len(sample)) * np.mean(cosines)


@pytest.mark.parametrize(('d', 'mean'), [(64, 0), (256, 0), (64, 3)])
def test_probability(d, mean):
    """Of scaled features; and the layer scales and drops at once, after it has the probability."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, d, 5, 5, generator=generator) + mean
    attention = torch.rand(4, d, generator=generator) ** 20  # few channels count
    scale = 1 + attention
    scaled = x * scale[:, :, None, None]
    expected = by_hand(scaled, attention)
    assert 0.05 < expected < 0.95
    p = dropcov_probability(scaled, attention)
    assert p.shape == ()
    np.testing.assert_allclose(p, expected, rtol=1e-5)
    np.testing.assert_allclose(dropcov_probability(x, attention, scale), expected, rtol=1e-5)


def test_probability_at_its_ends():
    x = torch.randn(2, 64, 9, generator=torch.Generator().manual_seed(0))
    row_sums = torch.stack([torch.cov(sample).sum(1) for sample in x])
    assert dropcov_probability(x, row_sums) == 0
    assert dropcov_probability(x, -row_sums) == 1 - 1 / 64
    constant = x[:, :, :1].expand(2, 64, 9)
    assert dropcov_probability(constant, row_sums) == 1 - 1 / 64  # no covariance


def test_probability_has_no_gradient_and_half_precision_is_computed_in_float32():
    x = torch.randn(2, 64, 5, 5, dtype=torch.bfloat16, requires_grad=True)
    p = dropcov_probability(x, torch.rand(2, 64))
    assert p.dtype == torch.float32
    assert not p.requires_grad


def test_channels_are_dropped_in_training(monkeypatch):
    """Whole channels, other ones in each sample, the rest scaled."""
    monkeypatch.setattr(
        'gcp_mm.ops.dropcov.dropcov_probability', lambda x, y, scale: torch.tensor(0.75)
    )
    layer = DropCov()
    torch.nn.init.zeros_(layer.attention.weight)  # a softmax of zeros: 1/D for each channel
    x = torch.rand(3, 256, 4, 4) + 1
    out = layer(x)
    kept = out[:, :, 0, 0] != 0
    assert 0.15 < kept.float().mean() < 0.35
    assert not torch.equal(kept[0], kept[1])
    expected = x * (1 + 1 / 256) * 4 * kept[:, :, None, None]
    torch.testing.assert_close(out, expected)


def test_attention_learns():
    layer = DropCov()
    (layer(torch.rand(2, 64, 4, 4)).square().sum()).backward()
    assert layer.attention.weight.grad.abs().sum() > 0


def test_at_test_time_it_is_the_plain_covariance():
    pool = GlobalCovariancePool2d(8, (64,), norm='none', dropcov=True)
    plain = GlobalCovariancePool2d(8, (64,), norm='none')
    plain.load_state_dict({k: v for k, v in pool.state_dict().items() if 'dropcov' not in k})
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(pool.eval()(x), plain.eval()(x))
    assert not torch.equal(pool.train()(x), plain.train()(x))
