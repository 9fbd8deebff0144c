"""Trainings in several processes, on one machine and on two, are those of one process."""

import re

import pytest
import torch

from tests.helpers.equality import assert_equal
from tests.helpers.resumption import TABLE, newest, note_resumption
from tests.helpers.runs import ROOT, Training, finish, free_port, kill, members, start

pytestmark = pytest.mark.slow
# Without crops, which each process draws for itself; the batch's images are the same ones.
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['gcp_mm', 'tests.helpers.faults', 'tests.helpers.run_state'])
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=32), dict(type='PackInputs')
]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
default_hooks = dict(dump=dict(type='DumpRunStateHook'))
"""
SYNC = 'configs/digits/resnet18-gcp_2xb32-5e-syncbn_digits.py'


HALF = 'train_dataloader.batch_size=4'


@pytest.fixture(scope='module')
def sync(narrow_cls, tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'sync.py'
    path.write_text(CONFIG.format(base=str(ROOT / SYNC)))
    # At the config's 0.1 such a small batch makes a hundred of a rounding error in six steps.
    options = [*narrow_cls.options, 'optim_wrapper.optimizer.lr=0.01']
    return Training(path, options, narrow_cls.epochs)


@pytest.fixture
def machines(sync, tmp_path):
    """Start a launcher on each of two 'machines', which meet at the first."""
    started = []

    def start_both(*arguments, **fault):
        command = sync.command(tmp_path, HALF, *arguments, processes=1, **fault)
        port = free_port()
        both = [start(*command, NNODES='2', NODE_RANK=node, PORT=port) for node in '01']
        started.extend(both)
        return both

    yield start_both
    for process in started:
        kill(process)


def states(work_dir, processes):
    return [torch.load(work_dir / f'state{rank}.pth') for rank in range(processes)]


@pytest.fixture(scope='module')
def alone(sync, run_tool, tmp_path_factory):
    """The run of one process."""
    work_dir = tmp_path_factory.mktemp('alone')
    done = run_tool(*sync.command(work_dir))
    assert done.returncode == 0, done.stdout
    return states(work_dir, 1)


@pytest.fixture(scope='module')
def two(sync, run_tool, tmp_path_factory):
    """The run of two processes."""
    work_dir = tmp_path_factory.mktemp('two')
    done = run_tool(*sync.command(work_dir, HALF, processes=2))
    assert done.returncode == 0, done.stdout
    return states(work_dir, 2)


def assert_same_run(got, alone, steps=6):
    """Mean loss of each step, then the weights, to rounding."""
    losses, expected = (
        torch.tensor([state['losses'] for state in states]).mean(0) for states in (got, alone)
    )
    assert len(expected) == 6
    torch.testing.assert_close(losses, expected[-steps:], rtol=1e-5, atol=0)
    for state in got:
        for name, value in alone[0]['weights'].items():
            error = (state['weights'][name] - value).abs().max()
            assert error <= 1e-4 * value.abs().max(), name


def test_two_processes_train_as_one(two, alone):
    assert_same_run(two, alone)


def test_two_machines_train_as_one(machines, two, tmp_path):
    for process in machines():
        done = finish(process)
        assert done.returncode == 0, done.stdout
    assert_equal(states(tmp_path, 2), two)


def resume(row, start_again, record_property):
    """Continue after a loss, and note what came of it; returns what was said."""
    ended = [finish(process) for process in start_again()]
    output = ''.join(done.stdout for done in ended)
    note_resumption(row, output)
    record_property(TABLE, row)
    assert [done.returncode for done in ended] == [0] * len(ended), output
    assert row['lost'] == 'nothing', output


@pytest.mark.parametrize('processes', [1, 2])
def test_one_process_is_lost(sync, two, tmp_path, record_property, processes):
    """The launcher ends the other, and the run goes on in as many processes or in another."""
    process = start(*sync.command(tmp_path, HALF, processes=2, at='step', epoch=3, rank=1))
    done = finish(process)
    assert done.returncode == 1
    assert re.search(r'rank +: 1 \(local_rank: 1\)\s+exitcode +: -9', done.stdout), done.stdout
    assert not members(process)

    row = {'injected': f'pretraining: one of 2 processes killed, {processes} continue'}
    row['newest checkpoint'] = newest(tmp_path)
    batch = [HALF] if processes == 2 else []
    command = sync.command(tmp_path, '--resume', *batch, processes=processes)
    resume(row, lambda: [start(*command)], record_property)
    assert_same_run(states(tmp_path, processes), two, steps=2)


def test_one_process_hangs(sync, two, tmp_path, record_property):
    """The others wait for it as long as the config says; after that the launcher kills it."""
    timeout = 'env_cfg.dist_cfg.timeout=5'
    hang = dict(at='hang', epoch=3, rank=1)
    process = start(*sync.command(tmp_path, HALF, timeout, processes=2, **hang))
    done = finish(process)
    assert done.returncode == 1
    assert 'Timed out waiting 5000ms' in done.stdout, done.stdout
    assert not members(process)

    row = {'injected': 'pretraining: one of 2 processes hangs'}
    row['newest checkpoint'] = newest(tmp_path)
    command = sync.command(tmp_path, '--resume', HALF, processes=2)
    resume(row, lambda: [start(*command)], record_property)
    assert_same_run(states(tmp_path, 2), two, steps=2)


@pytest.mark.parametrize('node', [0, 1])
def test_one_machine_is_lost(machines, two, tmp_path, record_property, node):
    """Its launcher and its process, at once; what runs on the other ends by itself."""
    both = machines(at='machine', epoch=3, rank=node)
    done = finish(both[1 - node])
    assert done.returncode == 1, done.stdout
    assert f'rank      : {1 - node}' in done.stdout
    for process in both:
        assert not members(process)

    row = {'injected': f'pretraining: machine {node} of 2 lost'}
    row['newest checkpoint'] = newest(tmp_path)
    resume(row, lambda: machines('--resume'), record_property)
    assert_same_run(states(tmp_path, 2), two, steps=2)
