"""The installed packages go together, and those with compiled parts load."""

from importlib import import_module
from importlib.metadata import version

import numpy as np
import torch

from ..compat.packages import distribution_of, requirement_of, unmet_requirements, versions
from .context import Context, Finding


def check_packages(context: Context) -> list[Finding]:
    """Compare the installed versions, and import what the framework of a config is made of.

    A run imports all of it too, with an error that does not say what to do.
    """
    texts = [numpy_error(), *(import_error(*each) for each in _needed(context.scope))]
    errors = [Finding('packages', 'error', text) for text in texts if text]
    optional = () if context.scope == 'mmdet' else ('mmdet',)
    warnings = [Finding('packages', 'warning', text) for text in unmet_requirements(optional)]
    return [*errors, *warnings] if errors else [*warnings, Finding('packages', 'ok', versions())]


def _needed(scope):
    """Modules that a framework needs, each with what to do if it does not load."""
    if scope not in ('mmpretrain', 'mmdet'):
        return
    yield (
        'torchvision',
        f'it has to be the one for torch {torch.__version__}: pip install --force-reinstall torch '
        'torchvision, both from one place',
    )
    yield 'mmpretrain', f'pip install "{requirement_of("mmpretrain")}"'
    if scope == 'mmdet':
        yield (
            'mmcv.ops',
            'its compiled operators are for another PyTorch: install those for this one, or pip '
            f'uninstall {distribution_of("mmcv")} and pip install "{requirement_of("mmcv")}" '
            'without compiled operators; gcp_mm then uses those of torchvision',
        )
        yield 'mmdet', f'pip install "{requirement_of("mmdet")}"'


def import_error(module: str, remedy: str) -> str:
    """Import a module; returns why it cannot be imported and what to do, '' if it can."""
    try:
        import_module(module)
    except Exception as error:  # RuntimeError, AssertionError, OSError: whatever is broken in it
        return f'{module} cannot be imported ({type(error).__name__}: {error}); {remedy}'
    return ''


def numpy_error() -> str:
    """Why PyTorch does not work with the installed numpy and what to do, '' if it does."""
    try:
        torch.from_numpy(np.zeros(1))
    except RuntimeError as error:
        numpy = version('numpy')
        return (
            f'torch {torch.__version__} does not work with numpy {numpy} ({error}): pip install '
            '"numpy<2"'
        )
    return ''
