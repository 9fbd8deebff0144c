"""The tables of the model zoo are those of the metafiles."""

import importlib.util
from itertools import groupby
from types import SimpleNamespace

import pytest

from tests.helpers.configs import CONFIGS
from tests.helpers.runs import ROOT


@pytest.fixture(scope='module')
def extension():
    path = ROOT / 'docs/_ext/model_zoo.py'
    spec = importlib.util.spec_from_file_location('model_zoo', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def table(extension):
    """Marks of a section's columns by their titles, and its rows likewise."""

    def of(name):
        section = extension.tables().split(f'## {name}\n')[1].split('\n## ')[0]
        lines = [line for line in section.splitlines() if line.startswith('|')]
        titles, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
        return [dict(zip(titles, row, strict=True)) for row in rows]

    return of


def test_networks_of_the_paper(table):
    marks, *rows = table('GCP on ImageNet')
    right = [title for title, mark in marks.items() if mark.endswith(':')]
    assert right == [*marks][4:]  # numbers
    networks = [network for network, _ in groupby(row['network'] for row in rows)]
    assert networks[0] == 'MobileNetV2'
    assert networks[1:-1] == [f'ResNet-{depth}' for depth in (18, 34, 50, 101)]
    found = {row['config'].strip('`'): row for row in rows}
    assert found['resnet50-gcp-d128_8xb32-lradju_in1k'] == {
        'config': '`resnet50-gcp-d128_8xb32-lradju_in1k`',
        **dict(network='ResNet-50', pooling='GCP, D = 128', schedule='LRadju', table='5'),
        **{'paper top-1/top-5': '77.64/93.67', 'released top-1/top-5': '77.72/93.73'},
        **{'epochs': '50', 'parameters (M)': '32.03', 'multiply-adds (G)': '6.29'},
    }
    assert found['resnet50-gcp_8xb32-lradju-released_in1k']['paper top-1/top-5'] == '-'


def test_detectors_of_the_paper(table):
    marks, row, *_ = table('Mask R-CNN with GCP')
    assert (row['config'], row['pooling']) == ('`mask-rcnn_r50_fpn_1x_coco`', 'GAP')
    assert (row['paper box AP'], row['paper mask AP'], row['table']) == ('37.2', '34.1', '6 and 7')
    assert (marks['paper box AP'], marks['table']) == ('---:', '---')
    assert not [title for title in row if title.startswith(('published', 'released', 'param'))]


def test_methods_after_the_paper(table):
    marks, *rows = table('Methods after the paper')
    assert not [title for title in marks if title.startswith(('paper', 'table', 'released'))]
    found = {row['config'].strip('`'): row for row in rows}
    swin = found['swin-tiny-sot_16xb64_in1k']
    assert (swin['published top-1'], swin['source']) == ('83.0', 'SoT')  # no more digits
    assert swin['parameters (M)'] == '31.46'
    cub = found['resnet50-log_1xb10-100e_cub']
    assert cub['published top-1'] == cub['source'] == cub['multiply-adds (G)'] == '-'


def test_every_config_with_a_result_has_a_row(extension):
    text = extension.tables()
    folders = tuple(
        f'configs/{name}/' for name in ('imagenet', 'faster_rcnn', 'mask_rcnn', 'second_order')
    )
    for path in CONFIGS:
        name = path.rpartition('/')[2].removesuffix('.py')
        assert text.count(f'| `{name}` |') == path.startswith(folders), path


def test_page_includes_what_a_build_writes(extension, tmp_path):
    connected = {}
    app = SimpleNamespace(srcdir=tmp_path, connect=connected.__setitem__)
    assert extension.setup(app)['parallel_read_safe']
    connected['builder-inited'](app)
    assert (tmp_path / extension.TARGET).read_text() == extension.tables()
    page = (ROOT / 'docs/model_zoo.md').read_text()
    assert f'```{{include}} {extension.TARGET.as_posix()}\n' in page
    connected['builder-inited'](app)  # once more, with the file there
