"""Checks of a whole config, which find a mistake before a run waits in a queue or fails in it."""

from .disk import check_disk
from .finding import Finding, warnings_in
from .run import all_checks, check_run, run_check

__all__ = ['Finding', 'all_checks', 'check_disk', 'check_run', 'run_check', 'warnings_in']
