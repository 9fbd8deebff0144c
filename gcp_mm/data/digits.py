"""Real handwritten digits as a classification set, one folder per class.

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


def write_classification(root: Path, image_size: int = 64) -> bool:
    """Write ``root/{train,val}/<class>/<number>.png``, or do nothing where that is complete.

    Args:
        root: folder to make.
        image_size: width and height of the images in pixels, at least 8.

    Returns:
        Whether anything was written.

    Raises:
        TypeError, ValueError: for a wrong option, or a `root` that holds something else.
    """
    check_integer('image_size', image_size, 8)
    options = dict(image_size=image_size, val=NUM_VAL, seed=SEED)
    images = (
        (split, label, enlarge(image, image_size))
        for split, (digits, labels) in load_splits().items()
        for image, label in zip(digits, labels, strict=True)
    )
    return write_class_folders(root, options, images)


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
