"""Harder variants of the digits, in class folders: few labels, or clutter."""

from pathlib import Path

import numpy as np
from PIL import Image

from ..ops.arguments import check_integer
from .digits import NUM_VAL, SEED, enlarge, load_splits, write_class_folders

TURN = 15  # degrees, the most that a digit in clutter is turned
WIDTHS = 30, 48  # of a digit in clutter, in pixels
PARTS = 4  # of other digits, beside a digit in clutter
NOISE = 0.08  # standard deviation of the background's gray values


def write_few(root: Path, per_class: int = 20, image_size: int = 64) -> bool:
    """Write the digits with `per_class` training images of each class, and all for validation.

    Args:
        root: folder to make, ``root/{train,val}/<class>/<number>.png``.
        per_class: training images of each class, at most 139.
        image_size: width and height of the images in pixels, at least 8.

    Returns:
        Whether anything was written; False where `root` is complete with the same options.

    Raises:
        TypeError, ValueError: for a wrong option, or a `root` that holds something else.
    """
    check_integer('per_class', per_class, 1, 139)
    check_integer('image_size', image_size, 8)
    options = dict(per_class=per_class, image_size=image_size, val=NUM_VAL, seed=SEED)

    def images():
        for split, (digits, labels) in load_splits().items():
            seen = np.zeros(10, int)
            for digit, label in zip(digits, labels, strict=True):
                seen[label] += 1
                if split == 'val' or seen[label] <= per_class:
                    yield split, label, enlarge(digit, image_size)

    return write_class_folders(root, options, images())


def write_clutter(root: Path, train_images: int = 2000, val_images: int = 1000) -> bool:
    """Write images of 64x64 pixels with one digit and parts of others on noise.

    The digit is whole, 30 to 48 pixels wide, turned by up to 15 degrees, at any place. The 4 parts
    are squares of 8 to 14 pixels, cut out of other digits as large. Training images show training
    digits, validation images validation digits.

    Args:
        root: folder to make, ``root/{train,val}/<class>/<number>.png``.
        train_images: number of training images, at least 10.
        val_images: number of validation images, at least 10.

    Returns:
        Whether anything was written; False where `root` is complete with the same options.

    Raises:
        TypeError, ValueError: for a wrong option, or a `root` that holds something else.
    """
    counts = dict(train=train_images, val=val_images)
    for split, count in counts.items():
        check_integer(f'{split}_images', count, 10)
    drawn = dict(turn=TURN, widths=[*WIDTHS], parts=PARTS, noise=NOISE)
    options = dict(**counts, **drawn, val_digits=NUM_VAL, seed=SEED)

    def images():
        for number, (split, (digits, labels)) in enumerate(load_splits().items()):
            rng = np.random.default_rng([SEED, number])
            for _ in range(counts[split]):
                pick = rng.integers(len(digits))
                yield split, labels[pick], draw_clutter(digits, pick, rng)

    return write_class_folders(root, options, images())


def draw_clutter(digits: np.ndarray, pick: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one image of clutter.

    Args:
        digits: (n, 8, 8) in [0, 1].
        pick: index of the digit that the image shows.
        rng: source of all that is random.

    Returns:
        (64, 64) float64 in [0, 1].
    """
    image = rng.normal(rng.uniform(0.1, 0.4), NOISE, (64, 64))

    def paste(ink):
        height, width = ink.shape
        top, left = rng.integers(0, (64 - height + 1, 64 - width + 1))
        window = image[top : top + height, left : left + width]
        window += ink * (rng.uniform(0.6, 1) - window)

    def draw(digit):
        ink = enlarge(digit, int(rng.integers(*WIDTHS, endpoint=True)))
        turned = Image.fromarray(ink).rotate(rng.uniform(-TURN, TURN), Image.BICUBIC)
        return np.asarray(turned).clip(0, 1)

    for _ in range(PARTS):
        other = draw(digits[rng.integers(len(digits))])
        side = int(rng.integers(8, 14, endpoint=True))
        top, left = rng.integers(0, len(other) - side, 2, endpoint=True)
        paste(other[top : top + side, left : left + side])
    paste(draw(digits[pick]))  # last: it lies on the parts
    return image.clip(0, 1)
