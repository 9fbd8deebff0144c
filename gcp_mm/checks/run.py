"""All checks of a config, in their order."""

from collections.abc import Callable, Iterator
from functools import cache, partial

from mmengine.config import Config
from mmengine.registry import DefaultScope

from .batch import check_batch, processes
from .checkpoints import check_checkpoints, load_checkpoints
from .classes import check_classes
from .data import check_data
from .disk import check_disk
from .evaluation import check_evaluation
from .finding import Finding, errors_in, warnings_in
from .head import check_head
from .keys import check_keys
from .memory import check_memory
from .network import IMAGES, Trial
from .packages import check_packages
from .sample import random_batch, real_batch
from .schedule import check_schedule
from .tree import name_of


def check_run(cfg: Config, split: str) -> list[str]:
    """Check all of a config that takes no building, before any file is written.

    Args:
        cfg: the final config, command-line options merged.
        split: 'train', which also validates, or 'test'.

    Returns:
        Warnings, for the log.

    Raises:
        FileNotFoundError: for an absent checkpoint, annotation file or image folder.
        ImportError: for a package that does not load.
        ValueError: for an empty file or folder, keys that are wrong (all of them, one a line), a
            head whose `in_channels` is not what the GCP neck before it gives, or whose classes are
            not those of the data, or an evaluation of other images or labels than are meant.
    """
    warnings = []
    for _, check in fast_checks(cfg, split, processes(cfg.get('launcher', 'none'))):
        findings = check()
        if errors_in(findings):
            raise ValueError('\n'.join(errors_in(findings)))
        warnings += warnings_in(findings)
    return warnings


def fast_checks(
    cfg: Config, split: str, gpus: int
) -> Iterator[tuple[str, Callable[[], list[Finding]]]]:
    """The checks that :func:`check_run` makes: name, and function.

    Args:
        cfg: the final config.
        split: 'train' or 'test'.
        gpus: processes of the run.
    """
    yield 'packages', partial(check_packages, cfg)
    keys = cache(partial(check_keys, cfg, split))  # the head's check wants to know too
    yield 'keys', keys
    yield 'head', partial(_scoped, cfg, partial(_head, cfg, keys))
    yield 'checkpoints', partial(check_checkpoints, cfg, split)
    yield 'data', partial(check_data, cfg, split)
    yield 'classes', partial(check_classes, cfg, split)
    yield 'evaluation', partial(check_evaluation, cfg, split)
    if split == 'train':
        yield 'schedule', partial(_scoped, cfg, partial(check_schedule, cfg))
        yield 'batch', partial(check_batch, cfg, gpus)


def all_checks(
    cfg: Config, gpus: int, trust: bool = False
) -> Iterator[tuple[str, Callable[[], list[Finding]]]]:
    """The fast checks of a training, and those that build its network and try it.

    Args:
        cfg: the final config.
        gpus: processes of the run.
        trust: read checkpoints that hold Python objects, which executes what is in them.

    Yields:
        Name of the check, and the function that makes it. To be called in this order.
    """
    yield from fast_checks(cfg, 'train', gpus)
    trial = Trial()
    yield 'network', partial(_scoped, cfg, partial(trial.build, cfg))
    yield 'trunk', partial(_scoped, cfg, partial(_load, cfg, trial, trust))
    yield 'loss', partial(_scoped, cfg, partial(_step, cfg, trial))
    yield 'memory', partial(_scoped, cfg, partial(_memory, cfg, trial))
    yield 'disk', partial(_scoped, cfg, partial(_disk, cfg, trial))


def run_check(check: Callable[[], list[Finding]]) -> list[Finding]:
    """Make a check; what it raises becomes an error, so that the next can be made."""
    try:
        return check()
    except Exception as error:  # a network raises whatever it likes
        return [Finding('error', f'{type(error).__name__}: {error}')]


def _head(cfg, keys):
    if any(text.startswith('model.neck') for text in errors_in(keys())):
        return [Finding('skipped', 'the keys of the neck are not right')]
    text = check_head(cfg.model)
    return [Finding('ok', text) if text else Finding('skipped', 'the model has no GCP neck')]


def _scoped(cfg, check):
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        return check()


NO_NETWORK = [Finding('skipped', 'there is no network to try')]


def _load(cfg, trial, trust):
    if trial.model is None:
        return NO_NETWORK
    try:
        check_checkpoints(cfg, 'train')
    except (FileNotFoundError, TypeError, ValueError):  # told by the check of the checkpoints
        return [Finding('skipped', 'the checkpoints cannot all be read')]
    return load_checkpoints(trial.model, trial.pretrained, cfg.get('load_from'), trust)


def _step(cfg, trial):
    if trial.model is None:
        return NO_NETWORK
    try:
        check_data(cfg, 'train')
    except (FileNotFoundError, ValueError):  # told by the check of the data
        if cfg.get('default_scope') != 'mmdet' and name_of(cfg.model) != 'ImageClassifier':
            return [Finding('skipped', f'no random data are made for {name_of(cfg.model)}')]
        return trial.step(random_batch(cfg, IMAGES), f'{IMAGES} random images')
    return trial.step(real_batch(cfg, IMAGES), f'{IMAGES} images of train_dataloader')


def _memory(cfg, trial):
    if trial.saved is None:
        return [Finding('skipped', 'there was no training step to measure')]
    return check_memory(cfg, trial.model, trial.saved, trial.images)


def _disk(cfg, trial):
    return check_disk(cfg, trial.model) if trial.model is not None else NO_NETWORK
