"""Checks of a config, its packages, data and images, before a run or at its start."""

from .disk import check_disk
from .finding import Finding, warnings_in
from .image_inspection import find_bad_images
from .inspection import data_checks
from .run import all_checks, check_run, run_check

__all__ = [
    'Finding',
    'all_checks',
    'check_disk',
    'check_run',
    'data_checks',
    'find_bad_images',
    'run_check',
    'warnings_in',
]
