"""What tools/train.py and tools/test.py share: checks before a run, and how it is launched."""

from .launch import add_common_arguments, launch, load_config
from .preflight import check_run

__all__ = ['add_common_arguments', 'check_run', 'launch', 'load_config']
