"""The corruptions of ImageNet-C (Hendrycks and Dietterich, ICLR 2019), for your own images.

They are those of the package imagecorruptions-imaug, except for elastic_transform, of which the
package leaves out the random affine map and has other displacements. Motion blur and snow are the
package's version of ImageMagick's filter, and its frost is 1.1 times as large as the published one,
so a set made here does not replace the official one.

Those of COCO-C (Michaelis et al., Benchmarking Robustness in Object Detection, 2019) are the
package's, its elastic_transform included: without an affine map objects stay in their boxes.
`CorruptImage` is these as a transform of a detection dataset's pipeline.
"""

import hashlib
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from scipy.ndimage import gaussian_filter, map_coordinates

import gcp_mm

from .errors import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES

# On smaller images spatter may find no drop to draw.
SMALLEST = 64
SMALLEST_SCENE = 32  # which the package takes
SEED = 0  # of all randomness
PACKAGE = 'imagecorruptions-imaug'
# Distributions that corrupted images depend on
PACKAGES = ('numpy', 'scipy', 'pillow', 'torchvision', 'scikit-image', 'numba', PACKAGE)


def corrupt(image: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Corrupt an image as ImageNet-C does.

    Blurs, drops and the like are as many pixels wide as at 224x224 whatever the image's size, so
    smaller images suffer more; the elastic transform is defined in parts of the image's side.

    Args:
        image: (S, S, 3) uint8 RGB, S at least 64; ImageNet-C has S = 224.
        name: one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        severity: 1 to 5.
        rng: source of all randomness; numpy's global state stays as it is.

    Returns:
        (S, S, 3) uint8 RGB.

    Raises:
        AttributeError, KeyError, ValueError: for another name, severity, dtype or shape.
        ModuleNotFoundError: if the package imagecorruptions-imaug is not installed.
    """
    size = len(image)
    if image.dtype != np.uint8 or image.shape != (size, size, 3) or size < SMALLEST:
        raise ValueError(
            f'image: expected a square, (S, S, 3) uint8 with S at least {SMALLEST}, got '
            f'{image.shape} {image.dtype}; resize and crop it first'
        )
    if name == 'elastic_transform':
        return elastic_transform(image, severity, rng)
    return corrupt_scene(image, name, severity, rng)


def corrupt_scene(
    image: np.ndarray, name: str, severity: int, rng: np.random.Generator
) -> np.ndarray:
    """Corrupt an image of a detection dataset as COCO-C does.

    Args:
        image: (H, W, 3) uint8 RGB, H and W at least 32.
        name, severity, rng: as of :func:`corrupt`; the benchmark has the 15 `CORRUPTIONS`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        AttributeError, KeyError, ModuleNotFoundError: as :func:`corrupt`.
    """
    imagecorruptions = package()
    # These do not draw from numpy's global generator.
    seeded = name in ('impulse_noise', 'glass_blur')
    options = dict(seed=int(rng.integers(2**32))) if seeded else {}
    state = np.random.get_state()
    np.random.seed(rng.integers(2**32, size=8, dtype=np.uint32))
    try:
        return imagecorruptions.corrupt(image, severity, name, **options)
    finally:
        np.random.set_state(state)


def seeded(*key: object) -> np.random.Generator:
    """A generator whose numbers depend on nothing but a key, which is joined by slashes."""
    digest = hashlib.sha256('/'.join(map(str, (SEED, *key))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], 'little'))


def versions() -> dict[str, str]:
    """Versions of what corrupted images depend on, by package.

    Raises:
        ModuleNotFoundError: if the package imagecorruptions-imaug is not installed.
    """
    package()
    return dict(
        gcp_mm=gcp_mm.__version__,
        opencv=cv2.__version__,
        **{name: metadata.version(name) for name in PACKAGES},
    )


def package() -> ModuleType:
    """The package imagecorruptions, which brings numba and scikit-image: not imported before.

    Raises:
        ModuleNotFoundError: unless it is the maintained distribution. The older one of the same
            import name fails with current packages and takes no seeds.
    """
    try:
        metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f'corruptions need the package {PACKAGE}: pip uninstall imagecorruptions; '
            f'pip install {PACKAGE}'
        ) from None
    return import_module('imagecorruptions')


# By severity, in parts of the side: the amplitude and the smoothness of the displacement, and the
# greatest shift of the three points that define the affine map.
ELASTIC = {
    1: (2, 0.7, 0.1),
    2: (2, 0.08, 0.2),
    3: (0.05, 0.01, 0.02),
    4: (0.07, 0.01, 0.02),
    5: (0.12, 0.01, 0.02),
}


def elastic_transform(image, severity, rng):
    """A random affine map, then a smooth random displacement of every pixel."""
    size = len(image)
    # The published code writes 244 where it means 224, and ImageNet-C was made so.
    alpha, sigma, shift = size * 244 / 224 * np.array(ELASTIC[severity])
    # Smoothing over fewer pixels leaves more of the noise: distort by the same part of the side.
    alpha *= size / 224
    points = np.float32(size // 2 + size // 3 * np.array([(1, 1), (1, -1), (-1, -1)]))
    moved = points + rng.uniform(-shift, shift, points.shape).astype(np.float32)
    affine = cv2.getAffineTransform(points, moved)
    image = cv2.warpAffine(
        np.float32(image), affine, (size, size), borderMode=cv2.BORDER_REFLECT_101
    )
    noise = rng.uniform(-1, 1, (2, size, size))  # of rows and of columns
    smooth = gaussian_filter(noise, (0, sigma, sigma), mode='reflect', truncate=3)
    where = np.indices((size, size)) + alpha * smooth
    channels = [
        map_coordinates(channel, where, order=1, mode='reflect')
        for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, axis=2).clip(0, 255).astype(np.uint8)


@TRANSFORMS.register_module(force=True)
class CorruptImage(BaseTransform):
    """Corrupt a loaded image as COCO-C does, and keep its size and type.

    It belongs right after the loading. The result depends on the arguments, the image and its
    `img_id`, or the name of its file where it has none, and not on the order or the number of
    processes.

    Args:
        corruption: as of :func:`corrupt_scene`.
        severity: 1 to 5.

    Raises:
        ModuleNotFoundError: if the package imagecorruptions-imaug is not installed.
        ValueError: for another corruption or severity; in :meth:`transform`, for an image of less
            than 32 pixels a side, or one that is not (H, W, 3) BGR of whole numbers in [0, 255].
    """

    def __init__(self, corruption: str, severity: int):
        names = CORRUPTIONS + EXTRA_CORRUPTIONS
        if corruption not in names:
            raise ValueError(f'corruption: {corruption!r} is none of {", ".join(names)}')
        if severity not in SEVERITIES:
            raise ValueError(f'severity: expected 1 to 5, got {severity!r}')
        # Imports and compilation happen once, before the workers fork.
        corrupt_scene(np.zeros((64, 64, 3), np.uint8), corruption, severity, seeded())
        self.corruption, self.severity = corruption, severity

    def transform(self, results: dict) -> dict:
        """Replace `img` in `results`."""
        path, image = results.get('img_path', ''), results['img']
        with np.errstate(invalid='ignore'):
            pixels = image.astype(np.uint8)
        if not np.array_equal(pixels, image):  # float32 may hold whole numbers
            raise ValueError(f'image {str(path)!r}: expected 8 bits a channel, got {image.dtype}')
        if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < SMALLEST_SCENE:
            raise ValueError(
                f'image {str(path)!r}: expected (H, W, 3), H and W at least {SMALLEST_SCENE}, got '
                f'{image.shape}'
            )
        key = results.get('img_id', Path(path).name)
        rng = seeded('c', self.corruption, self.severity, key)
        rgb = np.ascontiguousarray(pixels[..., ::-1])
        corrupted = corrupt_scene(rgb, self.corruption, self.severity, rng)
        results['img'] = np.ascontiguousarray(corrupted[..., ::-1]).astype(image.dtype)
        return results
