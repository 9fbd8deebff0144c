"""The tables of the model zoo are those of the metafiles."""

import importlib.util
from types import SimpleNamespace

import pytest
import yaml

from tests.helpers.configs import CONFIGS
from tests.helpers.runs import ROOT


@pytest.fixture(scope='module')
def extension():
    path = ROOT / 'docs/_ext/model_zoo.py'
    spec = importlib.util.spec_from_file_location('model_zoo', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_of_a_metafile(extension, tmp_path):
    folder = tmp_path / 'configs/some'
    folder.mkdir(parents=True)
    plain = dict(Network='ResNet-101', Pooling='GAP', Schedule='LRfast')
    full = dict(
        plain,
        **dict(Network='ResNet-50', Parameters=32027432, FLOPs=6294583808),
        **{'Released': {'Top 1 Accuracy': 78.0}, 'Results From': 'the paper, Tables 2 and 5'},
    )
    results = [
        dict(Metrics={'Top 1 Accuracy': 77.5, 'Top 5 Accuracy': 93}),
        dict(Metrics={'mask AP': 37}),
    ]
    content = dict(
        Collections=[dict(Name='Some networks', Metadata=dict(Epochs=12))],
        Models=[
            dict(Name='a', Metadata=plain),
            dict(Name='b', Metadata=full, Results=results),
        ],
    )
    (folder / 'metafile.yml').write_text(yaml.safe_dump(content))
    (tmp_path / 'model-index.yml').write_text('Import: [configs/some/metafile.yml]')
    heading, folder, *table = [
        line for line in extension.tables(tmp_path).splitlines() if line.strip()
    ]
    assert heading == '## Some networks'
    assert '`configs/some/`' in folder
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in table]
    assert cells[0] == [
        *('config', 'network', 'pooling', 'schedule', 'paper top-1/top-5', 'paper mask AP'),
        *('table', 'released top-1/top-5', 'epochs', 'parameters (M)', 'multiply-adds (G)'),
    ]
    right = [name for name, mark in zip(cells[0], cells[1], strict=True) if mark.endswith(':')]
    assert right == [name for name in cells[0][4:] if name != 'table']
    assert cells[2] == [  # ResNet-50 before ResNet-101
        *('`b`', 'ResNet-50', 'GAP', 'LRfast', '77.50/93.00', '37.0', '2 and 5', '78.00'),
        *('12', '32.03', '6.29'),
    ]
    assert cells[3] == ['`a`', 'ResNet-101', 'GAP', 'LRfast', *'----', '12', *'--']


def test_every_config_with_a_result_has_a_row(extension):
    text = extension.tables()
    folders = tuple(
        f'configs/{name}/' for name in ('imagenet', 'faster_rcnn', 'mask_rcnn', 'second_order')
    )
    for path in CONFIGS:
        name = path.rpartition('/')[2].removesuffix('.py')
        assert text.count(f'| `{name}` |') == path.startswith(folders), path


def test_methods_after_the_paper(extension):
    section = extension.tables().split('## Methods after the paper\n')[1]
    lines = [line for line in section.splitlines() if line.startswith('|')]
    titles, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert not [title for title in titles if title.startswith(('paper', 'table', 'released'))]
    found = {row[0].strip('`'): dict(zip(titles, row, strict=True)) for row in rows}
    swin = found['swin-tiny-sot_16xb64_in1k']
    assert (swin['published top-1'], swin['source']) == ('83.0', 'SoT')  # no more digits
    assert swin['parameters (M)'] == '31.46'
    cub = found['resnet50-log_1xb10-100e_cub']
    assert cub['published top-1'] == cub['source'] == cub['multiply-adds (G)'] == '-'


def test_page_includes_what_a_build_writes(extension, tmp_path):
    connected = {}
    app = SimpleNamespace(srcdir=tmp_path, connect=connected.__setitem__)
    assert extension.setup(app)['parallel_read_safe']
    connected['builder-inited'](app)
    assert (tmp_path / extension.TARGET).read_text() == extension.tables()
    page = (ROOT / 'docs/model_zoo.md').read_text()
    assert f'```{{include}} {extension.TARGET.as_posix()}\n' in page
    connected['builder-inited'](app)  # once more, with the file there
