"""`make robustness`: its choice of digits, and the whole of it."""

import json
import runpy

import pytest

from gcp_mm.robustness.baseline import load_baseline
from gcp_mm.robustness.results import read_results
from tests.helpers.runs import ROOT


def test_the_same_number_of_digits_of_each_class(digits, tmp_path, monkeypatch):
    tool = runpy.run_path(str(ROOT / 'tools/digits_robustness.py'))
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/digits').symlink_to(digits)
    monkeypatch.chdir(tmp_path)
    tool['copy_first'](3, tmp_path / 'chosen')
    files = sorted(path.relative_to(tmp_path / 'chosen') for path in tmp_path.rglob('chosen/*/*'))
    assert [str(file.parent) for file in files] == [c for c in '0123456789' for _ in range(3)]
    for file in files:
        assert (tmp_path / 'chosen' / file).read_bytes() == (digits / 'val' / file).read_bytes()


@pytest.mark.slow
@pytest.mark.demonstration
def test_robustness_of_digits(run_tool):
    """GAP is its own baseline; every number is there."""
    done = run_tool('tools/digits_robustness.py', timeout=3600, OMP_NUM_THREADS='2')
    assert done.returncode == 0, done.stdout[-5000:]
    folder = ROOT / 'work_dirs/robustness'
    page = (folder / 'report.md').read_text()
    assert '| GAP | 100.0 ± ' in page
    assert (folder / 'report.png').read_bytes()[:4] == b'\x89PNG'
    baseline = load_baseline(folder / 'baseline.json')
    assert baseline.clean_error < 0.05
    for name in ('gap', 'gcp'):
        for seed in range(3):
            results = read_results(folder / f'{name}_seed{seed}/robustness.json')
            assert len(results['parts']) == 1 + 19 * 5 + 10
            assert results['regenerated'] == ['imagenet-c', 'imagenet-p']
            assert json.dumps(results['parts']).count('"skipped": []') == 106
