"""Multiply-adds against counts by hand and other counters."""

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gcp_mm.models import GlobalCovariancePooling
from gcp_mm.studies.complexity import config_complexity, count_complexity, pooling_multiply_adds
from tests.helpers.runs import ROOT


@pytest.mark.parametrize('iterations', [2, 3, 5, 7])
def test_root_is_counted_as_the_published_layer_computes_it(monkeypatch, iterations):
    monkeypatch.syspath_prepend(str(ROOT / 'tools/benchmarks'))
    from isqrt_cov import isqrt_cov

    counts = []
    for n in (4, 5):  # the published covariance takes N x N products too: fit them away
        with FlopCounterMode(display=False) as flops:
            isqrt_cov(torch.randn(1, 8, n), iterations)
        counts.append(flops.get_total_flops() // 2 - 8 * n * n - 8 * 8 * n)
    ours = pooling_multiply_adds(8, 4, iterations)
    assert counts == [ours['square root']] * 2
    assert ours['covariance'] == 8 * 8 * 4


class Network(nn.Module):
    def __init__(self, **neck):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3, bias=False)
        self.neck = GlobalCovariancePooling(6, reduction=(4,), **neck)
        self.fc = nn.Linear(10, 7)

    def forward(self, x):
        return self.fc(self.neck(self.conv(x)))


@pytest.mark.parametrize(
    ('neck', 'root'),
    [
        (dict(), 12 * 64),
        (dict(method='newton_schulz'), 12 * 64),
        (dict(iterations=1), 64),
        (dict(norm='eigh'), 64),
        (dict(norm='none'), 0),
        (dict(norm='log'), 64),
        (dict(norm='cholesky'), 0),
    ],
)
def test_small_network_by_hand(neck, root):
    network = Network(**neck)
    complexity = count_complexity(network, torch.randn(1, 3, 10, 8))
    expected = {
        'convolutions': 6 * 9 * 20 + 6 * 4 * 20,  # 5 x 4 positions
        'linear layers': 10 * 7,
        'covariance': 4 * 4 * 20,
        'square root': root,
    }
    assert complexity.multiply_adds == {name: n for name, n in expected.items() if n}
    assert complexity.parameters == 6 * 9 + 6 * 4 + 2 * 4 + 10 * 7 + 7
    assert complexity.uncounted == ['batch_norm']


@pytest.mark.parametrize('channels', [1, 5])
def test_channels_are_the_networks(channels):
    cfg = Config.fromfile(ROOT / 'configs/digits/resnet18_1xb64-5e_digits.py')
    three = config_complexity(cfg, (64, 64))
    cfg.model.backbone.in_channels = channels
    found = config_complexity(cfg, (64, 64))
    assert (three.image, found.image) == ((3, 64, 64), (channels, 64, 64))
    weights = (channels - 3) * 64 * 7 * 7
    assert found.parameters - three.parameters == weights
    assert found.total - three.total == weights * 32 * 32


def test_attention_by_hand():
    class Attention(nn.Module):
        def forward(self, x):
            key = x[..., :5, :]
            return nn.functional.scaled_dot_product_attention(x, key, key) @ x.mT

    complexity = count_complexity(Attention(), torch.randn(1, 2, 9, 4))
    assert complexity.multiply_adds == {'matrix products': 2 * (2 * 9 * 5 * 4) + 2 * 9 * 4 * 9}


def test_detector():
    """The heads of the digits' Faster R-CNN by hand; the backbone is a part of the total."""
    path = 'configs/digits/faster-rcnn_r18-gcp-m_fpn_4e_digits.py'
    complexity = config_complexity(Config.fromfile(ROOT / path), (96, 64))
    per_proposal = 128 * 7 * 7 * 256 + 256 * 256 + 256 * (11 + 40)
    proposals, rest = divmod(complexity.multiply_adds['linear layers'], per_proposal)
    assert rest == 0
    assert 0 < proposals <= 50
    assert complexity.multiply_adds['convolutions'] > 1.81e9 * 96 * 64 / 224**2
    assert 'PythonOp.RoIAlignFunction' in complexity.uncounted
