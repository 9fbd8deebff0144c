"""What a run resumes to, in its processes; see also test_faults."""

import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from gcp_mm.checkpoints import read_checkpoint
from gcp_mm.runtime.atomic_checkpoint import AtomicBackend
from gcp_mm.runtime.epoch_seed import EpochSeedHook
from tests.helpers.equality import assert_equal
from tests.helpers.runs import train_here


@pytest.fixture
def train(narrow_cls):
    def train(work_dir, resume=None, **changes):
        train_here(narrow_cls.config, work_dir, *narrow_cls.options, resume=resume, **changes)

    return train


@pytest.mark.slow
def test_worker_processes(train, narrow_cls, tmp_path):
    straight, resumed = tmp_path / 'straight', tmp_path / 'resumed'
    workers = {f'train_dataloader.{key}': 2 for key in ('num_workers', 'prefetch_factor')}
    workers['train_dataloader.persistent_workers'] = True
    train(straight, **workers, **{'default_hooks.checkpoint.max_keep_ckpts': -1})
    resumed.mkdir()
    shutil.copy(straight / 'epoch_1.pth', resumed)
    train(resumed, 'auto', **workers)
    assert_equal(narrow_cls.final(straight), narrow_cls.final(resumed))


def test_another_batch(train, tmp_path):
    """Of 16 images, in batches of 8 and then of 4: the schedule ends with the training."""
    train(tmp_path, **{'default_hooks.checkpoint.max_keep_ckpts': -1})
    train(tmp_path, str(tmp_path / 'epoch_1.pth'), **{'train_dataloader.batch_size': 4})
    content = read_checkpoint(tmp_path / 'epoch_3.pth')
    (scheduler,) = content['param_schedulers']
    assert content['meta']['iter'] == scheduler['end'] == 3 * 4
    assert scheduler['_last_value'] == [0]
    assert content['optimizer']['param_groups'][0]['initial_lr'] == 0.1


def files(work_dir):
    return {path.name for path in work_dir.glob('*.pth*')}


class Draws(torch.utils.data.Dataset):
    """Each sample: one number of each generator."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return [random.random(), np.random.random(), torch.rand(()).item()]


@pytest.mark.parametrize('persistent', [False, True])
def test_what_workers_draw_depends_on_the_epoch_alone(persistent):
    def epochs(start):
        workers = dict(num_workers=2, persistent_workers=persistent)
        loader = Runner.build_dataloader(
            dict(
                **dict(dataset=Draws(), sampler=dict(type='DefaultSampler', shuffle=False)),
                **dict(batch_size=2, collate_fn=dict(type='default_collate'), **workers),
            ),
            seed=7,
        )
        hook, runner = EpochSeedHook(), SimpleNamespace(train_dataloader=loader, seed=7)
        hook.before_train(runner)
        for runner.epoch in range(start, 3):
            hook.before_train_epoch(runner)
            yield [value for batch in loader for column in batch for value in column.tolist()]

    straight = list(epochs(0))
    assert list(epochs(1)) == straight[1:]
    numbers = [value for epoch in straight for value in epoch]
    assert len(set(numbers)) == len(numbers) == 3 * 8 * 3  # no worker and no epoch as another


def test_outdated_and_best_are_removed_after_their_successors(train, tmp_path, monkeypatch):
    """Every removal finds the file that takes the place of the removed one."""
    seen = []
    remove = AtomicBackend.remove

    def watch(self, path):
        seen.append((str(path)[len(str(tmp_path)) + 1 :], files(tmp_path)))
        remove(self, path)

    monkeypatch.setattr(AtomicBackend, 'remove', watch)
    # The rule 'less' with accuracies near zero: decided here, whatever the network learns.
    values = iter([3.0, 2.0, 1.0])
    monkeypatch.setattr(
        'mmpretrain.evaluation.Accuracy.compute_metrics', lambda *_: {'top1': next(values)}
    )
    best = {'save_best': 'accuracy/top1', 'rule': 'less'}
    train(tmp_path, **{f'default_hooks.checkpoint.{key}': value for key, value in best.items()})
    name = 'best_accuracy_top1_epoch_{}.pth'
    for epoch in (1, 2):
        for old in (f'epoch_{epoch}.pth', name.format(epoch)):
            (present,) = [present for path, present in seen if path == old]
            assert old.replace(str(epoch), str(epoch + 1)).replace('top2', 'top1') in present
    assert len(seen) == 4
    assert files(tmp_path) == {'epoch_3.pth', name.format(3)}
    assert read_checkpoint(tmp_path / 'epoch_3.pth')['message_hub']['runtime_info'][
        'best_ckpt'
    ] == str(tmp_path / name.format(3))
