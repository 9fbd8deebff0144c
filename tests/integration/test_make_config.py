"""tools/make_config.py on people's own images: what it writes passes the checks, and trains."""

import json
from pathlib import Path

import pytest

from gcp_mm.studies.curves import validation_curve
from tests.helpers.shapes import CLASSES, write_coco, write_folders


def unicode(root):
    write_folders(root, train=4, val=2, classes=CLASSES[:3])
    for path in sorted(root.glob('*/circle')):
        for image in path.glob('*.*'):
            image.rename(path / f'größe 人 {image.name}')
        path.rename(path.with_name('Ölbild, 人'))


def without_masks(root):
    write_coco(root, train=12, val=6)
    for path in root.glob('annotations/*.json'):
        content = json.loads(path.read_text())
        for annotation in content['annotations']:
            del annotation['segmentation']
        path.write_text(json.dumps(content))


def test_an_error_of_the_checks_is_said(call_tool, tmp_path, capsys):
    """And no command to train."""
    without_masks(tmp_path / 'data')
    options = ('--task', 'segment', '--out', tmp_path / 'own.py')
    with pytest.raises(SystemExit) as end:
        call_tool('tools/make_config.py', tmp_path / 'data', *options)
    said = capsys.readouterr().out
    assert end.value.code == 1
    assert 'segmentation=None, expected a mask' in said
    assert 'next:' not in said


@pytest.mark.parametrize(('make', 'task'), [(unicode, 'classify'), (without_masks, 'detect')])
def test_taken_without_an_error(call_tool, tmp_path, monkeypatch, capsys, make, task):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / 'data')
    with pytest.raises(SystemExit) as end:
        call_tool('tools/make_config.py', 'data', '--task', task)
    said = capsys.readouterr().out
    assert not end.value.code, said
    assert 'written: my_config.py' in said
    assert 'step        ok      loss ' in said
    assert 'tools/train.py my_config.py' in said.splitlines()[-1]


def trained(run_tool, folder, task):
    """Write a config, train with it, and return the validation's log."""
    out = folder / 'own.py'
    done = run_tool('tools/make_config.py', folder / 'data', '--task', task, '--out', out)
    assert done.returncode == 0, done.stdout
    assert 'ERROR' not in done.stdout
    assert 'WARNING' not in done.stdout.split('the checks of it:')[1]
    work_dir = folder / 'run'
    done = run_tool('tools/train.py', out, '--work-dir', work_dir, timeout=3600)
    assert done.returncode == 0, done.stdout
    return work_dir


@pytest.mark.slow
@pytest.mark.demonstration
def test_a_classifier_of_shapes_learns(run_tool, tmp_path):
    write_folders(tmp_path / 'data')
    curve = validation_curve(trained(run_tool, tmp_path, 'classify'))
    assert list(curve.values())[-1] >= 90


@pytest.mark.slow
@pytest.mark.demonstration
def test_a_detector_of_shapes_learns(run_tool, tmp_path):
    write_coco(tmp_path / 'data')
    curve = validation_curve(trained(run_tool, tmp_path, 'detect'), 'coco/bbox_mAP_50')
    assert list(curve.values())[-1] >= 0.5
    assert next(Path(tmp_path / 'run').glob('best_*'))
