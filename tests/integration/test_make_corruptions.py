"""tools/make_corruptions.py as a user runs it: processes, and a run that is killed."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gcp_mm.robustness.regenerate import Recipe, make_set
from tests.helpers.benchmark_trees import write_image
from tests.helpers.runs import ROOT


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Two classes, two images each."""
    root, rng = tmp_path_factory.mktemp('clean'), np.random.default_rng(0)
    for name in ('cats/a', 'cats/b', 'dogs/a', 'dogs/b'):
        write_image(root / f'{name}.jpg', rng, (100, 80))
    return root


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob('*.*')}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'names', 'made'), [('c', ('glass_blur', 'frost'), 40), ('p', ('snow', 'rotate'), 8)]
)
def test_two_processes_and_one_give_the_same_bytes(run_tool, source, tmp_path, kind, names, made):
    done = run_tool(
        *('tools/make_corruptions.py', source, tmp_path / 'two', '--kind', kind),
        *('--size', 64, '--workers', 2, '--names', *names),
    )
    assert done.returncode == 0, done.stdout
    assert f'{tmp_path}/two: {made} made, 0 were there' in done.stdout
    make_set(Recipe(kind, names, size=64), source, tmp_path / 'one')
    assert contents(tmp_path / 'two') == contents(tmp_path / 'one')


@pytest.mark.slow
def test_killed_run_leaves_no_process_and_goes_on(run_tool, source, tmp_path):
    options = ('--kind', 'c', '--size', 64, '--workers', 2)
    command = ('tools/make_corruptions.py', source, tmp_path / 'c', *options)
    running = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, start_new_session=True
    )
    while len(list(tmp_path.rglob('*.JPEG'))) < 50:
        assert running.poll() is None
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    for _ in range(600):
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail('processes of the killed run are left')
    done = run_tool(*command)
    assert 0 < int(re.search(r'(\d+) were there', done.stdout)[1]) < 380
    make_set(Recipe('c', size=64), source, tmp_path / 'other')
    assert contents(tmp_path / 'c') == contents(tmp_path / 'other')
