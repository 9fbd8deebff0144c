"""Parameters and multiply-adds of the paper's Table 9, and the tool that prints them."""

import pytest

from gcp_mm.hub import resolve_config
from gcp_mm.studies.complexity import config_complexity

TOOL = 'tools/get_flops.py'
STOCK = 'mmpretrain::resnet/resnet{}_8xb32_in1k.py'
OWN = 'resnet{}-gcp-8k_8xb32-lrnorm_in1k'  # with 128 channels
# Millions of parameters, 10^9 multiply-adds
TABLE_9 = {
    STOCK.format(18): (11.69, 1.81),
    OWN.format(18): (19.60, 3.11),
    STOCK.format(34): (21.80, 3.66),
    OWN.format(34): (29.71, 5.66),  # 5.56 in print, a slip
    STOCK.format(50): (25.56, 3.86),
    OWN.format(50): (32.32, 6.19),
    STOCK.format(101): (44.55, 7.57),
    OWN.format(101): (51.31, 9.90),
    STOCK.format(152): (60.19, 11.28),
}


def count(name, style):
    cfg = resolve_config(name)
    cfg.model.backbone.style = style
    return config_complexity(cfg, (224, 224))


@pytest.mark.parametrize(
    'name',
    [name if '18' in name else pytest.param(name, marks=pytest.mark.slow) for name in TABLE_9],
)
def test_rows_of_table_9(name):
    """Of a bottleneck the stride is in its first 1x1 convolution."""
    complexity = count(name, 'caffe')
    parameters, multiply_adds = TABLE_9[name]
    assert round(complexity.parameters / 1e6, 2) == parameters
    assert round(complexity.total / 1e9, 2) == pytest.approx(multiply_adds, abs=0.0101)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'multiply_adds'), [(STOCK.format(50), 4.089), (OWN.format(50), 6.352)]
)
def test_stride_in_the_3x3_convolution_costs_more(name, multiply_adds):
    assert round(count(name, 'pytorch').total / 1e9, 3) == multiply_adds


def test_tool(call_tool, capsys):
    options = ('--shape', 224, 224, '--cfg-options', 'model.backbone.style=caffe')
    call_tool(TOOL, STOCK.format(50), *options)
    output = capsys.readouterr().out
    assert 'parameters           25.557 M' in output
    assert 'multiply-adds         3.858 G' in output


def test_config_of_another_package_is_refused(call_tool):
    with pytest.raises(ValueError, match=r"config: expected .* got 'mmcls::resnet\.py'"):
        call_tool(TOOL, 'mmcls::resnet.py')
