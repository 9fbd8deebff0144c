"""Robustness to common corruptions and perturbations: ImageNet-C and ImageNet-P.

The metrics, in `errors`, `stability` and `baseline`, are functions of numbers and tensors; the rest
makes data sets, metrics and a test loop of mmengine of them.
"""

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
from .loop import LogitsLoop
from .metrics import CorruptionError, PerturbationStability
from .stability import (
    PERTURBATIONS,
    VALIDATION_PERTURBATIONS,
    flip_probability,
    flip_rates,
    mean_flip_rate,
    mean_top5_distance,
    top5_distance,
    top5_distance_rates,
    video_stability,
)

__all__ = [
    'CORRUPTIONS',
    'EXTRA_CORRUPTIONS',
    'PERTURBATIONS',
    'VALIDATION_PERTURBATIONS',
    'CorruptionError',
    'LogitsLoop',
    'PerturbationStability',
    'Robustness',
    'corruption_errors',
    'flip_probability',
    'flip_rates',
    'load_baseline',
    'mean_corruption_error',
    'mean_flip_rate',
    'mean_top5_distance',
    'relative_corruption_errors',
    'relative_mean_corruption_error',
    'top5_distance',
    'top5_distance_rates',
    'video_stability',
]

# mmpretrain.datasets takes seconds to import.
for _name in ('ImageNetClean', 'ImageNetC', 'ImageNetP'):
    register_lazily(DATASETS, _name, f'{__name__}.datasets')
