"""What the demo reads out of logs, and the demo as a whole."""

import json
import runpy

import pytest
from PIL import Image

from .conftest import ROOT


@pytest.fixture(scope='module')
def demo():
    return runpy.run_path(str(ROOT / 'tools/demo.py'))


def write_log(work_dir, timestamp, *scalars):
    folder = work_dir / timestamp / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, scalars)))


def test_accuracy_of_an_interrupted_run(demo, tmp_path):
    write_log(
        *(tmp_path, '20260101_000000', {'loss': 1.0, 'step': 10}),
        *({'accuracy/top1': 50.0, 'step': 1}, {'accuracy/top1': 60.0, 'step': 2}),
    )
    write_log(tmp_path, '20260102_000000', {'accuracy/top1': 70.0, 'step': 2})
    assert demo['accuracy_by_epoch'](tmp_path) == {1: 50.0, 2: 70.0}


@pytest.mark.parametrize(('target', 'epoch'), [(50, 1), (70, 3), (80, None)])
def test_first_epoch_that_reaches_a_target(demo, target, epoch):
    assert demo['first_reaching']({1: 50.0, 2: 60.0, 3: 70.0, 4: 75.0}, target) == epoch


def test_contact_sheet(demo, tmp_path):
    for i in range(4):
        Image.new('RGB', (20, 10), (i, 0, 0)).save(tmp_path / f'{i}.png')
    demo['contact_sheet'](tmp_path, tmp_path / 'sheet.png', count=3)
    sheet = Image.open(tmp_path / 'sheet.png')
    assert sheet.size == (40, 20)
    assert [sheet.getpixel(xy)[0] for xy in ((0, 0), (20, 0), (0, 10), (20, 10))] == [0, 1, 2, 0]


@pytest.mark.slow
def test_demo_reaches_what_the_readme_promises(run_tool, demo):
    """GCP learns the digits in fewer epochs than GAP, and its trunk makes good detectors."""
    done = run_tool('tools/demo.py', timeout=3600, OMP_NUM_THREADS='2')
    assert done.returncode == 0, done.stdout[-5000:]
    metrics = {
        name: json.loads((ROOT / demo['REPORT'] / f'{name}.json').read_text())
        for name in demo['NAMES']
    }
    gap, gcp = (
        demo['accuracy_by_epoch'](ROOT / 'work_dirs' / name) for name in (demo['GAP'], demo['GCP'])
    )
    assert metrics[demo['GCP']]['accuracy/top1'] >= 98
    final = metrics[demo['GAP']]['accuracy/top1']
    assert demo['first_reaching'](gcp, final) < demo['first_reaching'](gap, final)
    assert metrics[demo['FASTER']]['coco/bbox_mAP_50'] >= 0.8
    assert metrics[demo['MASK']]['coco/bbox_mAP_50'] >= 0.8
    assert metrics[demo['MASK']]['coco/segm_mAP_50'] >= 0.75
