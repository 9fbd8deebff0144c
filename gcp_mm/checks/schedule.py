"""The learning rate, the checkpoints and the validation fit the training and its batch."""

import functools
from collections.abc import Iterator
from math import inf

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS, PARAM_SCHEDULERS

from .context import Context, Finding, is_first_process, name_of
from .data import open_datasets

# Schedulers whose shape depends on where they end; of the others the end only cuts the rest off.
STRETCHED = ('ConstantLR', 'LinearLR', 'PolyLR', 'CosineAnnealingLR', 'QuadraticWarmupLR')
# A rate below this share of the highest one changes no weight much: the paper's LRfast, a power of
# 11 that 53 epochs would bring to zero, ends after 30 at 0.0003 of it.
LOW = 0.01


def learning_rates(cfg: Config, images: int) -> tuple[list[float], list[float]]:
    """Compute the learning rates of a whole training with mmengine's schedulers.

    Args:
        cfg: config of the training, of epochs or of iterations.
        images: number of training images. With `auto_scale_lr.base_batch_size` it gives the number
            of iterations in an epoch.

    Returns:
        Times in epochs, and the learning rate from each time on. The first epoch begins at 1, as in
        the paper's formulas. There is one rate for each epoch, or for each iteration if a scheduler
        works by iterations.

    Raises:
        ValueError: if the config lacks `auto_scale_lr.base_batch_size` and needs it.
    """
    schedulers = cfg.get('param_scheduler') or []
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
    epochs = cfg.train_cfg.get('max_epochs')
    steps = 1
    if not epochs or _by_iteration(schedulers):
        batch = cfg.get('auto_scale_lr', {}).get('base_batch_size')
        if not batch:
            raise ValueError(
                'the schedule goes by iterations, and the config does not say how many are an '
                'epoch; set auto_scale_lr = dict(base_batch_size=...)'
            )
        steps = -(-images // batch)
    length = epochs or cfg.train_cfg.max_iters
    rates = _simulate(cfg.optim_wrapper.optimizer.lr, schedulers, length, epochs and steps)
    return [1 + step / steps for step in range(len(rates))], rates


def _by_iteration(schedulers):
    """Whether one of them changes the learning rate within an epoch."""
    return any(
        not each.get('by_epoch', True) or each.get('convert_to_iter_based') for each in schedulers
    )


def _optimizer(rate):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate, momentum=0.9)


def _build(config, optimizer, end, epoch_length=None):
    """A scheduler, which without an end of its own goes to the training's, as in the Runner."""
    supplied = dict(optimizer=optimizer, epoch_length=epoch_length)
    return PARAM_SCHEDULERS.build({'end': end, **config}, default_args=supplied)


def _simulate(rate, schedulers, length, steps=None):
    """The learning rate of each step of a training.

    `length` is in epochs of `steps` or, without them, in iterations.
    """
    optimizer, total = _optimizer(rate), length * (steps or 1)
    built = [
        _build(each, optimizer, length if each.get('by_epoch', True) else total, steps)
        for each in schedulers
    ]
    optimizer.step()  # before its schedulers' first, or they warn
    rates = []
    for step in range(1, total + 1):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in built:
            if not scheduler.by_epoch or step % (steps or inf) == 0:
                scheduler.step()
    return rates


def check_schedule(context: Context) -> list[Finding]:
    """Compare schedulers, checkpoints and validation with the length of the training.

    A scheduler that counts iterations in a training of epochs is left alone where the number of
    images is not known, and one that counts epochs in a training of iterations always.
    """
    cfg = context.cfg
    train = cfg.get('train_cfg') or {}
    length = train.get('max_epochs') or train.get('max_iters')
    if not length:
        text = f'train_cfg has neither max_epochs nor max_iters: {dict(train)}'
        needed = train and name_of(train) in ('', 'EpochBasedTrainLoop', 'IterBasedTrainLoop')
        return [Finding('schedule', 'error' if needed else 'skipped', text)]
    unit = 'epochs' if train.get('max_epochs') else 'iterations'
    try:
        hook = checkpoint_hook(cfg)
        texts = [*_check_schedulers(context, length, unit), *_check_hook(hook, cfg, length, unit)]
    except Exception as error:  # a class raises whatever it likes about its arguments
        text = f'a scheduler or the checkpoint hook cannot be built: {error}'
        return [Finding('schedule', 'error', text)]
    if hook and hook.args:
        # It hands them on when it first saves, to where there is no such argument.
        text = f'default_hooks.checkpoint: {type(hook).__name__} does not take {sorted(hook.args)}'
        return [Finding('schedule', 'error', f'{text}: correct or remove them')]
    if cfg.get('val_dataloader') and train.get('val_begin', 1) > length:
        texts.append(
            f'train_cfg.val_begin={train.val_begin}, and the training has {length} {unit}: nothing '
            f'is validated; set it to at most {length}'
        )
    batches = (cfg.get('train_dataloader') or {}).get('batch_sampler') or {}
    if name_of(batches) == 'AspectRatioBatchSampler' and batches.get('drop_last'):
        texts.append(
            'train_dataloader.batch_sampler.drop_last=True: AspectRatioBatchSampler then gives '
            'fewer batches than it says, and processes may have different numbers; leave it out'
        )
    return [Finding('schedule', 'warning', text) for text in texts] or [
        Finding(
            'schedule', 'ok', f'learning rate, checkpoints and validation fit the {length} {unit}'
        )
    ]


def count_steps(context: Context) -> int | None:
    """Iterations of an epoch of the training, of each process; None where that is not known."""
    loader = context.cfg.get('train_dataloader') or {}
    batch, sampler = loader.get('batch_size'), loader.get('sampler') or {}
    plain = name_of(sampler) in ('', 'DefaultSampler') and 'num_batch_per_epoch' not in loader
    if not (plain and isinstance(batch, int) and is_first_process(context.cfg)):
        return None
    images = _count_images(context, loader.get('dataset') or {})
    if images is None:
        return None
    of_each = -(-images // context.processes)
    return of_each // batch if loader.get('drop_last') else -(-of_each // batch)


def _count_images(context, node):
    """Number of images of a dataset, or of a wrapper of some, None where it is not known."""
    for config, dataset, _ in open_datasets(context, 'train_dataloader'):
        if config is node:
            return len(getattr(dataset, 'data_list', ())) or None  # an unread list is empty
    if name_of(node) == 'ConcatDataset':
        numbers = [_count_images(context, each) for each in node.get('datasets', ())]
        return None if None in numbers else sum(numbers)
    if name_of(node) in ('RepeatDataset', 'MultiImageMixDataset'):
        number = _count_images(context, node['dataset'])
        return None if number is None else number * node.get('times', 1)
    return None


def _comparable(cfg) -> list[tuple[str, dict]]:
    """Path and config of each scheduler of the learning rate."""
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        if 'type' not in schedulers:  # of several optimizers
            return []
        named = [('param_scheduler', schedulers)]
    else:
        named = [(f'param_scheduler[{i}]', each) for i, each in enumerate(schedulers)]
    if any(name_of(each) == 'ReduceOnPlateauLR' for _, each in named):  # nobody knows beforehand
        return []
    return [(path, each) for path, each in named if name_of(each).endswith('LR')]


def _check_schedulers(context, length, unit) -> Iterator[str]:
    """What does not fit of the schedulers, each in the unit that it counts in."""
    cfg = context.cfg
    named, steps, totals = _comparable(cfg), None, dict(iterations=length)
    if unit == 'epochs':
        steps = count_steps(context) if _by_iteration([each for _, each in named]) else 1
        totals = dict(epochs=length, iterations=steps and length * steps)
        steps = steps or 100  # where they are not known, for the rates of epochs alone
    spans = [
        (path, each, total, *_span(each, total, steps))
        for path, each in named
        if (total := totals.get(_unit(each)))
    ]
    last = max((stop / total for _, _, total, *_, stop in spans), default=0)
    rate = cfg.optim_wrapper.get('optimizer', {}).get('lr', 1.0)

    @functools.cache  # it takes seconds where there are many steps
    def rates():
        return _simulate(rate, [each for _, each, *_ in spans], length, steps)

    for path, each, total, key, begin, end, stop in spans:
        name, unit = name_of(each), _unit(each)
        yield from _check_milestones(path, each, begin, min(total, end), total)
        if stop == total or (stop > total and name not in STRETCHED):
            continue
        rises = key == 'T_max' and stop < min(total, end)
        if not rises and stop < total and stop / total < last:
            continue  # others go on
        if rises:
            what = f'comes to its end at {stop} of {total} {unit}, and rises again'
        elif stop > total and (_alone(each, length, steps) == 1 or _share(rates()) >= LOW):
            what = (
                f'ends at {stop}, after the {total} {unit} of the training, which stops at a '
                f'learning rate of {rates()[-1]:.3g}, {_share(rates()):.0%} of the highest'
            )
        elif stop < total and _share(rates()) != 1:  # not a warm-up to a constant rate
            what = (
                f'ends at {stop} of {total} {unit}, the rest has its last learning rate, '
                f'{rates()[-1]:.3g}'
            )
        else:
            continue
        right = total - begin if key == 'T_max' else total
        remedy = f'{path}.{key}={right}{" or less" if stop > total else ""}'
        yield f'{path}.{key}={each[key]}: {name} {what}: set {remedy}'


def _unit(config):
    return 'epochs' if config.get('by_epoch', True) else 'iterations'


def _span(config, total, steps):
    """The key of a scheduler that says where its shape ends, its begin and end, and that place."""
    _build(config, _optimizer(1.0), total, steps)  # which raises for what it does not take
    begin, end = config.get('begin', 0), config.get('end', total)
    stop = begin + (config.get('T_max') or end - begin)
    return 'end' if stop == end else 'T_max', begin, end, stop


def _alone(config, length, steps):
    """The last share of the highest rate that one scheduler would come to: 1 of a warm-up."""
    return _share(_simulate(1.0, [config], length, steps))


def _share(rates):
    """The last learning rate, as a share of the highest."""
    return rates[-1] / max(rates) if max(rates) else 1


def _check_milestones(path, config, begin, end, total) -> Iterator[str]:
    late = [m for m in config.get('milestones', ()) if m >= end - begin]  # counted from `begin`
    if late:
        remedy = f'set milestones below {end - begin}'
        remedy += f', or {path}.end={total}' if end < total else ''
        yield (
            f'{path}.milestones={list(config["milestones"])}: counted from begin={begin} to '
            f'{end} of {total} {_unit(config)}, none comes to {", ".join(map(str, late))}: {remedy}'
        )


def checkpoint_hook(cfg: Config) -> CheckpointHook | None:
    """The hook that saves the checkpoints of a run, None for none or one of another kind."""
    hooks = cfg.get('default_hooks') or {}
    config = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))  # the Runner's own
    hook = config and HOOKS.build(config)
    return hook if isinstance(hook, CheckpointHook) else None


def _check_hook(hook, cfg, length, unit) -> Iterator[str]:
    if hook is None:
        if not (cfg.get('default_hooks') or {}).get('checkpoint'):
            yield 'default_hooks.checkpoint=None: no checkpoint is saved; leave it out'
    elif hook.by_epoch and unit == 'iterations':
        yield (
            'default_hooks.checkpoint.by_epoch=True: a training of iterations is one epoch, with '
            'one checkpoint at its end: set by_epoch=False, and interval in iterations'
        )
    elif hook.by_epoch == (unit == 'epochs') and not 0 < hook.interval <= length:
        saved = 'only the end is saved' if hook.save_last else 'no checkpoint is saved'
        yield (
            f'default_hooks.checkpoint.interval={hook.interval}, and the training has {length} '
            f'{unit}: {saved}; set an interval from 1 to {length}'
        )


def check_batch(context: Context) -> list[Finding]:
    """Compare the batch of all processes with the one that the config's learning rate is for."""
    cfg, processes = context.cfg, context.processes
    rule = cfg.get('auto_scale_lr') or {}
    base = rule.get('base_batch_size')
    images = (cfg.get('train_dataloader') or {}).get('batch_size')
    wrapper = cfg.get('optim_wrapper') or {}
    rate = (wrapper.get('optimizer') or {}).get('lr')
    if not base or not images or not isinstance(rate, int | float):
        text = (
            'the config does not say for which batch its learning rate is: set '
            'auto_scale_lr.base_batch_size'
        )
        return [Finding('batch', 'skipped', text)]
    steps = wrapper.get('accumulative_counts', 1)
    batch = images * processes * steps
    made = f'{images} images x {processes} process{"es" if processes > 1 else ""}'
    made += f' x {steps} accumulated' if steps > 1 else ''
    # As mmengine scales it: without the steps that are accumulated
    scaled, right = rate * images * processes / base, rate * batch / base
    enabled = rule.get('enable', False)
    if not enabled and batch == base:
        return [Finding('batch', 'ok', f'lr={rate:g} is for a batch of {base}: {made}')]
    if enabled and steps == 1:
        text = f'lr={rate:g} for a batch of {base} is scaled to {scaled:g}: {made}'
        return [Finding('batch', 'ok', text)]
    by_hand = f'set optim_wrapper.optimizer.lr={right:g} and auto_scale_lr.base_batch_size={batch}'
    if enabled:
        does = f'which leaves out accumulation, trains at lr={scaled:g}'
        remedy = 'leave out --auto-scale-lr, or set auto_scale_lr.enable=False'
        remedy += '' if batch == base else f', and {by_hand}'
        text = f'auto_scale_lr, {does}; for {made} the linear rule gives lr={right:g}: {remedy}'
        return [Finding('batch', 'warning', text)]
    remedy = by_hand if steps > 1 else f'pass --auto-scale-lr, or {by_hand}'
    text = (
        f'auto_scale_lr.base_batch_size says {base}, and {made} are {batch}: if lr={rate:g} was '
        f'found for {base}, the linear rule gives lr={right:g}: {remedy}. If it was found for '
        f'{batch}, set auto_scale_lr.base_batch_size={batch}'
    )
    return [Finding('batch', 'warning', text)]
