"""Outside its environment a tool says in one line which command leads there."""

import subprocess
import sys

import pytest

from tests.helpers.runs import ROOT

TOOLS = [path for path in (ROOT / 'tools').glob('*.py') if '__main__' in path.read_text()]


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.stem)
def test_tool_without_packages(tool):
    """`-S` leaves out the folder where PyTorch and OpenMMLab's packages are."""
    command = [sys.executable, '-S', str(tool)]
    done = subprocess.run(command, capture_output=True, text=True, env={}, timeout=60)
    assert done.returncode == 2
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f'{tool.name}: error: ')
    assert 'torch, torchvision, mmengine' in line
    assert ' install, then . ' in line
