"""tools/reproduce.py: trainings, verdicts, a second start, and a table that has changed."""

import json
import runpy

import pytest
import yaml

from tests.helpers.runs import ROOT

GAP = {
    'config': 'configs/digits/resnet18_1xb64-5e_digits.py',
    'options': {
        'model.backbone.stem_channels': 8,
        'model.backbone.base_channels': 8,
        'model.head.in_channels': 64,
        'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.indices': 64,
    },
}


@pytest.fixture
def reproduce(digits, tmp_path, run_tool):
    """Run the tool with the same network in both roles; arguments are changes to the table."""

    def call(*arguments, **changes):
        claim = {'claim': 'GAP is above GAP', 'above': 'twin', 'below': 'GAP'}
        part = {'title': 'Twins', 'text': 'The same network twice.', 'sets': ['digits']}
        part |= {'claims': [claim]}
        table = {
            'prepare': [],
            'tune': {'rates': [0.05], 'seed': 100},
            'seeds': [0, 1],
            'sets': {'digits': {'folder': str(digits), 'options': {}}},
            'networks': {'GAP': GAP, 'twin': {'like': 'GAP', 'options': {}}},
            'parts': {'twins': part},
        }
        file = tmp_path / 'claims.yml'
        file.write_text(yaml.safe_dump(table | changes))
        out = tmp_path / 'runs', tmp_path / 'docs'
        options = ('--table', file, '--out', out[0], '--docs', out[1], '--processes', 2)
        return run_tool('tools/reproduce.py', *arguments, *options)

    return call


def test_metrics():
    """Epochs to the better trunk's mean final accuracy: 80 of b, not 70 of a."""
    measure = runpy.run_path(str(ROOT / 'tools/reproduce.py'))['measure']
    curves = {
        'a': [{1: 10, 2: 60}, {1: 20, 2: 80}],
        'b': [{1: 75, 2: 79}, {1: 80, 2: 81}],
        'c': [{1: 80, 2: 70}, {1: 79.9, 2: 90}],
    }
    name, values = measure(curves)
    assert name == 'top-1 accuracy (%)'
    assert values == {'a': [60, 80], 'b': [79, 81], 'c': [70, 90]}
    name, values = measure(curves, ['a', 'b'])
    assert name == 'epochs to the target'
    assert values == {'a': [3, 2], 'b': [3, 1], 'c': [1, 2]}


@pytest.mark.slow
def test_the_same_network_in_both_roles_is_undecided(reproduce, tmp_path):
    """And a second start trains nothing; a changed network is not taken for the old one."""
    assert '4 runs, 4 to train' in reproduce().stdout  # after the trials of the learning rate
    (claim,) = json.loads((tmp_path / 'docs/claims.json').read_text())
    assert claim['verdict'] == 'undecided'
    assert claim['difference'] == [0, 0]
    assert claim['runs']['GAP'] == claim['runs']['twin']
    assert claim['rates'] == {'GAP': 0.05, 'twin': 0.05}
    kept, held_out = (
        (tmp_path / f'runs/digits_{name}.txt').read_text().splitlines()
        for name in ('kept', 'held-out')
    )
    assert len(kept) + len(held_out) == 1437
    assert not set(kept) & set(held_out)
    assert {line.split()[1] for line in held_out} == set('0123456789')
    assert (
        '| GAP is above GAP | digits | +0.00 to +0.00 | undecided |'
        in (tmp_path / 'docs/claims.md').read_text()
    )
    assert (tmp_path / 'docs/images/claims_twins.png').stat().st_size

    again = reproduce()
    assert '4 runs, 0 to train' in again.stdout
    wider = {'like': 'GAP', 'options': {'model.head.topk': '(1,)'}}
    changed = reproduce(networks={'GAP': GAP, 'twin': wider})
    assert changed.returncode == 2
    assert 'digits_twin_lr0.05_held-out' in changed.stdout


@pytest.mark.slow
def test_mistakes(reproduce):
    assert "expected some of ['twins'], got ['speed']" in reproduce('speed').stdout
    broken = {'like': 'GAP', 'options': {'model.head.in_channels': 3}}
    failed = reproduce(networks={'GAP': GAP, 'twin': broken})
    assert failed.returncode == 2
    assert 'output.txt' in failed.stdout
