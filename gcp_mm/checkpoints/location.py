"""Where a run's checkpoints are."""

import os.path as osp
import re
from pathlib import Path

from mmengine.config import Config


def checkpoint_location(cfg: Config) -> tuple[str, str]:
    """Folder and file name template of the checkpoints that a config's CheckpointHook writes.

    Args:
        cfg: the final config, with `work_dir`.

    Returns:
        The folder, possibly an address such as 's3://...', and the template: '{}' is the number.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    kind = 'epoch' if hook.get('by_epoch', True) else 'iter'
    folder = str(hook.get('out_dir') or cfg.work_dir)
    if folder != cfg.work_dir:  # as the hook has it
        folder = osp.join(folder, osp.basename(cfg.work_dir.rstrip(osp.sep)))
    return folder, hook.get('filename_tmpl') or f'{kind}_{{}}.pth'


def checkpoint_number(path: str | Path, template: str) -> int | None:
    """Number of a checkpoint: the '{}' of the template. None if the name does not match it."""
    pattern = r'(\d+)'.join(re.escape(part) for part in template.split('{}'))
    match = re.fullmatch(pattern, Path(path).name)
    return int(match[1]) if match else None


def numbered_checkpoints(folder: str | Path, template: str) -> dict[Path, int]:
    """Checkpoints in a folder whose names match a template, with their numbers."""
    numbers = {path: checkpoint_number(path, template) for path in Path(folder).glob('*')}
    return {path: number for path, number in numbers.items() if number is not None}
