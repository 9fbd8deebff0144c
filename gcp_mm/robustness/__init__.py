"""Measure robustness to common corruptions and perturbations: ImageNet-C and ImageNet-P.

The metrics are in `errors` (mCE, Relative mCE) and `stability` (mFR, mT5D). `baseline` has the
numbers of AlexNet, which normalize them.
"""

from importlib import import_module

from mmengine.registry import DATASETS

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

# Registered lazily: torchvision takes a second to import, and fails where it is broken.
DATASET_CLASSES = ('ImageNetC', 'ImageNetP')
for _name in DATASET_CLASSES:
    register_lazily(DATASETS, _name, f'{__name__}.datasets')


def __getattr__(name):
    if name in DATASET_CLASSES:
        return getattr(import_module(f'{__name__}.datasets'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
