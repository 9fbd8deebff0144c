"""What a run finds on its machine: packages that fit, cores, and the folder it writes to."""

import os
from importlib import import_module
from importlib.metadata import version

import numpy as np
import torch
from mmengine.device import get_device

from ..checkpoints import checkpoint_location, numbered_checkpoints
from ..compat.packages import FAMILIES, installed_family, unmet_requirements, versions
from .context import Context, Finding


def check_packages(context: Context) -> list[Finding]:
    """Compare the installed versions, and import what the framework of a config is made of.

    A run imports all of it too, with an error that does not say what to do.
    """
    texts = [numpy_error(), *(import_error(*each) for each in _needed(context.scope))]
    errors = [Finding('packages', 'error', text) for text in texts if text]
    warnings = [Finding('packages', 'warning', text) for text in unmet_requirements()]
    return [*errors, *warnings] if errors else [*warnings, Finding('packages', 'ok', versions())]


def _needed(scope):
    """Modules that a framework needs, each with what to do if it does not load."""
    if scope not in ('mmpretrain', 'mmdet'):
        return
    yield (
        'torchvision',
        f'it has to be the one for torch {torch.__version__}: pip install --force-reinstall torch '
        'torchvision, both from one place',
    )
    install = f'pip install "gcp_mm[{installed_family()}]"'
    yield 'mmpretrain', install
    if scope == 'mmdet':
        names = [name for family in FAMILIES.values() for name in family['mmcv']]
        yield (
            'mmcv.ops',
            'its compiled operators are for another PyTorch: install those for this one, or pip '
            f'uninstall {" ".join(names)} and {install} without compiled operators; gcp_mm then '
            'uses those of torchvision',
        )
        yield 'mmdet', install


def import_error(module: str, remedy: str) -> str:
    """Import a module; returns why it cannot be imported and what to do, '' if it can."""
    try:
        import_module(module)
    except Exception as error:  # RuntimeError, AssertionError, OSError: whatever is broken in it
        return f'{module} cannot be imported ({type(error).__name__}: {error}); {remedy}'
    return ''


def numpy_error() -> str:
    """Why PyTorch does not work with the installed numpy and what to do, '' if it does."""
    try:
        torch.from_numpy(np.zeros(1))
    except RuntimeError as error:
        numpy = version('numpy')
        return (
            f'torch {torch.__version__} does not work with numpy {numpy} ({error}): pip install '
            '"numpy<2"'
        )
    return ''


def check_cores(context: Context) -> list[Finding]:
    """Compare processes and their threads with the cores of the CPU."""
    if get_device() != 'cpu':
        return [Finding('cores', 'skipped', 'an accelerator computes')]
    processes, threads = int(os.environ.get('LOCAL_WORLD_SIZE', 1)), torch.get_num_threads()
    if context.processes > 1 and 'LOCAL_WORLD_SIZE' not in os.environ:
        text = 'the processes are not launched yet, and may have accelerators'
        return [Finding('cores', 'skipped', text)]
    cores = number_of_cores()
    share = cores // processes
    made = f'{processes} process{"es" if processes > 1 else ""} x '
    made += f'{threads} thread{"s" if threads > 1 else ""}'
    if processes * threads > cores:
        remedy = f'set OMP_NUM_THREADS={share}' if share else f'run at most {cores} processes'
        text = f'{made} compute on {cores} cores of the CPU, and wait for each other: {remedy}'
        return [Finding('cores', 'warning', text)]
    return [Finding('cores', 'ok', f'{made} on {cores} cores')]


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
