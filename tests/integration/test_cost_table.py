"""Parameters and multiply-adds of the paper's Table 9, and the tools that print them."""

import json
import runpy

import pytest

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


@pytest.mark.parametrize(
    'row', [row if '-18' in row else pytest.param(row, marks=pytest.mark.slow) for row in TABLE_9]
)
def test_rows_of_table_9(cost_table, row):
    complexity = cost_table['count'](row)
    parameters, multiply_adds = TABLE_9[row]
    assert round(complexity.parameters / 1e6, 2) == parameters
    assert round(complexity.total / 1e9, 2) == pytest.approx(multiply_adds, abs=0.0101)


def test_tool_quotes_the_table(cost_table):
    quoted = {row: (p.parameters, p.multiply_adds) for row, p in cost_table['TABLE_9'].items()}
    assert quoted == TABLE_9 | {'ResNet-34 GCP': (29.71, 5.56)}


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


@pytest.mark.slow
def test_cost_table(call_tool, tmp_path, capsys):
    call_tool(
        *(TOOL, '--rows', 'ResNet-18 GAP', 'ResNet-18 GCP', '--out', tmp_path),
        *('--batch', 2, '--size', 32, '--repeats', 1),
    )
    written = (tmp_path / 'cost_table.md').read_text()
    assert written in capsys.readouterr().out
    assert '| ResNet-18 GCP | 19.60 (19.60) | 3.115 (3.11) |' in written
    report = json.loads((tmp_path / 'cost_table.json').read_text())
    assert report['machine']['batch'] == 2
    for row in report['rows']:
        assert row['train_ms'] > 0 < row['infer_ms']
