"""Launch and resume a run: from a config to mmengine's Runner, and hooks for robust training."""

from .atomic_checkpoint import AtomicCheckpointHook
from .divergence_hook import DivergenceHook
from .epoch_seed import EpochSeedHook
from .launch import launch, load_config, only_job, read_config, set_auto_scale_lr, set_tta
from .network import unwrap
from .resume import set_resume
from .summary import show_summary

__all__ = [
    'AtomicCheckpointHook',
    'DivergenceHook',
    'EpochSeedHook',
    'launch',
    'load_config',
    'only_job',
    'read_config',
    'set_auto_scale_lr',
    'set_resume',
    'set_tta',
    'show_summary',
    'unwrap',
]
