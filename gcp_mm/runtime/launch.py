"""From a config to a Runner, for both frameworks and with or without an accelerator."""

import gc
import os.path as osp
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from torch.nn.parallel import DistributedDataParallel

from .. import hub
from .._lock import locked
from ..checks import build_dataloader
from ..checks.context import Opened, is_first_process, walk
from ..checks.keys import check_options, class_of
from .resume import LoadingHook
from .summary import QuietRunner, SummaryHook

# What MMDetection has to know of an image to merge its predictions
META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip')
META_KEYS += ('flip_direction',)
DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def read_config(path: str, options: Mapping | None = None) -> Config:
    """Read a config and override settings of it.

    Args:
        path: path of the file, name of one of this project's configs, or a name such as
            'mmpretrain::resnet/resnet50_8xb32_in1k.py'.
        options: values by dotted key, as `--cfg-options` has them.

    Raises:
        ValueError: for a config of another package than gcp_mm, mmpretrain and mmdet. mmengine
            would try to install it. For options that would change nothing.
    """
    cfg = hub.resolve_config(path)
    check_options(cfg, options or {})
    cfg.merge_from_dict(dict(options or {}))
    return cfg


def load_config(
    path: str,
    options: Mapping | None = None,
    *,
    work_dir: str | None = None,
    amp: bool = False,
    launcher: str = 'none',
) -> Config:
    """Read the config of a run.

    Args:
        path, options: as in :func:`read_config`.
        work_dir: folder for logs and checkpoints; by default the config's, or
            ``work_dirs/<name of the config>``.
        amp: train and test in automatic mixed precision.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        The config, with `launcher`, `work_dir` and dataloaders that suit this machine.

    Raises:
        ValueError: if `amp` is set and there is no accelerator; for another `runner_type` than
            'Runner'; as :func:`read_config`.
    """
    if amp and get_device() == 'cpu':
        raise ValueError('--amp needs an accelerator, and PyTorch finds none; leave it out')
    cfg = read_config(path, options)
    if cfg.get('runner_type', 'Runner') not in ('Runner', Runner):
        raise ValueError(
            f"runner_type={cfg.runner_type!r}: only 'Runner' is supported; leave it out"
        )
    cfg.launcher = launcher
    if work_dir or not cfg.get('work_dir'):
        cfg.work_dir = work_dir or osp.join('work_dirs', osp.splitext(osp.basename(path))[0])
    for name in DATALOADERS:
        if cfg.get(name):
            _complete_dataloader(cfg[name], cfg.get('default_scope'))
    if amp:
        if cfg.get('optim_wrapper'):
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
            cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
        if cfg.get('test_cfg') is not None:
            cfg.test_cfg.fp16 = True
    return cfg


def set_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the ratio of the actual to the base batch size.

    Args:
        cfg: config, changed in place.

    Raises:
        ValueError: if the config has no `auto_scale_lr.base_batch_size`.
    """
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise ValueError(
            '--auto-scale-lr: the config does not say for which batch size its learning rate '
            'is; set auto_scale_lr = dict(base_batch_size=...)'
        )
    cfg.auto_scale_lr.enable = True


def set_tta(cfg: Config) -> None:
    """Set up test-time augmentation, as the frameworks' own scripts do.

    Args:
        cfg: config, changed in place. It uses the config's `tta_model` and `tta_pipeline`, or by
            default each image and its mirror image.

    Raises:
        ValueError: for a detector with masks, whose predictions MMDetection cannot merge.
    """
    if cfg.model.get('module'):  # the config says it all
        return
    kind, pack = dict(type='AverageClsScoreTTA'), {}
    if cfg.get('default_scope') == 'mmdet':
        if 'tta_model' not in cfg and any(n.get('mask_head') for _, n in walk(cfg.model)):
            raise ValueError(
                '--tta: DetTTAModel merges boxes and no masks, and the model has a mask_head; test '
                'without --tta, or set tta_model'
            )
        nms = dict(type='nms', iou_threshold=0.5)
        kind = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
        pack = dict(meta_keys=META_KEYS)
    cfg.model = ConfigDict(**cfg.get('tta_model', kind), module=cfg.model)
    for dataset in [node for _, node in walk(cfg.test_dataloader) if node.get('pipeline')]:
        *steps, last = dataset.pipeline
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        step = dict(type='TestTimeAug', transforms=[flips, [{**last, **pack}]])
        dataset.pipeline = cfg.get('tta_pipeline') or [*steps, step]


def only_job(cfg: Config, output: str | Path, folder: bool = False) -> AbstractContextManager:
    """Context manager that locks an output against other jobs, in the first process of a run.

    Args:
        cfg: the final config.
        output, folder: as in :func:`gcp_mm._lock.locked`.

    Raises:
        BlockingIOError: on entry, in the first process, if another job writes the output.
    """
    return locked(output, folder) if is_first_process(cfg) else nullcontext()


def launch(
    cfg: Config,
    run: Callable[[Runner], object],
    loaded: list[Opened] | None = None,
) -> object:
    """Build the Runner of a config and call `run` with it, in every process of a run.

    Without an accelerator the processes communicate over gloo, because mmengine's set-up of a
    distributed run selects a CUDA device. `cfg.env_cfg.dist_cfg.timeout` is the number of seconds
    that processes wait for one that hangs. Before the first epoch, the screen shows a summary,
    warnings and errors; the rest of mmengine's messages go only to the log file.

    Args:
        cfg: the final config, of :func:`load_config`.
        run: function of the Runner, such as one that trains.
        loaded: of :func:`gcp_mm.checks.run_checks`: datasets whose lists are not read again.

    Returns:
        The result of `run`.

    Raises:
        ValueError: if the launcher needs an accelerator (all but 'none' and 'pytorch'), or the
            wrapper of the network does, and there is none; as :func:`.build_dataloader` and
            :class:`.LoadingHook`.
    """
    if cfg.launcher != 'none' and get_device() == 'cpu':
        if cfg.launcher != 'pytorch':
            raise ValueError(
                f'launcher={cfg.launcher!r} needs accelerators, and PyTorch finds none; without '
                "them launch with 'pytorch', as tools/dist_train.sh does"
            )
        wrapper = {'type': 'MMDistributedDataParallel', **(cfg.get('model_wrapper_cfg') or {})}
        found = class_of(wrapper['type'], MODEL_WRAPPERS)
        if not issubclass(found or object, DistributedDataParallel):
            raise ValueError(
                f'model_wrapper_cfg.type={wrapper["type"]!r}: on CPUs the network is wrapped by '
                'MMDistributedDataParallel; leave it out'
            )
        timeout = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
        waiting = dict(timeout=timedelta(seconds=timeout)) if timeout else {}
        dist.init_process_group('gloo', **waiting)
        cfg.model_wrapper_cfg = {
            'broadcast_buffers': False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False),
            **wrapper,
            'device_ids': None,  # not left out: mmengine would fill in the local rank
        }
    try:
        runner = QuietRunner.from_cfg(cfg)
        runner.register_hook(SummaryHook())
        runner.register_hook(LoadingHook())
        # mmengine has no hook between a dataloader's config and its first use.
        runner.build_dataloader = partial(build_dataloader, runner.build_dataloader, loaded=loaded)
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
