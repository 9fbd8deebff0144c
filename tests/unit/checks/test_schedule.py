"""Schedules, checkpoints and batches that do not fit the training are told, others are not."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from gcp_mm.checks import check_config, warnings_in, world_size
from gcp_mm.checks.schedule import check_batch, check_schedule
from gcp_mm.hub import resolve_config
from tests.helpers.checks import findings, texts


def schedule(*schedulers, **train_cfg):
    """Warnings for schedulers from a learning rate of 0.1."""
    return texts('warning', check_schedule, training(*schedulers, **train_cfg))


def training(*schedulers, **train_cfg):
    return Config(
        dict(
            param_scheduler=list(schedulers),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            train_cfg=train_cfg or dict(max_epochs=20),
        )
    )


STEPS = dict(type='MultiStepLR', milestones=[8, 11], end=12)
WARM_UP = dict(type='LinearLR', start_factor=0.1, begin=0, end=5)


@pytest.mark.parametrize(
    'schedulers',
    [
        [],
        [dict(STEPS, milestones=[8, 19], end=20)],
        [dict(STEPS, milestones=[8, 19], end=30)],  # its end changes nothing
        [dict(STEPS, milestones=[2], begin=17, end=20)],
        [dict(type='StepLR', step_size=30)],
        [dict(type='PolyLR', power=1)],  # to the end of the training
        [dict(type='PolyLR', power=1, end=20)],
        [dict(type='PolyLR', power=1, end=20, convert_to_iter_based=True)],
        [dict(type='PolyLR', power=11, end=30)],  # (10 / 30)^11 of the rate is left
        [WARM_UP],  # then constant
        [WARM_UP, dict(type='CosineAnnealingLR', T_max=15, begin=5, end=20)],
        [WARM_UP, dict(type='CosineAnnealingLR', begin=5)],
        [WARM_UP, dict(type='CosineAnnealingLR', T_max=15, begin=5)],
        [dict(WARM_UP, by_epoch=False, end=500), dict(STEPS, end=20)],
        [dict(type='PolyLR', by_epoch=False, end=500)],  # of unknown length in epochs
        [dict(type='CosineAnnealingMomentum', end=5)],
        [dict(type='ReduceOnPlateauLR', monitor='loss'), STEPS],
        [dict(type='PolyLR', end=10, eta_min=0.05), dict(type='ConstantLR', begin=10, factor=1)],
    ],
)
def test_schedules_that_fit(schedulers):
    assert schedule(*schedulers) == []


POLY = dict(type='PolyLR', power=1)
COSINE = dict(type='CosineAnnealingLR')


@pytest.mark.parametrize(
    ('schedulers', 'name', 'value', 'words'),
    [
        ([dict(STEPS, milestones=[20, 30], end=20)], '[0].milestones', [20, 30], 'below 20'),
        (
            [dict(STEPS, milestones=[3], begin=2, end=5)],
            *('[0].milestones', [3], 'below 3, or param_scheduler[0].end=20'),
        ),
        (
            [dict(STEPS, milestones=[14, 15], begin=5, end=30)],
            *('[0].milestones', [14, 15], 'none comes to 15: set milestones below 15'),
        ),
        # the training and they were made longer
        (
            [dict(STEPS, milestones=[14, 17])],
            *('[0].milestones', [14, 17], 'below 12, or param_scheduler[0].end=20'),
        ),
        # the training was made longer, the schedule was not
        ([STEPS], '[0].end', 12, 'last learning rate, 0.001: set param_scheduler[0].end=20'),
        ([WARM_UP, dict(POLY, begin=5, end=15)], '[1].end', 15, 'rate, 0: set param_scheduler[1].'),
        # or shorter: epoch 20 of the formula 0.1 (1 - t / 39), as mmengine counts t
        ([dict(POLY, end=40)], '[0].end', 40, '0.0513, 51% of the highest: set param_scheduler[0]'),
        ([dict(WARM_UP, end=30)], '[0].end', 30, '0.069, 100% of the highest'),
        ([dict(type='ConstantLR', end=30)], '[0].end', 30, '0.0333, 100% of the highest'),
        # goes down
        ([dict(WARM_UP, start_factor=1, end_factor=0.1, end=30)], '[0].end', 30, '0.041, 41% of'),
        (
            [WARM_UP, dict(COSINE, T_max=5, begin=5, end=20)],
            *(
                '[1].T_max',
                5,
                'at 10 of 20 epochs, and rises again: set param_scheduler[1].T_max',
            ),
        ),
        ([dict(COSINE, T_max=100)], '[0].T_max', 100, '0.0914, 91% of the highest'),
    ],
)
def test_schedules_that_do_not(schedulers, name, value, words):
    (text,) = schedule(*schedulers)
    assert text.startswith(f'param_scheduler{name}={value}: ')
    assert words in text


def test_a_training_without_a_length():
    cfg = training(max_epoch=20)
    (text,) = texts('error', check_schedule, cfg)
    assert 'max_epochs' in text
    assert "{'max_epoch': 20}" in text
    cfg.train_cfg = dict(type='LoopOfMine')
    assert texts('error', check_schedule, cfg) == []


def test_training_of_iterations():
    poly = dict(type='PolyLR', by_epoch=False, end=50)
    cfg = training(poly, dict(STEPS), by_epoch=False, max_iters=50)
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=10))
    assert texts('warning', check_schedule, cfg) == []
    cfg.train_cfg.max_iters = 500
    (text,) = texts('warning', check_schedule, cfg)
    assert 'ends at 50 of 500 iterations' in text


STEP_WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500)


@pytest.fixture
def of_folders(few_digits):
    """Warnings for schedulers in 12 epochs of 40 images in folders, 7 in a batch."""

    def warn(*schedulers, processes=1, batch_size=7, wrap=None, **loader):
        cfg = training(*schedulers, max_epochs=12)
        cfg.default_scope = 'mmpretrain'
        dataset = dict(type='CustomDataset', data_root=str(few_digits), data_prefix='train')
        dataset = wrap(dataset) if wrap else dataset
        cfg.train_dataloader = dict(batch_size=batch_size, dataset=dataset, **loader)
        return texts('warning', check_schedule, cfg, processes=processes)

    return warn


@pytest.mark.parametrize(
    ('options', 'steps'),
    [
        ({}, 72),
        (dict(drop_last=True), 60),
        (dict(processes=3), 24),
        (dict(batch_size=64), 12),
        (dict(sampler=dict(type='DefaultSampler')), 72),
        (
            dict(wrap=lambda data: dict(type='RepeatDataset', times=3, dataset=data)),
            216,
        ),
        (
            dict(
                wrap=lambda data: dict(type='ConcatDataset', datasets=[data, dict(data, indices=9)])
            ),
            84,
        ),
    ],
)
def test_warm_up_in_steps(of_folders, options, steps):
    (text,) = of_folders(STEP_WARM_UP, dict(STEPS, end=12), **options)
    assert text.startswith(
        f'param_scheduler[0].end=500: LinearLR ends at 500, after the {steps} iterations of the '
    )
    assert text.endswith(f'100% of the highest: set param_scheduler[0].end={steps} or less')


def test_steps_that_fit_or_are_not_known(of_folders):
    steps = dict(STEPS, end=12)
    assert of_folders(dict(STEP_WARM_UP, end=36), steps) == []
    assert of_folders(dict(STEP_WARM_UP, end=36)) == []  # before a constant rate
    assert of_folders(dict(type='PolyLR', by_epoch=False, end=72)) == []
    assert of_folders(STEP_WARM_UP, steps, sampler=dict(type='InfiniteSampler')) == []
    assert of_folders(STEP_WARM_UP, steps, wrap=lambda _: dict(type='Other')) == []
    assert of_folders(STEP_WARM_UP, steps, wrap=lambda data: dict(data, data_root='none')) == []


def test_other_schedulers_of_steps(of_folders):
    (text,) = of_folders(dict(type='PolyLR', by_epoch=False, end=50))
    assert text.startswith('param_scheduler[0].end=50: PolyLR ends at 50 of 72 iterations')
    assert text.endswith('set param_scheduler[0].end=72')
    (text,) = of_folders(dict(type='MultiStepLR', by_epoch=False, milestones=[30, 90]))
    assert '.milestones=[30, 90]: counted from begin=0 to 72 of 72 iterations, none' in text


def test_warm_up_of_a_detector(scenes):
    """The list of its images is read once, with its annotations."""
    cfg = resolve_config('faster-rcnn_r18_fpn_4e_digits')
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(scenes)
    cfg.val_evaluator.ann_file = str(scenes / 'annotations/instances_val.json')
    warnings = [each.text for each in check_config(cfg) if each.check == 'schedule']
    (text,) = warnings
    assert text.startswith('param_scheduler[0].end=50: LinearLR ends at 50, after the 4 iterations')
    assert texts('warning', check_schedule, cfg) == []


def test_a_rate_of_zero_and_schedulers_of_a_framework():
    cfg = training(dict(type='PolyLR', end=40))
    cfg.optim_wrapper.optimizer.lr = 0
    assert '100% of the highest' in texts('warning', check_schedule, cfg)[0]
    cfg = training(dict(type='QuadraticWarmupLR', end=40))
    cfg.merge_from_dict(dict(default_scope='mmdet', model=dict(type='RetinaNet')))
    (text,) = warnings_in(check_config(cfg))
    assert text.startswith('param_scheduler[0].end=40: QuadraticWarmupLR ends at 40, after the 20')


def test_one_scheduler_alone_is_named_so():
    cfg = training()
    cfg.param_scheduler = dict(STEPS, milestones=[30], end=20)
    (text,) = texts('warning', check_schedule, cfg)
    assert text.startswith('param_scheduler.milestones=[30]: ')


@pytest.mark.parametrize(
    ('hook', 'length', 'words'),
    [
        (dict(interval=1), {}, None),
        (dict(interval=20), {}, None),
        (dict(interval=1000, by_epoch=False), {}, None),
        (dict(interval=21), {}, 'interval=21 and by_epoch=True'),
        (dict(by_epoch=True), {}, 'interval=-1 and by_epoch=True'),
        (None, {}, 'default_hooks.checkpoint=None'),
        (dict(interval=1), dict(max_iters=100), 'set by_epoch=False and an interval from 1 to 100'),
    ],
)
def test_checkpoints(hook, length, words):
    cfg = training(**length)
    cfg.default_hooks = dict(checkpoint=hook and {'type': 'CheckpointHook', **hook})
    found = texts('warning', check_schedule, cfg)
    assert len(found) == (words is not None)
    assert not found or words in found[0]


def test_validation_that_never_begins():
    cfg = training(max_epochs=20, val_begin=21)
    assert texts('warning', check_schedule, cfg) == []  # there is none
    cfg.val_dataloader = dict(batch_size=1)
    (text,) = texts('warning', check_schedule, cfg)
    assert text.startswith('train_cfg.val_begin=21, and the training has 20 epochs')


def batch(images=32, **optim_wrapper):
    return Config(
        dict(
            train_dataloader=dict(batch_size=images),
            optim_wrapper=dict(optimizer=dict(lr=0.1), **optim_wrapper),
            auto_scale_lr=dict(base_batch_size=256),
        )
    )


def rate_of_a_run(cfg, processes):
    """The learning rate that mmengine trains with."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=cfg.optim_wrapper.optimizer.lr)
    runner = SimpleNamespace(
        _train_dataloader=cfg.train_dataloader,
        world_size=processes,
        logger=MMLogger.get_current_instance(),
        param_schedulers=None,
    )
    Runner.scale_lr(runner, OptimWrapper(optimizer), cfg.auto_scale_lr)
    return optimizer.param_groups[0]['lr']


@pytest.mark.parametrize('enable', [False, True])
@pytest.mark.parametrize('steps', [1, 2, 8])
@pytest.mark.parametrize(('images', 'processes'), [(32, 8), (48, 1), (128, 6)])
def test_advice_is_right_when_it_is_followed(images, processes, steps, enable):
    """The run trains at the rate that is said, and each remedy ends in one that is right."""
    cfg = batch(images, accumulative_counts=steps)
    cfg.auto_scale_lr.enable = enable
    right = 0.1 * images * processes * steps / 256
    (found,) = findings(check_batch, cfg, processes=processes)
    rate = rate_of_a_run(cfg, processes)
    assert (found.status == 'ok') == (rate == pytest.approx(right))
    assert f'{images} images x {processes} process' in found.text
    if found.status == 'ok':
        assert f'{rate:g}' in found.text
        return
    assert f'the linear rule gives lr={right:g}: ' in found.text
    if enable:
        assert f'trains at lr={rate:g};' in found.text
    advice = re.search(r'the linear rule gives lr=\S+: (.+?)(?:\. If|$)', found.text)[1]
    remedies = [advice] if enable else advice.split(', or ')
    assert remedies
    for remedy in remedies:
        new = copy.deepcopy(cfg)
        new.merge_from_dict(
            {
                key: float(x) if '.' in x else int(x)
                for key, x in re.findall(r'([\w.]+)=([\d.e+-]+)', remedy)
            }
        )
        if 'auto-scale-lr' in remedy:
            new.auto_scale_lr.enable = not enable  # the option given, or left out
        (after,) = findings(check_batch, new, processes=processes)
        assert after.status == 'ok', (remedy, after.text)
        assert rate_of_a_run(new, processes) == pytest.approx(right, rel=1e-5)


def test_batch_without_a_rule():
    cfg = batch()
    cfg.pop('auto_scale_lr')
    (found,) = findings(check_batch, cfg, processes=1)
    assert found.status == 'skipped'
    assert 'set auto_scale_lr.base_batch_size' in found.text


def test_processes_are_those_of_the_launcher(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '4')
    monkeypatch.setenv('SLURM_NTASKS', '2')
    assert [world_size(launcher) for launcher in ('none', 'pytorch', 'slurm')] == [1, 4, 2]
    monkeypatch.delenv('WORLD_SIZE')
    assert world_size('pytorch') == 1
