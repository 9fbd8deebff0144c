"""The benchmarks compare what they say they compare, and write what they say they write."""

import json

import pytest
import torch

from gcp_mm.ops import global_covariance_pooling
from tests.helpers.runs import ROOT

TOOLS = ROOT / 'tools/benchmarks'


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


@pytest.mark.parametrize('shape', [(2, 8, 20), (3, 12, 5)])
@pytest.mark.parametrize('iterations', [2, 3, 5])
def test_textbook_layer_is_the_same_function(shape, iterations):
    from isqrt_cov import isqrt_cov

    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    out, expected = isqrt_cov(x, iterations), global_covariance_pooling(x, iterations)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, x, grad)[0], torch.autograd.grad(expected, x, grad)[0]
    )


def test_saved_memory_is_counted():
    from measure import saved_bytes

    x = torch.randn(1000, requires_grad=True)
    assert saved_bytes(lambda: x.exp(), x) == 4000  # the result
    assert saved_bytes(lambda: x.square(), x) == 0  # the input alone


@pytest.mark.slow
def test_layer(run_tool, tmp_path):
    sizes = ('--channels', '16', '--positions', '9', '25', '--batch', '2')
    short = ('--repeats', '1', '--seconds', '0', '--methods', '--out', tmp_path)
    result = run_tool(TOOLS / 'benchmark_gcp.py', *sizes, *short)
    assert result.returncode == 0, result.stdout
    rows = json.loads((tmp_path / 'gcp.json').read_text())['rows']
    assert {(row['D'], row['N'], row['B']) for row in rows} == {(16, 9, 2), (16, 25, 2)}
    for row in rows:
        if row['output error'] is not None:
            assert row['output error'] < 5e-6
            assert row['gradient error'] < 5e-6
    others = {row['candidate'] for row in rows if row['output error'] is None}
    assert {'GAP', 'plain covariance', 'log', 'DropCov, training'} <= others
    assert not {'auto', 'circuit, PyTorch'} & others
    saved = {row['candidate']: row['saved MiB/image'] for row in rows}
    assert saved['auto, save=input'] == 0 < saved['auto'] < saved['textbook iSQRT-COV']
    assert '| 16 | 25 | 2 | auto | ' in result.stdout
    assert (tmp_path / 'gcp.png').stat().st_size > 10000


@pytest.mark.slow
def test_training_step(run_tool, tmp_path):
    size = ('--depth', '18', '--batch', '2', '--size', '32', '--repeats', '1')
    result = run_tool(TOOLS / 'benchmark_train.py', *size, '--out', tmp_path)
    assert result.returncode == 0, result.stdout
    rows = json.loads((tmp_path / 'train_r18.json').read_text())['rows']
    assert [row['network'] for row in rows][:2] == [
        'ResNet-18, GAP',
        'ResNet-18, GAP, no down-sampling',
    ]
    assert rows[1]['ratio to GAP of the same backbone'] == 1
