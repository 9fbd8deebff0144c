"""From which checkpoint an interrupted run continues, and where in its schedule."""

import logging
import warnings
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner, find_latest_checkpoint

from ..checkpoints import (
    check_intact,
    checkpoint_location,
    checkpoint_number,
    numbered_checkpoints,
    read_checkpoint,
)
from ..checkpoints.pretrained import count_matches
from .network import unwrap

# How far a scheduler is; the rest of its state is what the config makes of it.
PROGRESS = {'last_step', '_global_step', '_last_value'}
PROGRESS |= {'best', 'num_bad_epochs', 'cooldown_counter'}  # of ReduceOnPlateauLR


def find_checkpoint(cfg: Config) -> str | None:
    """The newest intact checkpoint of a run, by :func:`check_intact`.

    That is the one that the file `last_checkpoint` names or, with a warning, the newest intact one
    before it. A later one is taken only if it was saved after that one: by this run, which ended
    before it could name it, and not by an earlier one. Without that file all are considered. A file
    in the folder of :func:`checkpoint_location` goes before one of the same name at the path in
    `last_checkpoint`: the run may have been moved or copied.

    Args:
        cfg: the config. On a remote storage the checkpoint that is named is taken, unchecked.

    Returns:
        Its path, or None if there is no checkpoint at all.

    Raises:
        ValueError: if there are some, and none is intact.
    """
    named = find_latest_checkpoint(cfg.work_dir)
    location, template = checkpoint_location(cfg)
    if '://' in location:
        return named
    folder = Path(location)
    numbers = numbered_checkpoints(folder, template)
    candidates = sorted(numbers, key=numbers.get, reverse=True)
    if named:
        latest = folder / Path(named).name
        latest = latest if latest.exists() else Path(named)
        number = checkpoint_number(latest, template)
        later = [] if number is None else [path for path in candidates if numbers[path] > number]
        candidates = [
            *_saved_after(latest, later),
            *(latest, *(path for path in candidates if numbers[path] < (number or 0))),
        ]
    elif Path(cfg.work_dir, 'last_checkpoint').exists():  # a kill while mmengine wrote it
        candidates.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    reasons = []
    for path in candidates:
        try:
            check_intact(path)
        except (FileNotFoundError, ValueError) as error:
            reasons.append(str(error))
            continue
        if reasons:
            print_log(
                f'{"; ".join(reasons)}. Resuming from {str(path)!r} instead',
                logger='current',
                level=logging.WARNING,
            )
        return str(path)
    if reasons:
        raise ValueError(
            f'--resume: no checkpoint of {cfg.work_dir!r} can be used: {"; ".join(reasons)}. To '
            'start anew, remove them and the file last_checkpoint'
        )
    return None


def set_resume(cfg: Config, resume: str, trust: bool = False) -> None:
    """Set the checkpoint from which a run resumes.

    Args:
        cfg: the config, changed in place. Checkpoints on a remote storage are not checked.
        resume: path or address of a checkpoint, or 'auto' for the one that :func:`find_checkpoint`
            finds. If it finds none, the run starts from the config's `load_from`, if set.
        trust: as in :func:`gcp_mm.checkpoints.read_checkpoint`.

    Raises:
        FileNotFoundError: if `resume` does not exist.
        ValueError: if the checkpoint is broken; with 'auto', if all checkpoints of the run are.
    """
    if resume == 'auto':
        resume = find_checkpoint(cfg)
    elif '://' not in resume:
        check_intact(resume, trust)
    cfg.resume = bool(resume)
    if resume:
        cfg.load_from = resume
    else:
        print_log(f'--resume: no checkpoint in {cfg.work_dir!r} yet', logger='current')


def _saved_after(latest, others):
    """Those of `others` that are intact and were saved after `latest`, by what they say of it."""
    times = {}
    for path in (latest, *others) if others else ():
        try:
            check_intact(path)
            times[path] = read_checkpoint(path)['meta']['time']
        except (FileNotFoundError, KeyError, TypeError, ValueError):
            continue  # not fit to be resumed from; `latest` is looked at again where that counts
    return [path for path in others if path in times and times[path] >= times.get(latest, '~')]


class LoadingHook(Hook):
    """Prove that a checkpoint is of the network, and continue the schedule of a resumed run.

    mmengine loads what matches and trains on with the rest at random. It restores the schedulers
    with the settings and lengths of the old run: with another batch or number of processes, a
    schedule by iterations would end before or after the training.

    Raises:
        ValueError: when a checkpoint is loaded, if none of its weights is the network's, or as
            :func:`continue_schedule`.
    """

    priority = 'VERY_HIGH'  # before the hooks that copy the weights, as EMAHook does

    def after_load_checkpoint(self, runner, checkpoint):
        model, path = unwrap(runner.model), runner._load_from
        weights = checkpoint.get('state_dict', checkpoint)
        # mmengine removes this prefix of a distributed run's keys too.
        weights = {key.removeprefix('module.'): weight for key, weight in weights.items()}
        found, number = count_matches(model, weights), len(model.state_dict())
        if not found:
            raise ValueError(
                f'load_from={path!r} holds none of the {number} tensors of {type(model).__name__}: '
                'name a checkpoint of this network, make one with tools/convert_checkpoint.py or, '
                'to train from random weights, set load_from=None'
            )
        if found < number:
            runner.logger.warning(
                f'{found} of {number} tensors of {type(model).__name__} come from {path!r}, the '
                'others keep their initial values'
            )
        if runner._resume:
            # mmengine would execute it, a config of MMCV 1, to compare the number of GPUs.
            checkpoint['meta'].pop('config', None)
            continue_schedule(runner, checkpoint)


def continue_schedule(runner: Runner, checkpoint: dict) -> None:
    """Step the schedulers of a run to the place in the training where its checkpoint was saved.

    So the schedule has the run's own settings and lengths, and goes on as in an uninterrupted run.
    An epoch that the checkpoint has begun begins again. Where a scheduler follows the metrics,
    mmengine restores all of them instead.

    Args:
        runner: of the run, its loop, optimizers and schedulers just built.
        checkpoint: what the run resumes from, changed in place: the scheduled values in
            `optimizer`, and `meta['iter']`, which counts the iterations of this run;
            `param_schedulers` is removed, so that mmengine leaves the schedulers as they are.

    Raises:
        ValueError: if a scheduler follows the metrics, and the run has other schedulers or epochs
            of another length than the checkpoint, or that has no state of the optimizer.
    """
    loop, meta = runner.train_loop, checkpoint['meta']
    length = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else None
    saved_at, start = meta['iter'], meta['epoch'] * length if length else meta['iter']
    schedulers = _listed(runner.param_schedulers)
    saved = _listed(checkpoint.get('param_schedulers'))
    states = [scheduler.state_dict() for scheduler in schedulers]
    changed = [*map(_settings, states)] != [*map(_settings, saved)]
    follows = any(getattr(scheduler, 'need_val_args', False) for scheduler in schedulers)
    if follows:
        moved = start != saved_at and not all(scheduler.by_epoch for scheduler in schedulers)
        if moved or changed or 'optimizer' not in checkpoint:
            raise ValueError(
                'a scheduler that follows the metrics, such as ReduceOnPlateauLR, can only go on '
                "with the optimizer's state, the batch, the number of processes and the "
                f'param_scheduler of the checkpoint, which was saved at iteration {saved_at} after '
                f'{meta["epoch"]} epochs; an epoch of this run has {len(loop.dataloader)}'
            )
    meta['iter'] = start
    if start != saved_at:
        runner.logger.warning(
            f'the checkpoint was saved at iteration {saved_at}, after {meta["epoch"]} epochs; this '
            f'run goes on at iteration {start} of {loop.max_iters}, with epochs of {length}'
        )
    if follows:
        return
    if 'optimizer' not in checkpoint:
        runner.logger.warning(
            'the checkpoint holds no state of the optimizer, such as its momentum: it begins anew'
        )
    _step(schedulers, start, length)
    checkpoint.pop('param_schedulers', None)
    # With their initial, largest and smallest values; 'betas' hold the momentum of Adam.
    names = {'lr', 'momentum', 'betas', *(state['param_name'] for state in (*states, *saved))}
    others = _set_values(runner.optim_wrapper, checkpoint.get('optimizer', {}), tuple(names))
    if changed or (others and start == saved_at):
        rates = [f'{name} {rate[0]:.3g}' for name, rate in runner.optim_wrapper.get_lr().items()]
        runner.logger.warning(
            'optim_wrapper and param_scheduler give other learning rates or momenta than those of '
            f'the checkpoint: the run goes on with its own, now {", ".join(rates)}'
        )


def _listed(schedulers):
    """Schedulers or their states, of one optimizer or by the names of several, in one list."""
    if isinstance(schedulers, dict):
        return [each for group in schedulers.values() for each in group]
    return schedulers or []


def _settings(state):
    return {key: value for key, value in state.items() if key not in PROGRESS}


def _step(schedulers, start, length):
    """Step schedulers as `start` iterations do, in epochs of `length`, None without epochs."""
    # In the order of mmengine's ParamSchedulerHook: the products are then the same to the last bit.
    schedulers = sorted(schedulers, key=lambda scheduler: scheduler.by_epoch)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that the optimizer takes no steps in between
        for step in range(1, start + 1):
            for scheduler in schedulers:
                if not scheduler.by_epoch or (length and step % length == 0):
                    scheduler.step()


def _set_values(wrapper, state, names):
    """Set the values in the state of optimizers whose keys end in `names` to what they are now.

    Returns:
        Whether one of them was another.
    """
    if isinstance(wrapper, OptimWrapperDict):
        changed = [_set_values(each, state.get(name), names) for name, each in wrapper.items()]
        return any(changed)  # after all of them are set
    changed = False
    if state:
        groups = [*state['param_groups'], state.get('base_param_settings') or {}]
        for group, now in zip(groups, wrapper.param_groups, strict=False):
            values = {key: value for key, value in now.items() if key.endswith(names)}
            changed |= any(key in group and group[key] != value for key, value in values.items())
            group.update(values)
    return changed
