"""Mistakes of a user: every tool ends in one line, with exit code 2, and writes over no input."""

import runpy
import sys

import pytest
from mmengine.config import Config

from tests.helpers.runs import CLS, ROOT

GONE = '{}/gone'
FASTER = 'configs/digits/faster-rcnn_r18-gcp-m_fpn_4e_digits.py'
# Tools with a config, and their further arguments
CONFIGURED = {
    'check_config': [],
    'check_data': [],
    'export': [GONE, '{}/out.pt'],
    'extract_features': [GONE, '{}', '{}.npy'],
    'get_flops': [],
    'image_demo': [GONE, GONE, '--out-dir', '{}/out'],
    'landscape': [GONE],
    'second_order': [GONE],
    'test': [GONE],
    'test_robustness': [GONE, '--clean', '{}'],
    'train': [],
}
NO_GPU = '--gpus: expected an integer of at least 1, got 0'
KEY = 'test_dataloader.dataset.pipeline.99.type=x'
MISTAKES = [
    *((tool, ['{}/gone.py', *rest], 'gone.py') for tool, rest in CONFIGURED.items()),
    *((tool, ['gone', *rest], "model 'gone'") for tool, rest in CONFIGURED.items()),
    *((tool, [CLS, *rest, '--cfg-options', KEY], 'Index 99') for tool, rest in CONFIGURED.items()),
    *((tool, [CLS, *rest, '--cfg-options', 'a'], "got 'a'") for tool, rest in CONFIGURED.items()),
    ('check_config', [CLS, '--gpus', '0'], NO_GPU),
    ('check_data', [CLS, '--workers', 'x'], "'x'"),
    ('compare_robustness', [GONE], 'gone'),
    ('compare_robustness', ['{}/x.json'], 'x.json'),
    ('convert_checkpoint', [GONE, '{}/x.pth'], 'gone'),
    ('convert_checkpoint', ['{}/x.json', '{}/x.pth'], 'x.json'),
    ('convert_checkpoint', [GONE, '{}/x.foo'], 'x.foo'),
    ('cost_table', ['--rows', 'Foo'], "'Foo'"),
    ('cost_table', ['--batch', '0'], '--batch'),
    ('evaluate_features', ['{}/gone.npy'], 'gone.npy'),
    ('evaluate_features', ['{}/x.json'], 'x.json'),
    ('evaluate_features', ['{}/x.npy', '{}/x.npy'], 'both TRAIN and TEST'),
    ('export', [CLS, GONE, '{}/x.foo'], 'x.foo'),
    ('export', [CLS, GONE, '{}/x.pt'], 'gone'),
    ('export', [CLS, GONE, '{}/x.pt', '--device', 'foo'], 'foo'),
    ('extract_features', [CLS, GONE, '{}', '{}.npy', '--stage', 'foo'], "'foo'"),
    ('fit_circuits', ['--foo'], '--foo'),
    ('get_flops', ['mmcls::resnet.py'], "got 'mmcls::resnet.py'"),
    ('get_flops', [CLS, '--cfg-options', 'model.backbone.type=Foo'], 'Foo is not in'),
    ('get_flops', [CLS, '--cfg-options', 'model.backbone.dpth=1'], "'dpth'"),
    ('get_flops', ['{}/empty.py'], 'empty.py'),
    ('get_flops', ['{}/syntax.py'], 'syntax.py'),
    ('image_demo', [CLS, GONE, GONE, '--out-dir', '{}/out'], 'gone'),
    ('image_demo', [CLS, GONE, '--out-dir', 'x'], 'expected CONFIG CHECKPOINT INPUT'),
    ('image_demo', [CLS, 'x.onnx', 'a.png', '--out-dir', 'x'], f'leave out {CLS}'),
    ('image_demo', [CLS, GONE, '{}', '--out-dir', '{}/out'], 'no image or video'),
    ('image_demo', [FASTER, GONE, '{}', '--out-dir', 'x', '--covariance'], 'is for classifiers'),
    ('image_demo', [CLS, GONE, '{}', '--out-dir', 'x', '--score-thr', '0'], 'is for detectors'),
    ('image_demo', ['x.pt', 'a.png', '--out-dir', 'x', '--covariance'], 'give CONFIG CHECKPOINT'),
    ('image_demo', ['x.pt', 'a.png', '--out-dir', 'x', '--device', 'cpu'], 'CONFIG CHECKPOINT'),
    ('image_demo', ['x.pt', 'a', '--out-dir', 'x', '--cfg-options', 'a=1'], 'CONFIG CHECKPOINT'),
    ('landscape', [CLS, GONE, '--grid', '4'], '--grid 4'),
    ('landscape', [CLS, GONE, '--images', '0'], 'expected positive numbers'),
    ('landscape', [CLS, GONE, '--products', '3'], '--products 3'),
    ('make_config', [GONE, '--task', 'classify'], 'gone'),
    ('make_config', ['{}', '--task', 'classify', '--out', '{}/own.py'], 'no class folders'),
    ('make_config', ['{}', '--task', 'detect', '--out', '{}/own.py'], 'COCO'),
    ('make_config', ['{}', '--task', 'foo'], "'foo'"),
    ('make_config', ['{}', '--task', 'classify', '--gpus', '0'], NO_GPU),
    ('make_config', ['{}', '--task', 'classify', '--out', '{}/x.json'], 'x.json'),
    ('make_corruptions', ['{}', '{}/x'], '--kind'),
    ('make_corruptions', ['{}', '{}/x', '--kind', 'c', '--size', '3'], 'got 3'),
    ('make_corruptions', ['{}', '{}/x', '--kind', 'c', '--names', 'foo'], "'foo'"),
    ('make_digits', ['--out', '{}/x.json'], 'x.json'),
    ('make_glyphs', ['{}/gone'], 'gone'),
    ('make_glyphs', ['{}', '--out', '{}/x'], 'found 0'),
    ('plot_curves', [GONE], 'gone'),
    ('plot_curves', [], 'name RUN_DIRs'),
    ('plot_curves', ['a', 'b', '--names', 'x'], 'expected 2 different names'),
    ('plot_curves', ['--lr', '{}/gone.py'], 'gone.py'),
    ('plot_curves', ['--lr', '{}/empty.py'], 'empty.py'),
    ('plot_landscape', [GONE, '--out', '{}/x'], 'gone'),
    ('plot_landscape', ['{}', '--out', '{}/x'], 'landscape.jsonl'),
    ('reproduce', ['foo'], "'foo'"),
    ('test', [CLS, GONE, '--out', 'x.foo'], 'x.foo'),
    ('test_robustness', [CLS, GONE, '--work-dir', '{}/w'], 'nothing to evaluate'),
    ('test_robustness', [CLS, GONE, '--imagenet-c', '{}/none', '--work-dir', '{}/w'], '/none'),
    ('test_robustness', [CLS, GONE, '--amp'], '--amp: robustness'),
    ('test_robustness', [CLS, GONE, '--severities', '1'], '--severities: for detectors alone'),
    ('test_robustness', [FASTER, GONE, '--imagenet-c', 'a'], '--imagenet-c: for classifiers alone'),
    ('test_robustness', [FASTER, GONE, '--crop-size', '64'], '--crop-size: for classifiers alone'),
    ('test_robustness', [FASTER, GONE, '--resize', '0'], '--resize: for classifiers alone'),
    ('train', [CLS, '--resume', GONE], 'gone'),
    ('train', [CLS, '--cfg-options', 'load_form=x.pth'], 'did you mean load_from'),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files to name, and the project's root as the current folder."""
    monkeypatch.chdir(ROOT)
    (tmp_path / 'x.json').write_text('{"a": 1}\n')
    (tmp_path / 'empty.py').write_text('a = 1\n')
    (tmp_path / 'syntax.py').write_text('model = dict(\n')
    return tmp_path


@pytest.fixture
def mistake(folder, monkeypatch, capsys):
    """Run a tool as Python runs it; returns its line."""

    def run(tool, arguments):
        words = [str(word).replace('{}', str(folder)) for word in arguments]
        monkeypatch.setattr(sys, 'argv', [f'tools/{tool}.py', *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')
        said = capsys.readouterr().err
        assert end.value.code == 2, said
        assert 'Traceback' not in said
        assert said.count('error: ') == 1, said
        line = said.splitlines()[-1]
        assert line.startswith(f'{tool}.py: error: ')
        return line

    return run


@pytest.mark.parametrize(('tool', 'arguments', 'words'), MISTAKES)
def test_mistake_ends_a_tool_with_a_line(mistake, folder, tool, arguments, words):
    before = sorted(folder.iterdir())
    assert words in mistake(tool, arguments)
    assert sorted(folder.iterdir()) == before


def test_every_tool_has_mistakes():
    scripts = [path for path in (ROOT / 'tools').glob('*.py') if '__main__' in path.read_text()]
    assert all('    run(main)\n' in path.read_text() for path in scripts)
    tried = {tool for tool, *_ in MISTAKES} | {'demo'}  # without arguments
    assert {path.stem for path in scripts} == tried


@pytest.fixture
def inputs(folder):
    """Files and folders that tools read, and links to them."""
    for name in ('a.pt', 'in/a.json', 'in/images/3/a.png'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'input')
    for link, target in dict(link='in', images='in/images', one='in/images/3').items():
        (folder / link).symlink_to(folder / target)
    pipeline = Config.fromfile(CLS).test_dataloader.dataset.pipeline
    dataset = dict(type='CustomDataset', data_root=f'{folder}/in/images', pipeline=pipeline)
    listed = dict(type='MultiLabelDataset', ann_file=f'{folder}/in/a.json')
    (folder / 'config.py').write_text(
        f"_base_ = '{ROOT / CLS}'\n"
        f'test_dataloader = dict(dataset=dict(_delete_=True, **{dataset}))\n'
        f'test_evaluator = dict(ann_file="{listed["ann_file"]}")\n'
    )
    return folder


@pytest.mark.parametrize(
    ('tool', 'arguments'),
    [
        ('export', [CLS, '{}/a.pt', '{}/in/../a.pt', '--force']),
        ('extract_features', [CLS, '{}/a.pt', '{}/images', '{}/in/images/x.npy']),
        ('image_demo', [CLS, '{}/a.pt', '{}/in', '--out-dir', '{}/link', '--force']),
        ('image_demo', [CLS, '{}/a.pt', '{}/in/images', '--out-dir', '{}/images', '--force']),
        ('test', ['{}/config.py', '{}/a.pt', '--show-dir', '{}/one']),
        ('test', ['{}/config.py', '{}/a.pt', '--out', '{}/link/a.json']),
    ],
)
def test_no_tool_writes_over_its_inputs(mistake, inputs, tool, arguments):
    before = {path: path.read_bytes() for path in inputs.rglob('*') if path.is_file()}
    assert 'output ' in mistake(tool, arguments)
    assert {path: path.read_bytes() for path in inputs.rglob('*') if path.is_file()} == before


def test_drawing_named_like_an_input_is_not_written(mistake, inputs):
    """Of a.png beside a.png.png, with the output one folder up."""
    for name in ('a.png', 'a.png.png'):
        (inputs / 'vis').mkdir(exist_ok=True)
        (inputs / 'vis' / name).write_bytes(b'input')
    files = ['{}/vis/a.png', '{}/vis/a.png.png']
    line = mistake('image_demo', [CLS, '{}/a.pt', *files, '--out-dir', '{}', '--force'])
    assert 'a.png.png' in line
