"""The disk has room for the checkpoints."""

import shutil
from math import ceil
from pathlib import Path

from mmengine.config import Config
from torch import nn

from ..checkpoints import checkpoint_location
from .finding import Finding
from .memory import GIB, bytes_of, optimizer_bytes
from .tree import name_of


def check_disk(cfg: Config, model: nn.Module) -> list[Finding]:
    """Compare the checkpoints of a training with the free space of the disk they go to.

    Args:
        cfg: the final config.
        model: its network, or what is in its place before that is built.

    Raises:
        ValueError: if two checkpoints do not fit, one and the next before it replaces that.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint', {})
    folder, template = checkpoint_location(cfg)
    if hook is None or '://' in folder:
        return [Finding('skipped', 'no checkpoint goes to a local disk')]
    if not isinstance(model, nn.Module):  # FlexibleRunner builds it when it trains
        return [Finding('skipped', 'the network is not built yet')]
    number = checkpoints_kept(cfg, hook)
    if number is None:
        return [Finding('skipped', 'how many checkpoints there will be is not known')]
    size, note = checkpoint_bytes(cfg, hook, model)
    there = existing_parent(folder)
    names = (template.format('*'), 'best_*.pth')
    written = sum(path.stat().st_size for name in names for path in Path(folder).glob(name))
    free = shutil.disk_usage(there).free
    text = (
        f'{number} checkpoints of about {size / GIB:.2f} GiB at once{note}, and '
        f'{free / GIB:.2f} GiB are free on the disk of {there}'
    )
    if free + written < min(number, 2) * size:
        raise ValueError(f'{text}: make room, or set work_dir to a folder of another disk')
    if free + written < number * size:
        return [
            Finding(
                'warning',
                f'{text}: make room, set work_dir to a folder of another disk, or '
                'default_hooks.checkpoint.max_keep_ckpts=1',
            )
        ]
    return [Finding('ok', text)]


def checkpoint_bytes(cfg: Config, hook: dict, model: nn.Module) -> tuple[float, str]:
    """About the size of one checkpoint, and what is not in it, see :func:`optimizer_bytes`."""
    weights = bytes_of(model.state_dict().values())
    copies = 1 + any(name_of(each) == 'EMAHook' for each in cfg.get('custom_hooks') or ())
    if not hook.get('save_optimizer', True):
        return copies * weights, ''
    states, note = optimizer_bytes(cfg, model)
    return copies * weights + states, note


def checkpoints_kept(cfg: Config, hook: dict) -> int | None:
    """The most checkpoints there are at once, or None if the length of the training is unknown.

    A new one is written before the one that it replaces is removed.
    """
    by_epoch = hook.get('by_epoch', True)
    length = cfg.train_cfg.get('max_epochs' if by_epoch else 'max_iters')
    kept = hook.get('max_keep_ckpts', -1)
    if length is None and kept < 1:
        return None
    interval = hook.get('interval', 1 if not hook else -1)
    written = ceil(length / interval) if length and interval > 0 else 1
    if length is not None:
        kept = min(kept + 1, written) if kept > 0 else written
    best = hook.get('save_best') or []
    return kept + (1 if isinstance(best, str) else len(best))


def existing_parent(folder: str) -> Path:
    """The nearest folder above `folder`, or itself, that is there."""
    path = Path(folder)
    while not path.exists():
        path = path.parent
    return path
