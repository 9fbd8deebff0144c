"""Measure robustness to common corruptions and perturbations: ImageNet-C, ImageNet-P and COCO-C.

The metrics are in `errors` (mCE, Relative mCE), `stability` (mFR, mT5D) and, of detectors,
`detection` (mPC, rPC). `baseline` has the numbers of AlexNet, which normalize those of classifiers.
"""

from importlib import import_module

from mmengine.registry import DATASETS, TRANSFORMS

from ..compat.lazy import register_lazily
from .baseline import Robustness, load_baseline
from .errors import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    corruption_errors,
    mean_corruption_error,
    relative_corruption_errors,
    relative_mean_corruption_error,
)
from .metrics import CorruptionError, LogitsLoop, PerturbationStability
from .stability import (
    PERTURBATIONS,
    VALIDATION_PERTURBATIONS,
    flip_probability,
    mean_flip_rate,
    mean_top5_distance,
    top5_distance,
    video_stability,
)

__all__ = [
    'CORRUPTIONS',
    'EXTRA_CORRUPTIONS',
    'PERTURBATIONS',
    'VALIDATION_PERTURBATIONS',
    'CorruptImage',
    'CorruptionError',
    'ImageNetC',
    'ImageNetP',
    'LogitsLoop',
    'PerturbationStability',
    'Robustness',
    'corruption_errors',
    'flip_probability',
    'load_baseline',
    'mean_corruption_error',
    'mean_flip_rate',
    'mean_top5_distance',
    'relative_corruption_errors',
    'relative_mean_corruption_error',
    'top5_distance',
    'video_stability',
]

# Registered lazily: torchvision and SciPy take a second to import, and fail where they are broken.
LAZY = dict(ImageNetC='datasets', ImageNetP='datasets', CorruptImage='corrupt_image')
for _name, _module in LAZY.items():
    _registry = DATASETS if _module == 'datasets' else TRANSFORMS
    register_lazily(_registry, _name, f'{__name__}.{_module}')


def __getattr__(name):
    if name in LAZY:
        return getattr(import_module(f'{__name__}.{LAZY[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
