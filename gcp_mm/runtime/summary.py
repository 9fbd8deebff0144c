"""What a run shows before its first loss or result: what it is, in a few lines.

The config, the environment, the hooks and what else mmengine logs meanwhile go to the log file
alone. Warnings and errors go to the screen too.
"""

import logging
import os.path as osp

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from ..checks.dataloaders import describe_dataset
from ..checks.network import describe_network, pretrained_modules
from ..compat.packages import versions
from .network import unwrap


class _Important(logging.Filter):
    def filter(self, record):
        return record.levelno >= logging.WARNING


IMPORTANT = _Important()


class QuietRunner(Runner):
    """A Runner whose screen gets warnings alone until :func:`show_summary`."""

    def build_logger(self, *args, **kwargs):
        """Build the logger, with a filter on what goes to the screen."""
        logger = super().build_logger(*args, **kwargs)
        for handler in _screens(logger):
            handler.addFilter(IMPORTANT)
        return logger


class SummaryHook(Hook):
    """Log what a run is as it begins; the first process's logger alone shows it."""

    def before_train_epoch(self, runner):
        """Show the summary of a training, the first time."""
        show_summary(runner)

    def after_train(self, runner):
        """Warn of a training without an epoch: it resumed from its last checkpoint."""
        if show_summary(runner):
            runner.logger.warning(
                f'nothing was trained: the run is at epoch {runner.epoch} of {runner.max_epochs} '
                'already; raise train_cfg.max_epochs to train longer'
            )

    def before_test_epoch(self, runner):
        """Show the summary of a test, the first time."""
        show_summary(runner)


def show_summary(runner: Runner) -> bool:
    """Log the summary of a :class:`QuietRunner`, and show all its messages from then on.

    Returns:
        Whether it was quiet until now.
    """
    screens = [each for each in _screens(runner.logger) if IMPORTANT in each.filters]
    for screen in screens:
        screen.removeFilter(IMPORTANT)
    if screens:
        lines = [f'{name:<8}  {text}' for name, text in _rows(runner)]
        runner.logger.info('\n'.join([runner.experiment_name, *lines]))
    return bool(screens)


def _screens(logger):
    """Handlers of a logger that are no files."""
    return [each for each in logger.handlers if not isinstance(each, logging.FileHandler)]


def _rows(runner):
    """Names and texts of what is known of a run."""
    model, cfg = unwrap(runner.model), runner.cfg
    training = isinstance(runner._train_loop, BaseLoop)
    yield 'network', describe_network(model)
    if training or runner._load_from:
        yield 'weights', _weights(runner, model, training)
    for name in ('train', 'val') if training else ('test',):
        loop = getattr(runner, f'_{name}_loop')
        if hasattr(loop, 'dataloader'):  # some loops have several, or are not built
            yield name, describe_dataset(loop.dataloader.dataset)
    if training:
        loop, optimizer = runner.train_loop, _optimizer(runner.optim_wrapper)
        yield 'schedule', f'{_length(loop)}, batch {_batch(cfg)}; {optimizer}'
    device = next((each.device for each in model.parameters()), 'cpu')
    name = f' ({torch.cuda.get_device_name(device)})' if str(device).startswith('cuda') else ''
    threads = _number(torch.get_num_threads(), 'thread') if str(device) == 'cpu' else ''
    yield 'device', f'{device}{name}, {_processes()}{threads and f" of {threads}"}'
    yield 'packages', versions()
    yield 'work dir', runner.work_dir
    log = osp.join(runner.log_dir, f'{runner.timestamp}.log')
    yield 'log file', f'{log}, with the config, the environment and the hooks'


def _weights(runner, model, training):
    """Where the weights come from."""
    if training and runner.iter:
        done = f'{_number(runner.epoch, "epoch")}, {_number(runner.iter, "step")}'
        return f'from {runner._load_from or "the latest checkpoint"}, after {done}'
    if runner._load_from:
        return f'from {runner._load_from}'
    parts = [
        f'{name} from {init_cfg["checkpoint"]}' for name, _, init_cfg in pretrained_modules(model)
    ]
    return ', '.join([*parts, 'the rest random']) if parts else 'random'


def _number(number, name):
    return f'{number} {name}' if number == 1 else f'{number} {name}s'


def _processes():
    number = get_world_size()
    return '1 process' if number == 1 else f'{number} processes'


def _batch(cfg):
    """Images of a step of the optimizer."""
    images = cfg.train_dataloader.get('batch_size', 1)
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    total = images * get_world_size() * steps
    if total == images:
        return str(images)
    accumulated = f' x {steps} accumulated' if steps > 1 else ''
    return f'{total} ({images} x {_processes()}{accumulated})'


def _length(loop):
    if isinstance(loop, EpochBasedTrainLoop):
        return f'{_number(loop.max_epochs, "epoch")} of {_number(len(loop.dataloader), "step")}'
    return _number(loop.max_iters, 'step')


def _optimizer(wrapper):
    """Class and learning rate of an optimizer, the rate that its schedulers start from."""
    if isinstance(wrapper, OptimWrapperDict):
        return '; '.join(f'{name}: {_optimizer(each)}' for name, each in wrapper.items())
    rates = [group.get('initial_lr', group['lr']) for group in wrapper.param_groups]
    low, high = min(rates), max(rates)
    rate = f'{low:g}' if low == high else f'{low:g} to {high:g}'
    return f'{type(wrapper.optimizer).__name__}, learning rate {rate}'
