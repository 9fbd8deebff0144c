"""Runs that are killed, at whatever moment, or find the disk full, end as if nothing had been.

`make faults` runs them all and prints what was injected and what was lost.
"""

import functools
import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from random import SystemRandom

import pytest

from tests.helpers.equality import assert_equal
from tests.helpers.resumption import TABLE, newest, note_resumption, trained
from tests.helpers.runs import ROOT, Training, finish, members, start, wait_for

BEGUN = 'log file  '  # the last line of the summary, before the first step
# Heads as narrow as the backbone: what counts is where a step, a checkpoint, a validation begins.
DETECTOR = """
_base_ = {base!r}
custom_imports = dict(imports=['gcp_mm', 'tests.helpers.faults'])
model = dict(
    backbone=dict(stem_channels=8, base_channels=8, frozen_stages=-1, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=16)
    ),
)
"""


@pytest.fixture(scope='module')
def narrow_det(scenes, tmp_path_factory):
    """Three epochs of Faster R-CNN, which draws what its heads learn from."""
    path = tmp_path_factory.mktemp('config') / 'detector.py'
    base = ROOT / 'configs/digits/faster-rcnn_r18-gcp-d_fpn_4e_digits.py'
    path.write_text(DETECTOR.format(base=str(base)))
    loaders = ('train_dataloader', 'val_dataloader')
    annotations = f'{scenes}/annotations/instances_val.json'
    options = [
        *(f'{name}.dataset.data_root={scenes}' for name in loaders),
        *(f'{name}.{key}' for name in loaders for key in ('num_workers=0', 'batch_size=2')),
        *('train_dataloader.persistent_workers=False', 'val_dataloader.persistent_workers=False'),
        *(f'{split}_evaluator.ann_file={annotations}' for split in ('val', 'test')),
        *('train_cfg.max_epochs=3', 'train_cfg.val_interval=1', 'default_hooks.logger.interval=1'),
    ]
    return Training(path, options, epochs=3)


@pytest.fixture(scope='module')
def trainings(narrow_cls, narrow_det):
    return dict(pretraining=narrow_cls, detector=narrow_det)


@dataclass
class End:
    state: dict
    seconds: float  # from the first step to the last validation


@pytest.fixture(scope='module')
def uninterrupted(trainings, tmp_path_factory):
    """How a training ends that is never interrupted; each is run once."""

    @functools.cache
    def end(name):
        work_dir = tmp_path_factory.mktemp('uninterrupted')
        process = start(*trainings[name].command(work_dir))
        wait_for(process, BEGUN)
        begun = time.monotonic()
        wait_for(process, f'Epoch(val) [{trainings[name].epochs}]')
        seconds = time.monotonic() - begun
        done = finish(process)
        assert done.returncode == 0, done.stdout
        return End(trainings[name].final(work_dir), seconds)

    return end


def files(work_dir):
    """Names of the checkpoints and of what is left of one, without whose it was."""
    return {re.sub(r'pth\..*part$', 'pth.part', path.name) for path in work_dir.glob('*.pth*')}


def progress_of(output, work_dir):
    """What a run had come to when it ended, by its log and the files it left."""
    found = re.findall(r'(Epoch\(\w+\) *\[\d+\]\[ *\d+/\d+\]|Saving checkpoint at \d+)', output)
    if not found:
        return 'at the start'
    number = found[-1].removeprefix('Saving checkpoint at ')
    if f'epoch_{number}.pth.part' in files(work_dir):
        return f'in the middle of writing checkpoint {number}'
    return f'after {found[-1]}'


def attempt(command, moment=None):
    """Run a command; kill it so many seconds after its training began, if it takes as long."""
    process = start(*command)
    if moment is not None:
        wait_for(process, BEGUN)
        time.sleep(moment)
        process.kill()
    return finish(process)


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'count'), [('pretraining', 14), ('detector', 8)])
def test_killed_at_random_moments(trainings, uninterrupted, tmp_path, record_property, name, count):
    """One run after another, each until it is through, and so many kills in all."""
    training, random, end = trainings[name], SystemRandom(), uninterrupted(name)
    kills = runs = 0
    work_dir, row = tmp_path / 'run0', None
    while kills < count or row:
        through = newest(work_dir) == training.epochs
        moment = None if through or kills == count else random.uniform(0, 0.6 * end.seconds)
        done = attempt(training.command(work_dir, '--resume'), moment)
        if row:
            note_resumption(row, done.stdout)
            record_property(TABLE, row)
            assert row['lost'] == 'nothing', done.stdout
            row = None
        if done.returncode == -signal.SIGKILL:
            kills += 1
            row = {'injected': f'{name}: kill {kills}, {progress_of(done.stdout, work_dir)}'}
            row['newest checkpoint'] = newest(work_dir)
            assert row['newest checkpoint'] >= trained(done.stdout) - 1
            continue
        assert done.returncode == 0, done.stdout
        assert_equal(end.state, training.final(work_dir))
        runs += 1
        work_dir = tmp_path / f'run{runs}'


POINTS = [  # where a run is killed, in which epoch, what it leaves
    ('write', 1, {'epoch_1.pth.part'}),
    ('validation', 1, {'epoch_1.pth'}),
    ('step', 2, {'epoch_1.pth'}),
    ('write', 2, {'epoch_1.pth', 'epoch_2.pth.part'}),
    ('rename', 2, {'epoch_1.pth', 'epoch_2.pth.part'}),
    ('remove', 2, {'epoch_1.pth', 'epoch_2.pth'}),
    ('write', 3, {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth.part'}),
    ('name', 3, {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'}),
]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['pretraining', 'detector'])
def test_killed_at_every_point(trainings, uninterrupted, tmp_path, record_property, name):
    """One run, killed at all of them in turn, with a single checkpoint kept."""
    training, row = trainings[name], None
    for at, epoch, left in [*POINTS, (None, None, None)]:
        done = attempt(
            training.command(tmp_path, '--resume', **(dict(at=at, epoch=epoch) if at else {}))
        )
        if row:
            note_resumption(row, done.stdout)
            record_property(TABLE, row)
            assert row['lost'] == 'nothing', done.stdout
        if at:
            by = signal.SIGXFSZ if at == 'write' else signal.SIGKILL
            assert done.returncode == -by, done.stdout
            assert files(tmp_path) == left, at
            row = {'injected': f'{name}: kill in epoch {epoch}, {at}'}
            row['newest checkpoint'] = newest(tmp_path)
    assert done.returncode == 0, done.stdout
    assert_equal(uninterrupted(name).state, training.final(tmp_path))


@pytest.mark.slow
def test_second_run_in_one_work_dir(narrow_cls, run_tool, tmp_path):
    """It is refused before it writes anything; the first, of two processes, trains on."""
    half = 'train_dataloader.batch_size=4'
    first = start(*narrow_cls.command(tmp_path, half, processes=2))
    wait_for(first, BEGUN)
    stopped = members(first)
    for number in stopped:
        os.kill(number, signal.SIGSTOP)
    lock = (tmp_path / '.lock').read_text()
    logs = set(tmp_path.iterdir())
    done = run_tool(*narrow_cls.command(tmp_path))
    for number in stopped:
        os.kill(number, signal.SIGCONT)
    assert done.returncode != 0
    assert f'{lock} is writing to this output' in done.stdout
    assert {path for path in tmp_path.iterdir() if path.is_dir()} <= logs
    assert finish(first).returncode == 0
    assert newest(tmp_path) == narrow_cls.epochs
    assert not (tmp_path / '.lock').exists()


def broken_copy(work_dir):
    """As if the disk had cut a checkpoint short after it was named."""
    broken, intact = work_dir / 'epoch_2.pth', work_dir / 'epoch_1.pth'
    broken.write_bytes(intact.read_bytes()[:100_000])
    (work_dir / 'last_checkpoint').write_text(str(broken))
    return broken, intact


@pytest.mark.slow
def test_full_disk_and_a_broken_copy(
    narrow_cls, uninterrupted, run_tool, tmp_path, record_property
):
    done = run_tool(*narrow_cls.command(tmp_path, at='full', epoch=2))
    assert done.returncode == 2
    assert 'error: [Errno 27] File too large; the file was not written, earlier' in done.stdout
    assert str(tmp_path / 'epoch_2.pth') in done.stdout
    assert files(tmp_path) == {'epoch_1.pth'}
    row = {'injected': 'pretraining: disk full at a checkpoint, and a broken one named the latest'}
    row['newest checkpoint'] = newest(tmp_path)
    broken, intact = broken_copy(tmp_path)
    done = run_tool(*narrow_cls.command(tmp_path, '--resume'))
    note_resumption(row, done.stdout)
    record_property(TABLE, row)
    assert done.returncode == 0, done.stdout
    assert row['lost'] == 'nothing'
    assert re.search(
        f"WARNING - checkpoint '{broken}' cannot be read .* Resuming from '{intact}'", done.stdout
    )
    assert_equal(uninterrupted('pretraining').state, narrow_cls.final(tmp_path))


@pytest.mark.slow
def test_full_disk_at_the_log(narrow_cls, uninterrupted, run_tool, tmp_path, record_property):
    # a pipe, for the file that takes the output here is subject to the limit too
    piped = ('bash', '-c', 'set -o pipefail; "$@" 2>&1 | cat', 'bash', sys.executable)
    done = run_tool(*piped, *narrow_cls.command(tmp_path, at='log', epoch=3))
    assert done.returncode == 2
    assert 'train.py: error: [Errno 27] File too large (' in done.stdout.splitlines()[-1]
    assert files(tmp_path) == {'epoch_2.pth'}
    row = {'injected': 'pretraining: disk full at a log', 'newest checkpoint': newest(tmp_path)}
    done = run_tool(*narrow_cls.command(tmp_path, '--resume'))
    note_resumption(row, done.stdout)
    record_property(TABLE, row)
    assert done.returncode == 0, done.stdout
    assert row['lost'] == 'nothing'
    assert_equal(uninterrupted('pretraining').state, narrow_cls.final(tmp_path))
