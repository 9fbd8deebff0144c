"""Files of the repository that only other people's services read."""

import re

import pytest
import yaml

from tests.helpers.runs import ROOT

WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))
TARGETS = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))


def read(path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_makes_targets_of_the_makefile(path):
    steps = [step for job in read(path)['jobs'].values() for step in job['steps']]
    commands = '\n'.join(step['run'] for step in steps if 'run' in step)
    made = re.findall(r'^make (\S+)', commands, re.MULTILINE)
    assert made
    assert set(made) <= TARGETS


def test_hooks_before_a_commit_are_of_the_environment_and_run_its_linter():
    (repo,) = read(ROOT / '.pre-commit-config.yaml')['repos']
    commands = [hook['entry'].removeprefix('.venv/bin/') for hook in repo['hooks']]
    assert all(hook['entry'].startswith('.venv/bin/') for hook in repo['hooks'])
    lint = re.findall(r'/bin/(ruff \w+)', (ROOT / 'Makefile').read_text())
    assert lint == [' '.join(command.split()[:2]) for command in commands if 'ruff' in command]


def test_contributing_names_every_package_and_commands_there_are():
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    assert len(text.splitlines()) <= 50
    assert set(re.findall(r'`make ([\w-]+)`', text)) <= TARGETS
    rooms = ' '.join(row.split('|')[1] for row in text.splitlines() if row.startswith('| `'))
    packages = {path.parent.name for path in (ROOT / 'gcp_mm').glob('*/__init__.py')}
    assert packages <= set(re.findall(r'\w+', rooms))
    for path in re.findall(r'tests/[\w/.]+', text):
        assert (ROOT / path).exists(), path
