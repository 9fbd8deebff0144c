"""From a command line to a run: its config, checks of that and of the data, the launch."""

from .inspection import data_checks
from .launch import add_common_arguments, add_config_arguments, launch, load_config, read_config
from .preflight import check_run

__all__ = [
    'add_common_arguments',
    'add_config_arguments',
    'check_run',
    'data_checks',
    'launch',
    'load_config',
    'read_config',
]
