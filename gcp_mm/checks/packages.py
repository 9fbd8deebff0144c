"""The installed packages go together, and those with compiled parts load."""

from importlib import import_module
from importlib.metadata import version

import numpy as np
import torch
from mmengine.config import Config

from ..compat.requirements import distribution_of, requirement_of, unmet_requirements, versions
from .finding import Finding


def check_packages(cfg: Config) -> list[Finding]:
    """Compare the installed versions, and import what the config's framework is made of.

    A run imports all of it too, with an error that does not say what to do.

    Args:
        cfg: config of a classifier or of a detector, by its `default_scope`.

    Raises:
        ImportError: for a package that is absent or does not load, with the command that mends it.
    """
    scope = cfg.get('default_scope')
    check_numpy()
    if scope in ('mmpretrain', 'mmdet'):
        check_import(
            'torchvision',
            f'it has to be the one for torch {torch.__version__}: pip install --force-reinstall '
            'torch torchvision, both from one place',
        )
        check_import('mmpretrain', f'pip install "{requirement_of("mmpretrain")}"')
    if scope == 'mmdet':
        check_import(
            'mmcv.ops',
            'its compiled operators are for another PyTorch: install those for this one, or pip '
            f'uninstall {distribution_of("mmcv")} and pip install "{requirement_of("mmcv")}" '
            'without compiled operators, in place of which gcp_mm uses those of torchvision',
        )
        check_import('mmdet', f'pip install "{requirement_of("mmdet")}"')
    optional = () if scope == 'mmdet' else ('mmdet',)
    found = [Finding('warning', text) for text in unmet_requirements(optional)]
    return [*found, Finding('ok', versions())]


def check_import(module: str, remedy: str) -> None:
    """Raise ImportError, with a remedy, unless a module can be imported.

    Args:
        module: its name.
        remedy: what to do, for the message.
    """
    try:
        import_module(module)
    except Exception as error:  # RuntimeError, AssertionError, OSError: whatever is broken in it
        raise ImportError(
            f'{module} cannot be imported ({type(error).__name__}: {error}); {remedy}'
        ) from error


def check_numpy() -> None:
    """Raise ImportError unless PyTorch was compiled against a numpy like the installed one."""
    try:
        torch.from_numpy(np.zeros(1))
    except RuntimeError as error:
        raise ImportError(
            f'torch {torch.__version__} does not work with numpy {version("numpy")} ({error}): '
            'pip install "numpy<2"'
        ) from error
