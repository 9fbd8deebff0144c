"""Learning rates, batches and optimizers of the configs are the paper's."""

import functools
import json
import re
import shlex

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from tests.helpers.configs import COCO, IMAGENET, load, name_of
from tests.helpers.runs import ROOT


def linear(start, end):
    """A stage of MobileNetV2's LRadju: linear(start, end, n) of Table 3, 50 epochs."""
    return start - (start - end) / 50 * np.arange(50)


def polynomial(rho, e_f, epochs, first=1):
    """Equation (9) of the paper with l_0 = 0.1 and e_s = 1, in `epochs` epochs from e = `first`."""
    e = first + np.arange(epochs)
    return 0.1 * (1 - (e - 1) / (e_f - 1)) ** rho


# Steps of an epoch here; ImageNet's 1,252, of ShuffleNetV2's batches, are 3e5 in 240 epochs.
STEPS = 20


def linear_to_zero(epochs):
    """ShuffleNetV2's learning rates in every step."""
    t_step = STEPS * epochs
    return 0.5 * (1 - np.arange(t_step) / t_step)


# Table 3 of the paper: learning rates in all epochs, or steps. It counts the ResNets' epochs from
# 1, except in their LRnorm, the usual schedule: 0.1 for 30 epochs. It counts MobileNetV2's from 0:
# 0.045 is its initial rate (section 3.2), and the first stage of LRadju begins at epoch 0.
LEARNING_RATES = {
    'resnet-lrnorm': 0.1 * 0.1 ** (np.arange(100) // 30),
    'resnet-lrfast': polynomial(11, 53, 30),
    'resnet-lradju': polynomial(2, 50, 50),
    'resnet-poly': polynomial(2, 50, 50),
    # as the paper's code counted the epochs, from 0
    'resnet-lrfast-released': polynomial(11, 53, 30, first=0),
    'resnet-lradju-released': polynomial(2, 50, 50, first=0),
    'mobilenet-lrnorm': 0.045 * 0.98 ** np.arange(400),
    'mobilenet-lrfast': 0.06 * 0.92 ** np.arange(100),
    # as the paper's code trained, then as Table 3 prints it
    'mobilenet-lradju': np.concatenate(
        [linear(6e-2, 1e-2), linear(1e-2, 1e-3), linear(1e-3, 1e-5)]
    ),
    'mobilenet-lradju-printed': np.concatenate(
        [linear(6e-2, 1e-3), linear(1e-2, 1e-4), linear(1e-3, 1e-5)]
    ),
    'shufflenet-lrnorm': linear_to_zero(240),
    'shufflenet-lrfast': linear_to_zero(60),
    'shufflenet-lradju': linear_to_zero(100),
}
WEIGHT_DECAY = dict(resnet=1e-4, mobilenet=4e-5, shufflenet=4e-5)


def batch_of(family, schedule):
    """Total batch: Table 2 of the paper."""
    if family == 'mobilenet':
        return 192 if 'lradju' in schedule else 96
    return dict(resnet=256, shufflenet=1024)[family]


class Weight(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self):
        """Abstract in its parent; the schedules need no data."""


@functools.cache
def simulate(settings, work_dir, steps):
    """Learning rates of a complete training: its Runner's schedulers, stepped by its hook.

    One for each epoch or, where a scheduler goes by iterations, for each of them.
    """
    settings = Config(json.loads(settings))
    runner = Runner(
        Weight(),
        work_dir,
        train_dataloader=torch.utils.data.DataLoader(range(steps)),
        default_scope='mmpretrain',
        experiment_name=f'schedule{simulate.cache_info().misses}',
        log_level='ERROR',
        **settings,
    )
    assert runner.train_loop.max_epochs == runner.max_epochs  # the loop is built
    optim_wrapper = runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    schedulers = runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    by_iteration = not all(scheduler.by_epoch for scheduler in schedulers)
    hook = ParamSchedulerHook()
    rates = []
    optim_wrapper.step()
    for _ in range(runner.max_epochs):
        for i in range(len(runner.train_dataloader) if by_iteration else 1):
            rates.append(optim_wrapper.param_groups[0]['lr'])
            hook.after_train_iter(runner, i)
        hook.after_train_epoch(runner)
    return np.array(rates)


@pytest.fixture(scope='module')
def learning_rates(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('schedules')

    def of(cfg, steps=STEPS):
        settings = {key: cfg[key] for key in ('train_cfg', 'optim_wrapper', 'param_scheduler')}
        return simulate(json.dumps(settings), str(work_dir), steps)

    return of


@pytest.mark.parametrize('path', IMAGENET)
def test_training_on_imagenet_is_the_papers(path, learning_rates):
    """Section 4.1 of the paper, Tables 2 and 3: every epoch; of ShuffleNetV2, every step."""
    cfg = load(path)
    family, gpus, batch, schedule = name_of(path)
    assert cfg.train_dataloader.batch_size == batch
    assert gpus * batch == cfg.auto_scale_lr.base_batch_size == batch_of(family, schedule)
    # no clipping, no accumulation, no weight without decay
    assert {key for key, value in cfg.optim_wrapper.items() if value} <= {'optimizer', '_scope_'}
    optimizer = build_optim_wrapper(Weight(), cfg.optim_wrapper).optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    expected = dict(momentum=0.9, weight_decay=WEIGHT_DECAY[family], dampening=0, nesterov=False)
    assert {key: group[key] for key in expected} == expected

    rates = LEARNING_RATES[f'{family}-{schedule}']
    # mmengine's linear decay ends at 0 in the last step, the formula one step later.
    tolerance = (
        dict(rtol=0, atol=0.5001 / len(rates)) if family == 'shufflenet' else dict(rtol=1e-9)
    )
    np.testing.assert_allclose(learning_rates(cfg), rates, **tolerance)
    assert cfg.train_cfg.val_interval == 1


def test_released_rates_are_those_the_page_names(learning_rates):
    adju, fast = (
        learning_rates(load(f'configs/imagenet/resnet50-gcp_8xb32-{name}-released_in1k.py'))
        for name in ('lradju', 'lrfast')
    )
    assert (len(adju), len(fast)) == (50, 30)
    np.testing.assert_allclose((adju[0], adju[-1], fast[0]), (0.1041, 4.2e-5, 0.1233), rtol=1e-2)


README = (ROOT / 'configs/imagenet/README.md').read_text()


@pytest.mark.parametrize('schedule', ['lradju', 'lrfast'])
def test_released_schedules_are_set_from_the_command_line(schedule, learning_rates):
    """The README's options, for networks without a config of their own."""
    (options,) = re.findall(rf'8xb32-{schedule}_in1k.py 8 .*?--cfg-options (.*?)\n', README, re.S)
    cfg = load(f'configs/imagenet/resnet18_8xb32-{schedule}_in1k.py')
    cfg.merge_from_dict(
        {key: json.loads(value) for key, value in (option.split('=') for option in options.split())}
    )
    rates = LEARNING_RATES[f'resnet-{schedule}-released']
    np.testing.assert_allclose(learning_rates(cfg), rates, rtol=1e-4)


@pytest.mark.parametrize(('rho', 'e_f'), [(2, 50), (11, 53), (0.5, 64)])
def test_figure_4s_family_is_set_from_the_command_line(rho, e_f, learning_rates):
    """The command of the README, with other numbers."""
    (command,) = re.findall(
        r'^tools/dist_train.sh (\S+-poly_\S+) 8 (.*?[^\\])$', README, re.M | re.S
    )
    words = shlex.split(' '.join(command))
    options = words[words.index('--cfg-options') + 1 :]
    assert [option.split('=')[1] for option in options] == ['11', '53']
    cfg = load(words[0])
    keys = (option.split('=')[0] for option in options)
    cfg.merge_from_dict(dict(zip(keys, (rho, e_f), strict=True)))
    np.testing.assert_allclose(
        learning_rates(cfg), polynomial(rho, e_f, e_f), rtol=1e-9, atol=1e-15
    )


@pytest.mark.parametrize('path', COCO)
def test_training_of_detectors_is_the_papers(path, learning_rates):
    """Section 4.3 of the paper."""
    cfg = load(path)
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    # no clipping, no accumulation
    assert set(cfg.optim_wrapper) <= {'type', 'optimizer', '_scope_'}
    assert cfg.train_cfg.max_epochs == 12
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        (resize,) = [step for step in loader.dataset.pipeline if step.type == 'Resize']
        assert (resize.scale, resize.keep_ratio) == ((1333, 800), True)
    steps = 500  # of an epoch: as many as the warm-up has
    epoch, step = np.divmod(np.arange(12 * steps), steps)
    warm_up = np.where(epoch, 1, 0.001 + 0.999 * step / 499)  # MMDetection's
    rates = 0.01 * 0.1 ** ((epoch >= 8).astype(int) + (epoch >= 11)) * warm_up
    np.testing.assert_allclose(learning_rates(cfg, steps), rates, rtol=1e-9)
