"""The demo's pictures, and the demo as a whole."""

import json
import runpy

import pytest
from PIL import Image

from gcp_mm.studies.curves import first_reaching, validation_curve
from tests.helpers.runs import ROOT


@pytest.fixture(scope='module')
def demo():
    return runpy.run_path(str(ROOT / 'tools/demo.py'))


def test_contact_sheet(demo, tmp_path):
    for i in range(4):
        Image.new('RGB', (20, 10), (i, 0, 0)).save(tmp_path / f'{i}.png')
    demo['contact_sheet'](tmp_path, tmp_path / 'sheet.png', count=3)
    sheet = Image.open(tmp_path / 'sheet.png')
    assert sheet.size == (40, 20)
    assert [sheet.getpixel(xy)[0] for xy in ((0, 0), (20, 0), (0, 10), (20, 10))] == [0, 1, 2, 0]


@pytest.mark.slow
@pytest.mark.demonstration
def test_demo_reaches_what_the_readme_promises(run_tool, demo):
    """GCP learns the digits in fewer epochs than GAP, and its backbone makes good detectors."""
    done = run_tool('tools/demo.py', timeout=3600, OMP_NUM_THREADS='2')
    assert done.returncode == 0, done.stdout[-5000:]
    metrics = {
        name: json.loads((ROOT / demo['REPORT'] / f'{name}.json').read_text())
        for name in demo['NAMES']
    }
    gap, gcp = (validation_curve(ROOT / 'work_dirs' / name) for name in (demo['GAP'], demo['GCP']))
    assert metrics[demo['GCP']]['accuracy/top1'] >= 98
    final = metrics[demo['GAP']]['accuracy/top1']
    assert first_reaching(gcp, final) < first_reaching(gap, final)
    assert metrics[demo['FASTER']]['coco/bbox_mAP_50'] >= 0.8
    assert metrics[demo['MASK']]['coco/bbox_mAP_50'] >= 0.8
    assert metrics[demo['MASK']]['coco/segm_mAP_50'] >= 0.75
