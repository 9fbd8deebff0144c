"""Corruption of the images of a detection dataset, as a transform of its pipeline."""

from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from .corruptions import corrupt_scene, seeded


@TRANSFORMS.register_module(force=True)
class CorruptImage(BaseTransform):
    """Corrupt a loaded image as COCO-C does, and keep its size and type.

    It belongs right after the loading. The result depends on the arguments, the image and its
    `img_id`, or the name of its file where it has none, and not on the order or the number of
    processes.

    Args:
        corruption: one of the 15 `CORRUPTIONS`.
        severity: 1 to 5.
        seed: seed of all randomness.

    Raises:
        ModuleNotFoundError: if the package imagecorruptions-imaug is not installed.
        ValueError: for another corruption or severity; in :meth:`transform`, for an image of less
            than 32 pixels a side, or one that is not (H, W, 3) BGR of whole numbers in [0, 255].
    """

    def __init__(self, corruption: str, severity: int, seed: int = 0):
        # Wrong arguments fail here; imports and compilation happen once, before the workers fork.
        corrupt_scene(np.zeros((64, 64, 3), np.uint8), corruption, severity, seeded())
        self.corruption, self.severity, self.seed = corruption, severity, seed

    def transform(self, results: dict) -> dict:
        """Replace `img` in `results`."""
        path, image = results.get('img_path', ''), results['img']
        with np.errstate(invalid='ignore'):
            pixels = image.astype(np.uint8)
        if not np.array_equal(pixels, image):  # float32 may hold whole numbers
            raise ValueError(f'image {str(path)!r}: expected 8 bits a channel, got {image.dtype}')
        key = results.get('img_id', Path(path).name)
        rng = seeded(self.seed, 'c', self.corruption, self.severity, key)
        try:
            rgb = np.ascontiguousarray(pixels[..., ::-1])
            corrupted = corrupt_scene(rgb, self.corruption, self.severity, rng)
        except ValueError as error:
            raise ValueError(f'image {str(path)!r}: {error}') from error
        results['img'] = np.ascontiguousarray(corrupted[..., ::-1]).astype(image.dtype)
        return results
