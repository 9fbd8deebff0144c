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


def find_checkpoint(
    work_dir: str | Path, folder: str | Path | None = None, template: str = 'epoch_{}.pth'
) -> str | None:
    """The newest intact checkpoint of a run, by :func:`check_intact`.

    That is the one that the file `last_checkpoint` names or, with a warning, the newest intact one
    before it. A later one is taken only if it was saved after that one: by this run, which ended
    before it could name it, and not by an earlier one. Without that file all are considered.

    Args:
        work_dir: of the run, where `last_checkpoint` is.
        folder: folder of the checkpoints, by default the work dir. A file there goes before one of
            the same name at the path in `last_checkpoint`: the run may have been moved or copied.
        template: name of a checkpoint, '{}' for its number; the best (`best_*`) have others.

    Returns:
        Its path, or None if there is no checkpoint at all.

    Raises:
        ValueError: if there are some, and none is intact.
    """
    folder = Path(folder or work_dir)
    numbers = numbered_checkpoints(folder, template)
    candidates = sorted(numbers, key=numbers.get, reverse=True)
    named = find_latest_checkpoint(str(work_dir))
    if named:
        latest = folder / Path(named).name
        latest = latest if latest.exists() else Path(named)
        number = checkpoint_number(latest, template)
        later = [] if number is None else [path for path in candidates if numbers[path] > number]
        candidates = [
            *_saved_after(latest, later),
            *(latest, *(path for path in candidates if numbers[path] < (number or 0))),
        ]
    elif Path(work_dir, 'last_checkpoint').exists():  # a kill while mmengine wrote it
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
            f'--resume: no checkpoint of {str(work_dir)!r} can be used: {"; ".join(reasons)}. To '
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
        folder, template = checkpoint_location(cfg)
        if '://' in folder:
            resume = find_latest_checkpoint(cfg.work_dir)
        else:
            resume = find_checkpoint(cfg.work_dir, folder, template)
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
    whole, with the lengths of the old run: with another batch or number of processes, a schedule
    by iterations would end before or after the training.

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
    """Let the schedule of a run go on at the epoch of its checkpoint, with the run's own lengths.

    Where the schedulers of the checkpoint are not those of the run (another number of iterations
    an epoch, another end or base value) or cannot be restored, the run's own are stepped to the
    place in the training. An epoch that the checkpoint has begun begins again.

    Args:
        runner: of the run, its loop, optimizer and schedulers just built.
        checkpoint: what the run resumes from, changed in place: `param_schedulers`, the scheduled
            values in `optimizer`, and `meta['iter']`, which counts the iterations of this run.

    Raises:
        ValueError: if a scheduler needs the metrics of the past epochs, which are not known; for
            several optimizers (OptimWrapperDict), if epochs have another length.
    """
    loop, meta = runner.train_loop, checkpoint['meta']
    by_epoch, length = isinstance(loop, EpochBasedTrainLoop), len(loop.dataloader)
    saved_at, start = meta['iter'], meta['epoch'] * length if by_epoch else meta['iter']
    meta['iter'] = start
    reasons = list(_changes(checkpoint, length if by_epoch else None, start != saved_at))
    if isinstance(runner.optim_wrapper, OptimWrapperDict):
        _keep_schedules(runner, reasons)
        return
    schedulers, saved = runner.param_schedulers or [], checkpoint.get('param_schedulers') or []
    moved = start != saved_at and not all(scheduler.by_epoch for scheduler in schedulers)
    settings = [_settings(scheduler.state_dict()) for scheduler in schedulers]
    own_rates = not schedulers and _set_values(
        runner.optim_wrapper, checkpoint.get('optimizer'), ('lr',)
    )
    if own_rates:
        reasons.append('another learning rate')
    if settings != [*map(_settings, saved)] or moved or 'optimizer' not in checkpoint:
        if any(getattr(scheduler, 'need_val_args', False) for scheduler in schedulers):
            raise ValueError(
                'a scheduler that follows the metrics, such as ReduceOnPlateauLR, can only go on '
                'with the batch, the number of processes and the param_scheduler of the '
                f'checkpoint, which was saved at iteration {saved_at} after {meta["epoch"]} '
                f'epochs; an epoch of this run has {length}'
            )
        _step(schedulers, start, length if by_epoch else None)
        states = [scheduler.state_dict() for scheduler in schedulers]
        if 'param_schedulers' in checkpoint:
            checkpoint['param_schedulers'] = states
        # With their initial, largest and smallest values; 'betas' hold the momentum of Adam.
        names = {state['param_name'] for state in (*states, *saved)}
        _set_values(runner.optim_wrapper, checkpoint.get('optimizer'), (*names, 'betas'))
        reasons = reasons or ['another param_scheduler']
        own_rates = True
    if reasons:
        rates = runner.optim_wrapper.get_lr().items() if own_rates else ()
        runner.logger.warning(
            f'the run differs from that of the checkpoint: {"; ".join(reasons)}. '
            f'Saved at iteration {saved_at}, after {meta["epoch"]} epochs, it goes on at iteration '
            f'{start} of {loop.max_iters}'
            f'{"".join(f", with {name} {rate[0]:.3g}" for name, rate in rates)}'
        )


def _keep_schedules(runner, reasons):
    """Let mmengine restore the schedules of several optimizers, unless `reasons` say they moved."""
    if reasons:
        raise ValueError(
            f'a run with several optimizers (OptimWrapperDict) cannot go on with {reasons[0]}: '
            "resume it from a checkpoint of the end of an epoch with the optimizers' state, with "
            'the same batch_size and number of processes'
        )
    runner.logger.warning(
        'several optimizers (OptimWrapperDict) go on with the learning rates and the '
        'param_scheduler of the checkpoint, not with those of the config'
    )


def _step(schedulers, start, length):
    """Step schedulers as `start` iterations do, in epochs of `length`, None without epochs."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that the optimizer takes no steps in between
        for step in range(1, start + 1):
            for scheduler in schedulers:
                if not scheduler.by_epoch or (length and step % length == 0):
                    scheduler.step()


def _changes(checkpoint, length, moved):
    """In words, what a run has other than that of its checkpoint, its schedulers apart.

    `length` is the number of iterations of an epoch, None in a training without; `moved` says
    whether the run goes on at another iteration than the checkpoint was saved at.
    """
    info = checkpoint.get('message_hub', {}).get('runtime_info', {})
    epochs, iterations = info.get('max_epochs'), info.get('max_iters')
    old_length = iterations // epochs if epochs and iterations else length
    if length and length != old_length:
        yield f'{length} iterations an epoch instead of {old_length}'
    elif length and moved:
        yield f'saved within epoch {checkpoint["meta"]["epoch"] + 1}, which begins again'
    if 'optimizer' not in checkpoint:
        yield 'no state of the optimizer in the checkpoint'


def _settings(state):
    return {key: value for key, value in state.items() if key not in PROGRESS}


def _set_values(wrapper, state, names):
    """Set the values in an optimizer's state whose keys end in `names` to what they are now.

    Returns:
        Whether one of them was another.
    """
    if state is None:
        return False
    groups = [*state['param_groups'], state.get('base_param_settings') or {}]
    changed = False
    for group, now in zip(groups, wrapper.param_groups, strict=False):
        values = {key: value for key, value in now.items() if key.endswith(names)}
        changed |= any(key in group and group[key] != value for key, value in values.items())
        group.update(values)
    return changed
