"""From a command line to a run: its config, a look at its data, launch and hooks."""

from .checkpoint_hook import GCPCheckpointHook
from .divergence_hook import DivergenceHook
from .image_inspection import find_bad_images
from .inspection import data_checks
from .kfac_optim_wrapper import KFACOptimWrapper
from .landscape_hook import LandscapeHook
from .launch import (
    add_common_arguments,
    add_config_arguments,
    add_trust_argument,
    launch,
    load_config,
    read_config,
    set_auto_scale_lr,
)
from .resume import set_resume
from .seed_hook import GCPEpochSeedHook
from .wrapping import unwrap

__all__ = [
    'DivergenceHook',
    'GCPCheckpointHook',
    'GCPEpochSeedHook',
    'KFACOptimWrapper',
    'LandscapeHook',
    'add_common_arguments',
    'add_config_arguments',
    'add_trust_argument',
    'data_checks',
    'find_bad_images',
    'launch',
    'load_config',
    'read_config',
    'set_auto_scale_lr',
    'set_resume',
    'unwrap',
]
