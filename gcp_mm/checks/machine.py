"""The cores that a run computes on, and the folder that it writes to."""

import os

import torch
from mmengine.device import get_device

from ..checkpoints import checkpoint_location, numbered_checkpoints
from .context import Context, Finding, splits_of


def check_cores(context: Context) -> list[Finding]:
    """Compare processes, their threads and their dataloaders' workers with the cores of the CPU."""
    if get_device() != 'cpu':
        return [Finding('cores', 'skipped', 'an accelerator computes')]
    processes, threads = int(os.environ.get('LOCAL_WORLD_SIZE', 1)), torch.get_num_threads()
    if context.processes > 1 and 'LOCAL_WORLD_SIZE' not in os.environ:
        text = 'the processes are not launched yet, and may have accelerators'
        return [Finding('cores', 'skipped', text)]
    cores = number_of_cores()
    name = f'{splits_of(context)[0]}_dataloader'
    workers = (context.cfg.get(name) or {}).get('num_workers', 0)
    share = cores // processes
    made = f'{processes} process{"es" if processes > 1 else ""} x '
    made += f'{threads} thread{"s" if threads > 1 else ""}'
    if processes * threads > cores:
        remedy = f'set OMP_NUM_THREADS={share}' if share else f'run at most {cores} processes'
        text = f'{made} compute on {cores} cores of the CPU, and wait for each other: {remedy}'
        return [Finding('cores', 'warning', text)]
    # Workers wait much of the time: as many again as there are cores do no harm.
    if workers > share and processes * (threads + workers) > 2 * cores:
        text = (
            f'{name}.num_workers={workers}: {made}, each with {workers} workers, run on {cores} '
            f'cores of the CPU, and wait for each other: set {name}.num_workers={share}'
        )
        return [Finding('cores', 'warning', text)]
    return [Finding('cores', 'ok', f'{made}, num_workers={workers}, on {cores} cores')]


def number_of_cores() -> int:
    """Number of cores of the CPU that this process may run on."""
    if hasattr(os, 'sched_getaffinity'):  # as a job on a cluster may have fewer than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_work_dir(context: Context) -> list[Finding]:
    """Look for checkpoints of another training, where this one begins anew."""
    cfg = context.cfg
    if cfg.get('resume') or not cfg.get('work_dir'):
        return [Finding('work_dir', 'skipped', 'the run goes on with one before, or has no folder')]
    folder, template = checkpoint_location(cfg)
    found = {} if '://' in folder else numbered_checkpoints(folder, template)
    if not found:
        return [Finding('work_dir', 'ok', f'no earlier checkpoint is in {folder}')]
    newest = max(found, key=found.get)
    text = (
        f'work_dir: {folder!r} holds another training, up to {newest.name}. '
        'This one will write over its checkpoints: continue it with --resume, or name another '
        'folder with --work-dir'
    )
    return [Finding('work_dir', 'warning', text)]
