"""Files of the repository that only other people's services read."""

import re

import pytest
import yaml

from tests.helpers.runs import ROOT

WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))
TEMPLATES = sorted((ROOT / '.github/ISSUE_TEMPLATE').glob('*.yml'))
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


def test_workflow_takes_pythons_that_the_package_supports():
    matrix = read(ROOT / '.github/workflows/tests.yml')['jobs']['test']['strategy']['matrix']
    assert len(matrix['python']) == 3
    assert set(matrix['python']) <= {f'3.{minor}' for minor in range(10, 14)}  # not 3.1 for 3.10


@pytest.mark.parametrize('path', TEMPLATES, ids=lambda path: path.stem)
def test_issue_template_has_what_a_form_needs(path):
    form = read(path)
    if path.stem == 'config':
        assert form == dict(blank_issues_enabled=True)
        return
    assert {'name', 'description', 'body'} <= form.keys()
    assert all(field['attributes']['label'] for field in form['body'])
    assert len({field['id'] for field in form['body']}) == len(form['body'])


def test_hooks_before_a_commit_are_of_the_environment_and_run_its_linter():
    (repo,) = read(ROOT / '.pre-commit-config.yaml')['repos']
    commands = [hook['entry'].removeprefix('.venv/bin/') for hook in repo['hooks']]
    assert all(hook['entry'].startswith('.venv/bin/') for hook in repo['hooks'])
    lint = re.findall(r'/bin/(ruff \w+)', (ROOT / 'Makefile').read_text())
    assert lint == [' '.join(command.split()[:2]) for command in commands if 'ruff' in command]


def test_citation_has_the_papers_of_the_layer():
    citation = read(ROOT / 'CITATION.cff')
    assert {'cff-version', 'message', 'title', 'authors'} <= citation.keys()
    assert citation['title'].startswith('gcp_mm')
    sources = ''.join(path.read_text() for path in (ROOT / 'gcp_mm/ops').glob('*.py'))
    papers = citation['references']
    assert [len(paper['authors']) for paper in papers] == [7, 4]
    assert all(paper['url'] in sources for paper in papers)


def test_contributing_names_every_package_and_commands_there_are():
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    assert len(text.splitlines()) <= 50
    assert set(re.findall(r'`make ([\w-]+)`', text)) <= TARGETS
    rooms = ' '.join(row.split('|')[1] for row in text.splitlines() if row.startswith('| `'))
    packages = {path.parent.name for path in (ROOT / 'gcp_mm').glob('*/__init__.py')}
    assert packages <= set(re.findall(r'\w+', rooms))
    for path in re.findall(r'tests/[\w/.]+', text):
        assert (ROOT / path).exists(), path
