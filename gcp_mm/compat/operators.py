"""mmcv's operators on torchvision, where the installed mmcv has no compiled ones."""

import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path

NAME = 'mmcv._ext'
STAND_IN = str(Path(__file__).with_name('mmcv_ext.py'))


class OperatorFinder(MetaPathFinder):
    """Finds :mod:`gcp_mm.compat.mmcv_ext` as `mmcv._ext`, if no finder before it finds another."""

    def find_spec(self, fullname, path=None, target=None):
        """Spec of the stand-in, None for every other module."""
        return spec_from_file_location(NAME, STAND_IN) if fullname == NAME else None


FINDER = OperatorFinder()


def use_torchvision_operators() -> None:
    """Let mmcv compute its operators by torchvision where it has no compiled part.

    Nothing is imported now. A compiled `mmcv._ext` is found first, and never replaced. A process
    that is spawned, not forked, has to call this again before it imports `mmcv.ops`.
    """
    if FINDER not in sys.meta_path:
        sys.meta_path.append(FINDER)


def operators_in_use() -> str:
    """Which operators `mmcv.ops` has: 'compiled' or those of a torchvision version.

    Raises:
        ImportError: if mmcv is not installed.
    """
    if find_spec(NAME).origin != STAND_IN:
        return 'compiled'
    import torchvision

    return f'torchvision {torchvision.__version__}'
