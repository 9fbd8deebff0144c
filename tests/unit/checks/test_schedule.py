"""Schedules and checkpoints that do not fit the training are told, others are not."""

import re

import pytest
from mmengine.config import Config

from gcp_mm.checks import check_config, warnings_in
from gcp_mm.checks.schedule import check_schedule
from gcp_mm.hub import resolve_config
from tests.helpers.checks import texts


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
        [dict(type='CosineAnnealingLR', T_max=None)],
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


@pytest.mark.parametrize(
    ('schedulers', 'place', 'words', 'remedy'),
    [
        ([dict(STEPS, milestones=[8, 20, 30], end=20)], '[0].milestones', 'to 20, 30:', 'below 20'),
        (
            [dict(STEPS, milestones=[3], begin=2, end=5)],
            '[0].milestones',
            'from begin=2 to 5 of 20 epochs, none comes to 3:',
            'below 3, or param_scheduler[0].end=20',
        ),
        (
            [dict(STEPS, milestones=[14, 15], begin=5, end=30)],
            '[0].milestones',
            'to 15',
            'below 15',
        ),
        # the training and they were made longer
        ([dict(STEPS, milestones=[14, 17])], '[0].milestones', 'to 14, 17:', '[0].end=20'),
        # the training was made longer, the schedule was not
        ([STEPS], '[0].end=12', 'ends at 12 of 20 epochs, .* rate, 0.001:', '[0].end=20'),
        (
            [WARM_UP, dict(type='PolyLR', begin=5, end=15, power=1)],
            '[1].end=15',
            'ends at 15 of 20 epochs, .* rate, 0:',
            '[1].end=20',
        ),
        # or shorter: epoch 20 of the formula 0.1 (1 - t / 39), as mmengine counts t
        (
            [dict(type='PolyLR', power=1, end=40)],
            '[0].end=40',
            '0.0513, 51% of',
            '[0].end=20 or less',
        ),
        ([dict(WARM_UP, end=30)], '[0].end=30', '0.069, 100% of', '[0].end=20 or less'),
        ([dict(type='ConstantLR', end=30)], '[0].end=30', '0.0333, 100% of', '[0].end=20 or less'),
        (
            [dict(type='LinearLR', start_factor=1, end_factor=0.1, end=30)],  # goes down
            '[0].end=30',
            'after the 20 epochs .* 0.041, 41% of',
            '[0].end=20 or less',
        ),
        (  # the one that ends last goes up
            [dict(type='CosineAnnealingLR', end=5), dict(WARM_UP, begin=5, end=10)],
            '[1].end=10',
            'ends at 10 of 20 epochs, .* rate, 0.00',
            '[1].end=20',
        ),
        (
            [WARM_UP, dict(type='CosineAnnealingLR', T_max=5, begin=5, end=20)],
            '[1].T_max=5',
            'at 10 of 20 epochs, and rises again',
            '[1].T_max=15',
        ),
        (
            [dict(type='CosineAnnealingLR', T_max=100)],
            '[0].T_max=100',
            '0.0914, 91% of',
            '[0].T_max=20 or less',
        ),
    ],
)
def test_schedules_that_do_not(schedulers, place, words, remedy):
    (text,) = schedule(*schedulers)
    assert text.startswith(f'param_scheduler{place}')
    assert re.search(words, text)
    assert text.endswith(remedy)


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
    epoch, tops = steps // 12, []  # rates of the warm-up, which goes on, by the last in each decay
    for last, decay in ((8 * epoch, 1), (11 * epoch, 0.1), (steps, 0.01)):
        tops.append(0.1 * (0.1 + 0.9 * (last - 1) / 499) * decay)
    assert f'at a learning rate of {tops[-1]:.3g}, {tops[-1] / max(tops):.0%} of the h' in text
    assert text.endswith(f'of the highest: set param_scheduler[0].end={steps} or less')


@pytest.mark.parametrize('power', [1, 2])
def test_rate_at_the_end_of_a_schedule_by_steps(of_folders, power):
    """Of 12 epochs of 6 steps; mmengine's decay to 0 takes one step less than its length."""
    polynomial = dict(type='PolyLR', power=power, end=40, convert_to_iter_based=True)
    (text,) = of_folders(polynomial)
    share = (1 - 71 / (40 * 6 - 1)) ** power
    assert f'stops at a learning rate of {0.1 * share:.3g}, {share:.0%} of the highest' in text
    share *= 0.1 + 0.9 * 71 / 99
    found = of_folders(dict(STEP_WARM_UP, end=100), polynomial)
    assert len(found) == 2
    assert all(f'stops at a learning rate of {0.1 * share:.3g}' in text for text in found)


def test_rate_at_the_end_where_the_steps_are_not_known():
    for others in ([], [STEP_WARM_UP]):
        (text,) = schedule(*others, dict(type='PolyLR', end=40, convert_to_iter_based=True))
        assert f'learning rate of {0.1 * (1 - 1999 / 3999):.3g}, 50% of the highest' in text


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
    """In all checks, and in this one alone."""
    cfg = resolve_config('faster-rcnn_r18_fpn_4e_digits')
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(scenes)
    cfg.val_evaluator.ann_file = str(scenes / 'annotations/instances_val.json')
    warnings = [each.text for each in check_config(cfg) if each.check == 'schedule']
    (text,) = warnings
    assert text.startswith('param_scheduler[0].end=50: LinearLR ends at 50, after the 4 iterations')
    assert texts('warning', check_schedule, cfg) == warnings


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
    ('hook', 'message'),
    [
        (dict(interval=1), None),
        (dict(interval=20), None),
        (
            dict(type='CheckpointHook', interval=21),
            '=21, and the training has 20 epochs: only the end is saved; set an',
        ),
        (
            dict(type='CheckpointHook', interval=21, save_last=False),
            '20 epochs: no checkpoint is saved; set an interval',
        ),
        (dict(by_epoch=True), 'interval=-1, and the training has 20 epochs: only the end'),
        (None, 'default_hooks.checkpoint=None: no checkpoint is saved; leave it out'),
        (dict(interval=1000, by_epoch=False), None),
    ],
)
def test_checkpoints(hook, message):
    cfg = training()
    assert texts('warning', check_schedule, cfg) == []
    cfg.default_hooks = dict(checkpoint=hook and {'type': 'CheckpointHook', **hook})
    found = texts('warning', check_schedule, cfg)
    assert len(found) == (message is not None)
    assert not found or message in found[0]


def test_argument_that_a_checkpoint_hook_would_fail_with_when_it_saves():
    cfg = training()
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, intrvl=1))
    (text,) = texts('error', check_schedule, cfg)
    assert text.startswith("default_hooks.checkpoint: CheckpointHook does not take ['intrvl']")


def test_checkpoints_by_epoch_in_a_training_of_iterations():
    cfg = training(max_iters=100)
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    (text,) = texts('warning', check_schedule, cfg)
    assert 'by_epoch=True: a training of iterations is one epoch' in text


def test_validation_that_never_begins():
    cfg = training(max_epochs=20, val_begin=21)
    assert texts('warning', check_schedule, cfg) == []  # there is none
    cfg.val_dataloader = dict(batch_size=1)
    (text,) = texts('warning', check_schedule, cfg)
    assert text.startswith('train_cfg.val_begin=21, and the training has 20 epochs')


def test_batches_that_a_detector_would_not_get():
    cfg = training(max_epochs=20)
    cfg.train_dataloader = dict(batch_sampler=dict(type='AspectRatioBatchSampler', drop_last=True))
    (text,) = texts('warning', check_schedule, cfg)
    assert text.startswith('train_dataloader.batch_sampler.drop_last=True')
    del cfg.train_dataloader.batch_sampler['drop_last']
    assert texts('warning', check_schedule, cfg) == []
