"""The 10 perturbation sequences of ImageNet-P's test (Hendrycks and Dietterich, ICLR 2019).

The parameters are those of the published code at its first difficulty. ImageNet-P was made from
images whose short side was resized to 256 pixels: the geometric perturbations act on that whole
image, and their frames are cropped to 224x224; the others act on the crop. A sequence has 31
frames, translate 41; the first frame of a noise sequence is clean.

A set made here does not replace the official one: the motion blur is imagecorruptions-imaug's
version of ImageMagick's, affine maps are today's torchvision's (that of 2018 turned about a point
half a pixel off the center), and the official set is stored as lossy H.264.
"""

import cv2
import numpy as np
from PIL import Image
from scipy.ndimage import zoom
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from .corruptions import package

STEPS = range(31)


def perturb(image: np.ndarray, name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Make the frames of one sequence.

    Shifts and blurs have as many pixels as at 224x224, whatever `size` is.

    Args:
        image: (H, W, 3) uint8 RGB, resized and not cropped, H and W at least `size`; ImageNet-P
            has min(H, W) = 256.
        name: one of :data:`.stability.PERTURBATIONS`.
        size: width and height of the frames, which are cut from the center; ImageNet-P has 224.
        rng: source of all randomness.

    Returns:
        (31, size, size, 3) uint8 RGB; translate (41, size, size, 3).

    Raises:
        KeyError: for another name.
        ModuleNotFoundError: if the package imagecorruptions-imaug is not installed.
        ValueError: for a smaller image.
    """
    if min(image.shape[:2]) < size:
        raise ValueError(f'image: expected at least {size} pixels a side, got {image.shape[:2]}')
    if name in GEOMETRIC:
        frames = (crop(frame, size) for frame in GEOMETRIC[name](image))
    else:
        frames = OF_CROP[name](crop(image, size) / 255, rng)
    return np.stack([to_uint8(frame) for frame in frames])


def crop(image: np.ndarray, size: int) -> np.ndarray:
    """The central (size, size) part of an (H, W, C) array, as torchvision's CenterCrop."""
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def to_uint8(frame):
    """Values in [0, 1] as uint8, not rounded but cut, as the published code does."""
    if frame.dtype == np.uint8:
        return frame
    return (frame.clip(0, 1) * 255).astype(np.uint8)


# Of the crop: (S, S, 3) float64 in [0, 1] and a generator -> frames of the same kind.


def gaussian_noise(x, rng):
    yield x
    for _ in STEPS[1:]:
        yield x + 0.03 * rng.standard_normal(x.shape)


def shot_noise(x, rng):
    yield x
    for _ in STEPS[1:]:
        yield rng.poisson(300 * x) / 300


def motion_blur(x, rng):
    for i in STEPS:
        yield move(x, radius=10, sigma=3, angle=4 * (i - 30))


def snow(x, rng):
    size, flakes = len(x), rng.normal(0.05, 0.3, x.shape[:2])
    flakes = crop(zoom(crop(flakes, -(-size // 3)), 3, order=1), size)
    flakes[flakes < 0.5] = 0
    flakes = to_uint8(flakes) / 255
    gray = x @ (0.299, 0.587, 0.114)
    whitened = 0.85 * x + 0.15 * np.maximum(x, 1.5 * gray[..., None] + 0.5)
    for i in STEPS:
        falling = move(flakes, radius=14, sigma=4, angle=4 * i - 150)
        yield whitened + (falling + np.rot90(falling, 2))[..., None]


def brightness(x, rng):
    # Hue and saturation are kept when R, G and B change in proportion to V, the greatest of them.
    value = x.max(axis=2, keepdims=True)
    for i in STEPS:
        wanted = (value + 0.02 * (i - 15)).clip(0, 1)
        ratio = np.divide(wanted, value, out=np.ones_like(value), where=value > 0)
        yield np.where(value > 0, x * ratio, wanted)  # black has no hue, and becomes gray


def move(image, radius, sigma, angle):
    """ImageMagick's motion blur: a one-sided Gaussian along a line, borders repeated.

    Args:
        image: (S, S, ...) float64 in [0, 1].
        radius: half the length of the line in pixels.
        sigma: standard deviation of the Gaussian in pixels.
        angle: angle of the line in degrees, clockwise from the right.

    Returns:
        The blurred image, rounded to multiples of 1/255 as ImageMagick does.
    """
    # Private, but the package's only function for it
    blurred = package().corruptions._motion_blur(image, radius, sigma, angle)
    return np.rint(255 * blurred) / 255


# Of the whole image: (H, W, 3) uint8 -> frames (H, W, 3), uint8 or float in [0, 1].


def zoom_blur(image):
    total = 0
    for i in STEPS:
        total = total + affine(image, scale=1 + 0.004 * i).astype(np.float64)
        yield total / (i + 1) / 255


def translate(image):
    for i in range(41):
        yield affine(image, shift=i - 20)


def rotate(image):
    for i in STEPS:
        yield affine(image, angle=i - 15)


def scale(image):
    for i in STEPS:
        yield affine(image, scale=0.4 + 0.025 * i)


def tilt(image):
    """The image's plane turned about its horizontal and its vertical axis by the same angle."""
    h, w = image.shape[:2]
    f = np.hypot(w, h)  # distance of the camera
    to_center = np.array([[1, 0, -w / 2], [0, 1, -h / 2], [0, 0, 1]])
    camera = np.array([[f, 0, w / 2], [0, f, h / 2], [0, 0, 1]])
    for i in STEPS:
        cos, sin = np.cos(np.deg2rad(i - 15)), np.sin(np.deg2rad(i - 15))
        about_x = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        about_y = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
        plane = about_x @ about_y @ to_center
        plane[2, 2] += f
        yield cv2.warpPerspective(image, camera @ plane, (w, h))


def affine(image, angle=0.0, shift=0, scale=1.0):
    """torchvision's affine map of an (H, W, 3) uint8 array, bilinear, black outside."""
    mapped = tvf.affine(
        Image.fromarray(image),
        angle=angle,
        translate=[shift, 0],
        scale=scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    return np.asarray(mapped)


OF_CROP = {f.__name__: f for f in (gaussian_noise, shot_noise, motion_blur, snow, brightness)}
GEOMETRIC = {f.__name__: f for f in (zoom_blur, translate, rotate, scale, tilt)}
