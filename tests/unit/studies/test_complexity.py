"""Parameters and multiply-adds against the paper's Table 9, counts by hand and other counters."""

import json
import runpy

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gcp_mm.models import GlobalCovariancePooling
from gcp_mm.studies.complexity import config_complexity, count_complexity, pooling_multiply_adds
from tests.helpers.runs import ROOT

TOOL = 'tools/cost_table.py'
# Table 9: millions of parameters, 10^9 multiply-adds
TABLE_9 = {
    'ResNet-18 GAP': (11.69, 1.81),
    'ResNet-18 GCP': (19.60, 3.11),
    'ResNet-34 GAP': (21.80, 3.66),
    'ResNet-34 GCP': (29.71, 5.66),  # 5.56 in print, a slip
    'ResNet-50 GAP': (25.56, 3.86),
    'ResNet-50 GCP': (32.32, 6.19),
    'ResNet-101 GAP': (44.55, 7.57),
    'ResNet-101 GCP': (51.31, 9.90),
    'ResNet-152 GAP': (60.19, 11.28),
}


@pytest.fixture(scope='module')
def cost_table():
    return runpy.run_path(str(ROOT / TOOL))


@pytest.mark.parametrize('row', TABLE_9)
def test_rows_of_table_9(cost_table, row):
    complexity = cost_table['count'](row, 'caffe')
    parameters, multiply_adds = TABLE_9[row]
    assert round(complexity.parameters / 1e6, 2) == parameters
    assert round(complexity.total / 1e9, 2) == pytest.approx(multiply_adds, abs=0.0101)


def test_stride_in_the_3x3_convolution_costs_more(cost_table):
    for row, multiply_adds in (('ResNet-50 GAP', 4.089), ('ResNet-50 GCP', 6.352)):
        complexity = cost_table['count'](row, 'pytorch')
        assert round(complexity.total / 1e9, 3) == multiply_adds


def test_tool_quotes_the_table(cost_table):
    quoted = {row: (p.parameters, p.multiply_adds) for row, p in cost_table['TABLE_9'].items()}
    assert quoted == TABLE_9 | {'ResNet-34 GCP': (29.71, 5.56)}


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


def test_attention_by_hand():
    class Attention(nn.Module):
        def forward(self, x):
            key = x[..., :5, :]
            return nn.functional.scaled_dot_product_attention(x, key, key) @ x.mT

    complexity = count_complexity(Attention(), torch.randn(1, 2, 9, 4))
    assert complexity.multiply_adds == {'matrix products': 2 * (2 * 9 * 5 * 4) + 2 * 9 * 4 * 9}


def test_detector():
    """The heads of the digits' Faster R-CNN by hand; the trunk is a part of the whole."""
    path = 'configs/digits/faster-rcnn_r18-gcp-m_fpn_4e_digits.py'
    complexity = config_complexity(Config.fromfile(ROOT / path), (96, 64))
    per_proposal = 128 * 7 * 7 * 256 + 256 * 256 + 256 * (11 + 40)
    proposals, rest = divmod(complexity.multiply_adds['linear layers'], per_proposal)
    assert rest == 0
    assert 0 < proposals <= 50
    assert complexity.multiply_adds['convolutions'] > 1.81e9 * 96 * 64 / 224**2
    assert 'PythonOp.RoIAlignFunction' in complexity.uncounted


def test_get_flops(call_tool, capsys):
    call_tool(
        *('tools/get_flops.py', 'mmpretrain::resnet/resnet50_8xb32_in1k.py'),
        *('--shape', 224, 224, '--cfg-options', 'model.backbone.style=caffe'),
    )
    output = capsys.readouterr().out
    assert 'parameters           25.557 M' in output
    assert 'multiply-adds         3.858 G' in output


def test_config_of_another_package_is_refused(call_tool):
    with pytest.raises(ValueError, match=r"config: expected .* got 'mmcls::resnet\.py'"):
        call_tool('tools/get_flops.py', 'mmcls::resnet.py')


def test_cost_table(call_tool, tmp_path, capsys):
    call_tool(
        *(TOOL, '--rows', 'ResNet-18 GAP', 'ResNet-18 GCP', '--out', tmp_path),
        *('--batch', 2, '--size', 32, '--repeats', 1),
    )
    written = (tmp_path / 'cost_table.md').read_text()
    assert written in capsys.readouterr().out
    assert '| ResNet-18 GCP | 19.60 (19.60) | 3.115 (3.11) | 3.115 |' in written
    report = json.loads((tmp_path / 'cost_table.json').read_text())
    assert report['machine']['batch'] == 2
    for row in report['rows']:
        assert row['train_ms'] > 0 < row['infer_ms']
