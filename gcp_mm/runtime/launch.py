"""From a command line to a Runner, for both frameworks and with or without an accelerator."""

import gc
import os
import os.path as osp
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import torch.distributed as dist
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .. import hub
from ..checkpoints import use_in_mmengine
from ..checks.dataloaders import build_dataloader
from ..compat.requirements import versions

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def add_config_arguments(parser: ArgumentParser) -> None:
    """Add the arguments :func:`read_config` takes: `config` and `--cfg-options`."""
    parser.add_argument(
        'config',
        help='config file, of a classifier or of a detector, or the name of one that comes with '
        'their framework, such as mmpretrain::resnet/resnet152_8xb32_in1k.py',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='override settings of the config: key=value, lists as key="[a,b]" without blanks; '
        'for a list of dicts write a config',
    )


def add_trust_argument(parser: ArgumentParser) -> None:
    """Add the argument `--trust` of whatever reads a checkpoint."""
    parser.add_argument(
        '--trust',
        action='store_true',
        help='read checkpoints that hold Python objects, which executes what is in them',
    )


def read_config(args: Namespace) -> Config:
    """Read the config that the arguments of :func:`add_config_arguments` name and alter.

    From here on mmengine reads files without running code, unless `args.trust` says so, see
    :func:`gcp_mm.checkpoints.use_in_mmengine`.

    Raises:
        ValueError: for a config of a package other than the two frameworks, which mmengine would
            try to install.
    """
    use_in_mmengine(getattr(args, 'trust', False))
    cfg = hub.resolve_config(args.config)
    cfg.merge_from_dict(args.cfg_options)
    return cfg


def add_common_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that training and testing share, as MMPretrain and MMDetection have them.

    Args:
        parser: gets `config`, `--work-dir`, `--trust`, `--amp`, `--cfg-options`, `--launcher` and
            `--local-rank`.
    """
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    add_trust_argument(parser)
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='of jobs'
    )
    # torch.distributed.launch passes this; torchrun sets the environment variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(args: Namespace) -> Config:
    """Read the config and merge the common arguments into it.

    Args:
        args: what :func:`add_common_arguments` parsed.

    Returns:
        The config, with `launcher`, `work_dir` (by default ``work_dirs/<name of the config>``)
        and dataloaders that suit this machine.

    Raises:
        ValueError: if `--amp` is asked for without an accelerator.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.amp and get_device() == 'cpu':
        raise ValueError('--amp needs an accelerator, and PyTorch finds none; leave it out')
    cfg = read_config(args)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    for name in DATALOADERS:
        if cfg.get(name):
            _complete_dataloader(cfg[name], cfg.get('default_scope'))
    return cfg


def set_auto_scale_lr(cfg: Config) -> None:
    """Turn on the scaling of the learning rate by the ratio of the actual to the base batch size.

    Args:
        cfg: config, changed in place.

    Raises:
        ValueError: if it does not say what the base batch size is.
    """
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise ValueError(
            '--auto-scale-lr: the config does not say for which batch size its learning rate '
            'is; set auto_scale_lr = dict(base_batch_size=...)'
        )
    cfg.auto_scale_lr.enable = True


def launch(cfg: Config, run: Callable[[Runner], object]) -> object:
    """Build the Runner of a config and use it, in every process of a distributed job.

    Without an accelerator the processes talk over gloo: mmengine's own set-up of a distributed
    run selects a CUDA device and so fails there. As with an accelerator,
    `cfg.env_cfg.dist_cfg.timeout` is for how many seconds they wait for one of them that hangs.

    Args:
        cfg: the final config.
        run: what to do with the Runner.

    Returns:
        What `run` returns.

    Raises:
        ValueError: if a launcher other than 'pytorch' is asked for without an accelerator; for
            what :func:`.build_dataloader` refuses.
    """
    if cfg.launcher != 'none' and get_device() == 'cpu':
        if cfg.launcher != 'pytorch':
            raise ValueError(
                f'launcher={cfg.launcher!r} needs accelerators, and PyTorch finds none; without '
                "them launch with 'pytorch', as tools/dist_train.sh does"
            )
        timeout = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
        waiting = dict(timeout=timedelta(seconds=timeout)) if timeout else {}
        dist.init_process_group('gloo', **waiting)
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,  # not left out: mmengine would fill in the local rank
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    try:
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        runner.logger.info(versions())
        runner.build_dataloader = partial(build_dataloader, runner.build_dataloader)
        return run(runner)
    finally:
        if dist.is_initialized():
            # The group goes, and joins its threads, with the last reference to it, and the model's
            # wrapper holds one. Left to the end of the interpreter, its threads abort the process.
            runner = None
            gc.collect()
            dist.destroy_process_group()


def _complete_dataloader(dataloader, scope):
    """Settings that MMPretrain's own scripts add to its configs, where they can take effect."""
    if scope == 'mmpretrain':
        dataloader.setdefault('collate_fn', dict(type='default_collate'))
        dataloader.setdefault('pin_memory', get_device() != 'cpu')
        dataloader.setdefault('persistent_workers', True)
    if dataloader.get('num_workers', 0) == 0:
        dataloader.persistent_workers = False
