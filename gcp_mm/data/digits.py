"""Real handwritten digits as classification sets, one folder per class: whole, few, in clutter.

The digits are scikit-learn's copy of the test part of the UCI set 'Optical Recognition of
Handwritten Digits' (Alpaydin and Kaynak, 1998): 1,797 gray images of 8x8 pixels, values 0 to 16.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ..ops.arguments import check_integer
from .complete import written_once

NUM_VAL = 360  # of 1,797
SEED = 0
TURN = 15  # degrees, the most that a digit in clutter is turned
WIDTHS = 30, 48  # of a digit in clutter, in pixels
PARTS = 4  # of other digits, beside a digit in clutter
NOISE = 0.08  # standard deviation of the background's gray values


def load_splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split the digits into training and validation, each with all classes in proportion.

    Returns:
        ``{'train': (images, labels), 'val': (images, labels)}``: images (n, 8, 8) float64 in
        [0, 1], labels (n,) int64.
    """
    digits = load_digits()
    images, labels = digits.images / 16, digits.target
    train_x, val_x, train_y, val_y = train_test_split(
        images, labels, test_size=NUM_VAL, stratify=labels, random_state=SEED
    )
    return {'train': (train_x, train_y), 'val': (val_x, val_y)}


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """An 8x8 digit in [0, 1] as a (size, size) float32 array in [0, 1], bicubic."""
    large = Image.fromarray(image.astype(np.float32)).resize((size, size), Image.BICUBIC)
    return np.asarray(large).clip(0, 1)


def write_classification(root: Path, image_size: int = 64, per_class: int | None = None) -> bool:
    """Write ``root/{train,val}/<class>/<number>.png``, or do nothing where that is complete.

    Args:
        root: folder to make.
        image_size: width and height of the images in pixels, at least 8.
        per_class: training images of each class, at most 139; by default all.

    Returns:
        Whether anything was written.

    Raises:
        TypeError, ValueError: for another `per_class`, or a `root` that holds something else.
    """
    options = dict(image_size=image_size, val=NUM_VAL, seed=SEED)
    if per_class is not None:
        check_integer('per_class', per_class, 1, 139)
        options['per_class'] = per_class

    def images():
        for split, (digits, labels) in load_splits().items():
            seen = Counter()
            for digit, label in zip(digits, labels, strict=True):
                seen[label] += 1
                if split == 'val' or per_class is None or seen[label] <= per_class:
                    yield split, label, enlarge(digit, image_size)

    return write_class_folders(root, options, images())


def write_clutter(root: Path, train_images: int = 2000, val_images: int = 1000) -> bool:
    """Write images of 64x64 pixels with one digit and parts of others on noise.

    The digit is whole, 30 to 48 pixels wide, turned by up to 15 degrees, at any place. The 4 parts
    are squares of 8 to 14 pixels, cut out of other digits as large. Training images show training
    digits, validation images validation digits.

    Args:
        root: folder to make, ``root/{train,val}/<class>/<number>.png``.
        train_images: number of training images.
        val_images: number of validation images.

    Returns:
        Whether anything was written; False where `root` is complete with the same options.

    Raises:
        ValueError: for a `root` that holds something else.
    """
    counts = dict(train=train_images, val=val_images)
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


def write_class_folders(
    root: Path, options: dict, images: Iterable[tuple[str, int, np.ndarray]]
) -> bool:
    """Write ``root/<split>/<class>/<number>.png``, numbered within each split.

    Args:
        root, options: see :func:`.complete.written_once`.
        images: split, class and pixels, (H, W) in [0, 1], of each.

    Returns:
        Whether anything was written.
    """
    numbers = Counter()
    with written_once(root, options) as folder:
        if folder is None:
            return False
        for split, label, pixels in images:
            path = folder / split / str(label) / f'{numbers[split]:04d}.png'
            numbers[split] += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 255).round().astype(np.uint8)).save(path)
    return True
