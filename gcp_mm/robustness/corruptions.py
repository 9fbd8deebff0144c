"""The corruptions of ImageNet-C (Hendrycks and Dietterich, ICLR 2019), for one's own images.

Sixteen of the nineteen are those of the package imagecorruptions-imaug. Three are written here,
with the published constants:

- elastic_transform: the package leaves out the random affine map and has other displacements;
- frost: the package enlarges its photographs 1.1 times and draws from six, not from five;
- glass_blur: the package compiles it anew, for seconds, in every process.

Motion blur and snow, which were ImageMagick's, are the package's own version of its filter, so a
set made here is no replacement for the official one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata, util
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from .errors import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES

# On smaller images spatter may find no drop to draw.
SMALLEST = 64
PACKAGE = 'imagecorruptions-imaug'


def corrupt(image: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Corrupt an image as ImageNet-C does.

    Blurs, drops and the like are as many pixels wide as at 224x224 whatever the image's size, so
    smaller images suffer more; the elastic transform is defined in parts of the image's side.

    Args:
        image: (S, S, 3) uint8 RGB, S at least 64; ImageNet-C has S = 224.
        name: one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        severity: 1 to 5.
        rng: what all randomness comes from; numpy's global state is left as it was.

    Returns:
        (S, S, 3) uint8 RGB.

    Raises:
        ValueError: for another name, severity, shape or size.
        TypeError: for another dtype.
        ModuleNotFoundError: if the package imagecorruptions-imaug is not installed.
    """
    if name not in CORRUPTIONS + EXTRA_CORRUPTIONS:
        raise ValueError(f'name: {name!r} is none of {", ".join(CORRUPTIONS + EXTRA_CORRUPTIONS)}')
    if severity not in SEVERITIES:
        raise ValueError(f'severity: expected 1 to 5, got {severity!r}')
    check_image(image)
    if image.shape[0] != image.shape[1] or image.shape[0] < SMALLEST:
        raise ValueError(
            f'image: expected a square of at least {SMALLEST} pixels, got {image.shape[:2]}; '
            'resize and crop it first'
        )
    if name in OWN:
        return OWN[name](image, severity, rng)
    check_package()
    import imagecorruptions  # not above: it brings numba and scikit-image

    # This one does not draw from numpy's global generator.
    options = dict(seed=int(rng.integers(2**32))) if name == 'impulse_noise' else {}
    with global_seed(rng):
        return imagecorruptions.corrupt(image, severity, name, **options)


def check_image(image: np.ndarray) -> None:
    """Raise TypeError or ValueError unless `image` is (H, W, 3) uint8."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, 'dtype', type(image).__name__)
        raise TypeError(f'image: expected a uint8 array, got {kind}')
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'image: expected the shape (H, W, 3), got {image.shape}')


def check_package() -> None:
    """Raise ModuleNotFoundError unless imagecorruptions is the maintained distribution.

    The older one of the same import name fails with current packages and takes no seeds.
    """
    try:
        metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f'corruptions need the package {PACKAGE}: pip uninstall imagecorruptions; '
            f'pip install {PACKAGE}'
        ) from None


@contextmanager
def global_seed(rng: np.random.Generator) -> Iterator[None]:
    """Seed numpy's global generator from `rng` inside the block, and restore it after."""
    state = np.random.get_state()
    np.random.seed(rng.integers(2**32, size=8, dtype=np.uint32))
    try:
        yield
    finally:
        np.random.set_state(state)


# By severity, in parts of the side: the amplitude and the smoothness of the displacement, and the
# greatest shift of the three points that define the affine map.
ELASTIC = (
    (2, 0.7, 0.1),
    (2, 0.08, 0.2),
    (0.05, 0.01, 0.02),
    (0.07, 0.01, 0.02),
    (0.12, 0.01, 0.02),
)


def elastic_transform(image, severity, rng):
    """A random affine map, then a smooth random displacement of every pixel."""
    size = len(image)
    # The published code writes 244 where it means 224, and ImageNet-C was made so.
    alpha, sigma, shift = size * 244 / 224 * np.array(ELASTIC[severity - 1])
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


@cache
def frost_photograph(number):
    """One of the package's photographs of frost, (H, W, 3) uint8 RGB; number 1 to 6."""
    check_package()
    # Found without importing the package, which takes seconds.
    folder = Path(util.find_spec('imagecorruptions').origin).parent / 'frost'
    photograph = cv2.imread(str(next(folder.glob(f'frost{number}.*'))))
    return cv2.cvtColor(photograph, cv2.COLOR_BGR2RGB)


def frost(image, severity, rng):
    """Add a random part of a random photograph of frost."""
    keep, add = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    # The published code has six photographs and draws from the first five.
    photograph = frost_photograph(int(rng.integers(1, 6)))
    size = len(image)
    if min(photograph.shape[:2]) < size:  # never at 224
        scale = size / min(photograph.shape[:2])
        photograph = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    top, left = (rng.integers(side - size + 1) for side in photograph.shape[:2])
    part = photograph[top : top + size, left : left + size]
    return (keep * image + add * part).clip(0, 255).astype(np.uint8)


def glass_blur(image, severity, rng):
    """Blur, replace each pixel by a random neighbour, in place and in turn, and blur again."""
    sigma, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[
        severity - 1
    ]

    def blur(image):
        smooth = gaussian_filter(image / 255, (sigma, sigma, 0), mode='nearest')
        return (smooth * 255).astype(np.uint8)

    size = len(image)
    inner = np.arange(size - reach, reach, -1)
    replaced = np.tile(np.add.outer(inner * size, inner).ravel(), rounds)
    rows, columns = rng.integers(-reach, reach, (2, replaced.size))
    neighbours = replaced + rows * size + columns
    # The published code means to swap the two, but copies one to the other.
    source = list(range(size * size))
    for pixel, neighbour in zip(replaced.tolist(), neighbours.tolist(), strict=True):
        source[pixel] = source[neighbour]
    return blur(blur(image).reshape(-1, 3)[source].reshape(image.shape))


OWN = {function.__name__: function for function in (elastic_transform, frost, glass_blur)}
