"""Measure robustness to common corruptions and perturbations: ImageNet-C, ImageNet-P and COCO-C.

The metrics are in `errors` (mCE, Relative mCE), `stability` (mFR, mT5D) and, of detectors,
`detection` (mPC, rPC). `baseline` has the numbers of AlexNet, which normalize those of classifiers.
"""

from mmengine.registry import DATASETS, TRANSFORMS

from ..compat.lazy import register_lazily
from . import metrics  # noqa: F401  registers metrics and a loop
from .errors import mean_corruption_error, relative_mean_corruption_error
from .stability import flip_probability, top5_distance

__all__ = [
    'flip_probability',
    'mean_corruption_error',
    'relative_mean_corruption_error',
    'top5_distance',
]

# Registered lazily: torchvision and SciPy take a second to import, and fail where they are broken.
register_lazily(DATASETS, 'ImageNetC', f'{__name__}.datasets')
register_lazily(DATASETS, 'ImageNetP', f'{__name__}.datasets')
register_lazily(TRANSFORMS, 'CorruptImage', f'{__name__}.corrupt_image')
