"""The landscape measured in real runs, which it must not change by a bit."""

import json
import shutil

import pytest
import torch

from gcp_mm._io import append_jsonl, read_jsonl
from tests.helpers.equality import assert_equal, load
from tests.helpers.runs import DRAWING, train_here

LANDSCAPE = "landscape=dict(type='LandscapeHook', interval=2, eta_range=(0, 1.5), num_points=3)"
DUMP_ETAS = 'default_hooks.dump.etas=[0,0.375,0.75]'
# Images of all classes, so that mixed labels are not those of one image
INDICES = f'train_dataloader.dataset.indices={list(range(0, 1440, 90))}'.replace(' ', '')


def write_config(path, hooks):
    hooks = f"dict(dump=dict(type='DumpRunStateHook'), {hooks})"
    path.write_text(f'_base_ = {str(DRAWING)!r}\ndefault_hooks = {hooks}\n')
    return path


@pytest.fixture(scope='module')
def train(short_cls, tmp_path_factory):
    """Train in this process; returns the work dir."""

    def train(hooks, work_dir=None, **options):
        work_dir = work_dir or tmp_path_factory.mktemp('run')
        config = write_config(work_dir / 'config.py', hooks)
        short = (*short_cls, INDICES, 'default_hooks.logger.interval=1')
        train_here(config, work_dir, *short, **options)
        return work_dir

    return train


@pytest.fixture(scope='module')
def measured(train):
    return train(LANDSCAPE)


def test_training_is_bit_identical(train, measured):
    assert_equal(load(train('')), load(measured))


def test_measured_loss_is_the_steps_own(measured):
    """At eta = 0: the same images, mixed alike, through the same random depth."""
    (record,) = read_jsonl(measured / 'landscape.jsonl')
    assert record['iter'] == record['epoch'] == 0
    assert record['etas'] == [0, 0.75, 1.5]
    assert record['losses'][0] == pytest.approx(load(measured)['losses'][0], rel=1e-6)
    assert record['losses'][2] > record['losses'][1] > record['losses'][0]
    assert record['gradient_distances'][0] == 0
    assert record['gradient_distances'][2] > record['gradient_distances'][1] > 0
    (scalars,) = measured.glob('*/vis_data/scalars.json')
    (found,) = [json.loads(line) for line in scalars.open() if 'landscape' in line]
    assert found.pop('step') == 0
    assert found == {
        f'landscape/{name}_{end.__name__}': end(record[key])
        for name, key in (('loss', 'losses'), ('gradient', 'gradient_distances'))
        for end in (min, max)
    }


@pytest.mark.slow
def test_two_processes(run_tool, short_cls, tmp_path):
    """Bit-identical too, with the same weights, and the landscape of the mean loss of both."""
    for name, hooks, etas in (('without', '', []), ('with', LANDSCAPE, [DUMP_ETAS])):
        (tmp_path / name).mkdir()
        config = write_config(tmp_path / f'{name}.py', hooks)
        done = run_tool(
            *('tools/dist_train.sh', config, 2, '--work-dir', tmp_path / name),
            *('--cfg-options', *short_cls, INDICES, *etas),
        )
        assert done.returncode == 0, done.stdout
    measured = []
    for rank in (0, 1):
        without, state = load(tmp_path / 'without', rank), load(tmp_path / 'with', rank)
        assert without.pop('measured') is None
        measured.append(state.pop('measured'))
        assert_equal(without, state)
    states = [load(tmp_path / 'without', rank) for rank in (0, 1)]
    assert_equal(states[0]['weights'], states[1]['weights'])
    assert states[0]['losses'] != states[1]['losses']  # of other images
    # Half of each process's loss, at half of each step: g is the gradient of the mean.
    (record,) = read_jsonl(tmp_path / 'with/landscape.jsonl')
    losses = (measured[0][0] + measured[1][0]) / 2
    distances = ((measured[0][1] / 2) ** 2 + (measured[1][1] / 2) ** 2).sqrt()
    torch.testing.assert_close(torch.tensor(record['losses']), losses)
    torch.testing.assert_close(torch.tensor(record['gradient_distances']), distances)


@pytest.mark.slow
def test_resumed_run_measures_again_what_was_lost(train, tmp_path):
    hooks = LANDSCAPE.replace('interval=2', 'interval=1')
    work_dir = train(hooks)
    path = work_dir / 'landscape.jsonl'
    first = read_jsonl(path)
    assert [record['iter'] for record in first] == [0, 1]
    append_jsonl(path, dict(first[0], iter=2))  # of an epoch whose checkpoint was never written
    with path.open('a') as file:
        file.write('{"iter": 3, "los')
    copy = shutil.copytree(work_dir, tmp_path / 'resumed')
    options = {'train_cfg.max_epochs': 2, 'param_scheduler.end': 2}
    train(hooks, copy, resume=str(copy / 'epoch_1.pth'), **options)
    records = read_jsonl(copy / 'landscape.jsonl')
    assert [(record['iter'], record['epoch']) for record in records] == [
        *((0, 0), (1, 0), (2, 1), (3, 1))
    ]
    assert records[:2] == first
    assert records[2]['losses'] != first[0]['losses']
    with pytest.raises(ValueError, match=r'eta_range.*landscape.jsonl'):
        train(
            hooks.replace('1.5', '2'),
            copy,
            resume=str(copy / 'epoch_2.pth'),
            **{'train_cfg.max_epochs': 3, 'param_scheduler.end': 3},
        )


def test_wrong_stem_is_refused_before_training(train, tmp_path):
    with pytest.raises(ValueError, match=r'stem.*maxpol\b'):
        train(LANDSCAPE, tmp_path, **{'default_hooks.landscape.stem': 'backbone.maxpol'})
    assert not list(tmp_path.glob('*.pth'))
    assert not (tmp_path / 'landscape.jsonl').exists()
