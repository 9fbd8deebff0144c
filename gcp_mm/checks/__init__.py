"""Check a config, its packages, data and images, before a run or at its start."""

from .context import Finding, raise_errors, warnings_in, world_size
from .dataloaders import build_dataloader
from .run import check_config, run_checks
from .schedule import learning_rates

__all__ = [
    'Finding',
    'build_dataloader',
    'check_config',
    'learning_rates',
    'raise_errors',
    'run_checks',
    'warnings_in',
    'world_size',
]
