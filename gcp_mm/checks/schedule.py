"""The schedule of the learning rate, the checkpoints and the validation fit the training."""

from collections.abc import Iterator
from math import inf

from mmengine.config import Config

from .finding import Finding
from .tree import name_of

# Schedulers whose shape depends on where they end; of the others the end only cuts the rest off.
STRETCHED = ('LinearLR', 'PolyLR', 'CosineAnnealingLR', 'QuadraticWarmupLR')
# A rate below this share of the highest one changes no weight much: the paper's LRfast, a power of
# 11 that 53 epochs would bring to zero, ends after 30 at 0.0003 of it.
LOW = 0.01


def check_schedule(cfg: Config) -> list[Finding]:
    """Compare schedulers, checkpoints and validation with the length of the training.

    A scheduler that counts iterations in a training of epochs, or epochs in one of iterations, is
    left alone: that takes the size of the data set.

    Args:
        cfg: the final config.
    """
    train = cfg.get('train_cfg') or {}
    length = train.get('max_epochs') or train.get('max_iters')
    if not length:
        return [Finding('skipped', 'train_cfg has neither max_epochs nor max_iters')]
    unit = 'epochs' if train.get('max_epochs') else 'iterations'
    found = [
        *_schedulers(cfg, length, unit),
        *_checkpoints(cfg, length, unit),
        *_validation(cfg, length, unit),
    ]
    return [Finding('warning', text) for text in found] or [
        Finding('ok', f'learning rate, checkpoints and validation fit the {length} {unit}')
    ]


def comparable(cfg: Config, unit: str) -> list[tuple[str, dict]]:
    """Place and config of each scheduler of the learning rate that counts in `unit`."""
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        if 'type' not in schedulers:  # of several optimizers
            return []
        named = [('param_scheduler', schedulers)]
    else:
        named = [(f'param_scheduler[{i}]', each) for i, each in enumerate(schedulers)]
    if any(name_of(each) == 'ReduceOnPlateauLR' for _, each in named):  # nobody knows beforehand
        return []
    by_epoch = unit == 'epochs'
    return [
        (path, each)
        for path, each in named
        if name_of(each).endswith('LR') and each.get('by_epoch', True) == by_epoch
    ]


def _schedulers(cfg, length, unit) -> Iterator[str]:
    schedulers = comparable(cfg, unit)
    for path, each in schedulers:
        yield from _milestones(path, each, length, unit)
    rates = None
    for path, each in schedulers:
        key, stop = _end(each)
        if stop in (length, inf) or (stop > length and name_of(each) not in STRETCHED):
            continue
        later = max(_end(other)[1] for _, other in schedulers)
        rises = key == 'T_max' and stop < min(length, each.get('end', inf))
        if stop < length <= later and not rises:
            continue  # others go on
        if stop < later < length:
            continue  # told of the last one
        rates = rates or _rates(cfg, schedulers, unit, length)
        share = rates[-1] / max(rates) if max(rates) else 1
        if rises:
            what = f'comes to its end at {stop} of {length} {unit}, and rises again'
        elif stop < length:
            if share == 1:  # a warm-up before a constant rate
                continue
            what = (
                f'ends at {stop} of {length} {unit}, the rest has its last learning rate, '
                f'{rates[-1]:.3g}'
            )
        else:
            if share < LOW:
                continue
            what = (
                f'ends at {stop}, after the {length} {unit} of the training, which stops at a '
                f'learning rate of {rates[-1]:.3g}, {share:.0%} of the highest'
            )
        right = length - each.get('begin', 0) if key == 'T_max' else length
        yield f'{path}.{key}={each[key]}: {name_of(each)} {what}: set {path}.{key}={right}'


def _milestones(path, scheduler, length, unit) -> Iterator[str]:
    begin, end = scheduler.get('begin', 0), scheduler.get('end', inf)
    last = min(length, end) - begin  # mmengine counts them from `begin`
    late = [m for m in scheduler.get('milestones', ()) if m >= last]
    if not late:
        return
    if end < length and max(late) < length - begin:
        reached, remedy = f'up to end={end}', f'set {path}.end={length}'
    else:
        reached = f'of {length} {unit}'
        remedy = f'set milestones below {last}, or leave them out'
    counted = f', counted from begin={begin},' if begin else ''
    yield (
        f'{path}.milestones={list(scheduler["milestones"])}: {reached} none comes{counted} to '
        f'{", ".join(map(str, late))}: {remedy}'
    )


def _end(scheduler):
    """The key of a scheduler that says where it ends, and where that is; infinity by default."""
    end = scheduler.get('end', inf)
    if name_of(scheduler) == 'CosineAnnealingLR' and scheduler.get('T_max'):
        stop = scheduler.get('begin', 0) + scheduler['T_max']
        if stop != end:
            return 'T_max', stop
    return 'end', end


def _rates(cfg, schedulers, unit, length):
    """The learning rate of every epoch or iteration, from these schedulers alone."""
    from ..studies.curves import learning_rates  # with matplotlib, half a second

    alone = Config(
        dict(
            optim_wrapper=dict(optimizer=dict(lr=cfg.optim_wrapper.optimizer.get('lr', 1.0))),
            param_scheduler=[{**each, 'convert_to_iter_based': False} for _, each in schedulers],
            train_cfg={'max_epochs' if unit == 'epochs' else 'max_iters': length},
            auto_scale_lr=dict(base_batch_size=1),
        )
    )
    return learning_rates(alone, images=1)[1]


def _checkpoints(cfg, length, unit) -> Iterator[str]:
    hooks = cfg.get('default_hooks') or {}
    hook = hooks.get('checkpoint', {})
    if hook is None:
        yield 'default_hooks.checkpoint=None: no checkpoint is saved; leave it out'
        return
    if hook.get('by_epoch', True) != (unit == 'epochs'):
        if unit == 'iterations':
            yield (
                'default_hooks.checkpoint.by_epoch=True: a training of iterations is one epoch, '
                'with one checkpoint at its end: set by_epoch=False, and interval in iterations'
            )
        return
    interval = hook.get('interval', 1 if not hook else -1)
    if 0 < interval <= length:
        return
    saved = 'only the end is saved' if hook.get('save_last', True) else 'no checkpoint is saved'
    yield (
        f'default_hooks.checkpoint.interval={interval}, and the training has {length} {unit}: '
        f'{saved}; set an interval from 1 to {length}'
    )


def _validation(cfg, length, unit) -> Iterator[str]:
    begin = cfg.train_cfg.get('val_begin', 1)
    if cfg.get('val_dataloader') and begin > length:
        yield (
            f'train_cfg.val_begin={begin}, and the training has {length} {unit}: nothing is '
            f'validated; set it to at most {length}'
        )
