"""The images of a dataset: that they can be used, and their sizes."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ..data import LoadCheckedImage, check_intact_image

HEADERS = 5000  # images whose size is read
DECODED = 64  # of which these are decoded


def inspect_images(infos: Sequence[dict]) -> np.ndarray:
    """Read the sizes of images, of some of them if there are many, and decode a few.

    Args:
        infos: `img_path` of each and, where it is known, its `height` and `width`; at least one.

    Returns:
        (n, 2) int64, width and height in pixels.

    Raises:
        ValueError: if some cannot be read, or hold values that the frameworks' loader would cut.
    """
    sizes, bad = [], []
    for info in tqdm(
        _sample(infos, HEADERS), desc='images', unit='image', leave=False, disable=None
    ):
        path = Path(info['img_path'])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', Image.DecompressionBombWarning)
                content = path.read_bytes()
                check_intact_image(content)
                with Image.open(io.BytesIO(content)) as image:
                    sizes.append(image.size)
        except Image.DecompressionBombError as error:
            raise ValueError(f'{str(path)!r}: {error}; scale it down, or remove it') from error
        except UnidentifiedImageError:
            bad.append(f'{str(path)!r}: it is no image')
        except (OSError, SyntaxError, ValueError) as error:
            bad.append(f'{str(path)!r}: {error}')
    if bad:
        raise ValueError(
            f'{len(bad):,} of {len(sizes) + len(bad):,} images cannot be read: replace or remove '
            f'them. The first is {bad[0]}'
        )
    _check_values(_sample(infos, DECODED))
    return np.array(sizes)


def _sample(infos, number):
    """At most `number` of them, evenly spaced, the first and the last among them."""
    if len(infos) <= number:
        return infos
    step = (len(infos) - 1) / (number - 1)
    return [infos[round(i * step)] for i in range(number)]


def _check_values(infos):
    """Raise if the loader would cut the values of images."""
    loader, top, deepest = LoadCheckedImage(), 0, None
    for info in infos:
        name = repr(info['img_path'])
        pixels = cv2.imdecode(np.fromfile(info['img_path'], np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError(f'{name}: OpenCV cannot decode it; replace or remove it')
        if pixels.ndim == 3 and pixels.shape[2] > 4:
            raise ValueError(
                f'{name}: it has {pixels.shape[2]} channels, and the networks take three; make '
                'images of three channels of it'
            )
        if pixels.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f'{name}: its values are {pixels.dtype} up to {pixels.max()}, and loading as 8 '
                'bits would leave little of them; convert the images to 8 bits'
            )
        try:
            loader.load(info)
        except (OSError, ValueError) as error:
            raise ValueError(f'{name}: {error}; replace or remove it') from error
        if pixels.dtype == np.uint16 and pixels.max() >= top:
            top, deepest = int(pixels.max()), name
    if deepest and top < 2**15:
        raise ValueError(
            f'{deepest}: its values are uint16 up to {top}, and loading as 8 bits would leave '
            f'{top // 256 + 1} levels of them; convert the images to 8 bits'
        )
