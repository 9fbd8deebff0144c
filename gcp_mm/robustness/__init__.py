"""Measure robustness to common corruptions and perturbations: ImageNet-C, ImageNet-P and COCO-C.

`errors` has the errors on corrupted images (and mPC and rPC of detectors), `stability` the numbers
of perturbed ones, `baseline` those of AlexNet, and `report` the means in percent of a baseline:
mCE, Relative mCE, mFR and mT5D.
"""

from mmengine.registry import DATASETS, LOOPS, METRICS, TRANSFORMS

from ..compat.lazy import register_lazily
from .errors import mean_corruption_error, relative_mean_corruption_error
from .stability import flip_probability, top5_distance

__all__ = [
    'flip_probability',
    'mean_corruption_error',
    'relative_mean_corruption_error',
    'top5_distance',
]

# Registered lazily: torchvision and SciPy take a second to import, and fail where they are broken.
for registry, name in (
    *((DATASETS, 'ImageNetC'), (DATASETS, 'ImageNetP'), (LOOPS, 'LogitsLoop')),
    *((METRICS, 'CorruptionError'), (METRICS, 'PerturbationStability')),
):
    register_lazily(registry, name, f'{__name__}.benchmarks')
register_lazily(TRANSFORMS, 'CorruptImage', f'{__name__}.corruptions')
