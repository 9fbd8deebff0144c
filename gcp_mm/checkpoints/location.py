"""Where a run's checkpoints are."""

import os.path as osp

from mmengine.config import Config


def checkpoint_location(cfg: Config) -> tuple[str, str]:
    """Folder and name of the checkpoints that a config's CheckpointHook writes.

    Args:
        cfg: the final config, with `work_dir`.

    Returns:
        The folder, which may be an address such as 's3://...', and the name, '{}' for its number.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    kind = 'epoch' if hook.get('by_epoch', True) else 'iter'
    folder = str(hook.get('out_dir') or cfg.work_dir)
    if folder != cfg.work_dir:  # as the hook has it
        folder = osp.join(folder, osp.basename(cfg.work_dir.rstrip(osp.sep)))
    return folder, hook.get('filename_tmpl') or f'{kind}_{{}}.pth'
