"""Loading of images that names the file it fails at, and may leave it out of training.

Files are checked before they are decoded: OpenCV 4.10 decodes half a JPEG without a warning.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import mmcv
import mmengine.fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS

# Of the files that tools take for images, in lower case: those of torchvision's ImageFolder, which
# `import gcp_mm` does not need
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')

# A marker of JPEG: not 0xff00, a byte 0xff of the pixels' code, and no restart marker within it
_MARKER = re.compile(rb'\xff+([^\x00\xff\xd0-\xd7])')
_PNG_END = b'IEND\xaeB`\x82'

REMEDY = (
    'Replace or remove it. `tools/check_data.py CONFIG --images` lists all such files; '
    "LoadCheckedImage with on_error='skip' leaves them out of training: docs/guides/bad_data.md"
)
TOO_LARGE = (
    'it has more pixels than OpenCV decodes (2^30, or 2^20 in one direction); '
    'OPENCV_IO_MAX_IMAGE_PIXELS, _WIDTH and _HEIGHT in the environment allow more'
)


@TRANSFORMS.register_module()
class LoadCheckedImage(LoadImageFromFile):
    """Load an image as `LoadImageFromFile` does, with an error that names a bad file.

    A file is bad if it is empty, truncated, unreadable or not an image. In detection data an image
    is also bad if its size differs from its annotations.

    Args:
        to_float32: return float32 instead of uint8.
        color_type: flag of :func:`mmcv.imfrombytes`.
        imdecode_backend: decoder of :func:`mmcv.imfrombytes`.
        backend_args: arguments of the file backend, see :func:`mmengine.fileio.get`.
        on_error: 'raise' stops at a bad image. 'skip' warns once per image and worker process and
            returns None; mmengine's datasets then take another image at random, and raise an error
            after 1000 bad ones in a row. 'skip' is for training only: `tools/train.py` and
            `tools/test.py` refuse it elsewhere.

    Raises:
        FileNotFoundError, ValueError: in :meth:`transform`, for a bad image.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        *,
        backend_args: dict | None = None,
        on_error: Literal['raise', 'skip'] = 'raise',
    ):
        super().__init__(to_float32, color_type, imdecode_backend, backend_args=backend_args)
        if on_error not in ('raise', 'skip'):
            raise ValueError(f"on_error: expected 'raise' or 'skip', got {on_error!r}")
        self.on_error = on_error
        self.warned = set()

    def transform(self, results: dict) -> dict | None:
        """Add `img`, `img_shape` and `ori_shape` to `results`, or return None to skip it."""
        path = results['img_path']
        try:
            image = self.load(results)
        except (FileNotFoundError, ValueError) as error:
            message = f'image {str(path)!r} cannot be used: {error}. {REMEDY}'
            if self.on_error == 'raise':
                raise type(error)(message) from error
            if path not in self.warned:
                self.warned.add(path)
                print_log(f'skipped: {message}', logger='current', level=logging.WARNING)
            return None
        results['img'] = self.convert(image)
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def load(self, info: dict) -> np.ndarray:
        """Read and decode an image.

        Args:
            info: `img_path` and, if known, `height` and `width` in pixels.

        Returns:
            The image as :func:`mmcv.imfrombytes` returns it.

        Raises:
            FileNotFoundError, ValueError: with the reason, but not the name of the file.
        """
        try:
            content = mmengine.fileio.get(info['img_path'], backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise FileNotFoundError('there is no such file') from error
        except OSError as error:
            raise ValueError(f'it cannot be read ({error.strerror or error})') from error
        check_intact_image(content)
        try:
            image = mmcv.imfrombytes(content, self.color_type, backend=self.imdecode_backend)
        except Exception as error:  # whatever decoding arbitrary bytes comes to
            reason = TOO_LARGE if 'CV_IO_MAX_IMAGE' in str(error) else str(error).strip()
            raise ValueError(reason) from error
        if image is None:
            raise ValueError(f'{self.imdecode_backend} finds no image in it, or a damaged one')
        _check_size(image, info)
        return image

    def convert(self, image: np.ndarray) -> np.ndarray:
        """An image of :meth:`load` in the dtype that the transform gives."""
        return image.astype(np.float32) if self.to_float32 else image


def _check_size(image, info):
    """Compare an image with the size that its annotations say, where they do."""
    height, width = image.shape[:2]
    said = info.get('height'), info.get('width')
    if None in said or said == (height, width):
        return
    turned = (
        ". Its EXIF data turn it, which color_type='color_ignore_orientation' does not follow"
        if said == (width, height)
        else ''
    )
    raise ValueError(
        f'it has {width}x{height} pixels, and its annotations say {said[1]}x{said[0]}{turned}'
    )


def check_intact_image(content: bytes) -> None:
    """Check that the content of an image file is not empty and, for JPEG and PNG, not truncated.

    It does not decode pixels, so it does not find damage inside a file. It does not check other
    formats.

    Args:
        content: the bytes of the whole file.

    Raises:
        ValueError: with the reason, but not the name of the file.
    """
    if not content:
        raise ValueError('the file is empty')
    if content.startswith(b'\xff\xd8') and not _jpeg_ends(content):
        raise ValueError('truncated: a JPEG without its end')
    if content.startswith(b'\x89PNG') and content.rfind(_PNG_END) < 0:
        raise ValueError('truncated: a PNG without its end')


def count_suffixes(paths: Iterable[str | Path]) -> str:
    """Count files by suffix, such as '2 .gif, 1 .txt'."""
    counts = Counter(Path(path).suffix.lower() or 'without suffix' for path in paths)
    return ', '.join(f'{number:,} {suffix}' for suffix, number in counts.most_common())


def class_files(root: Path, suffixes: Sequence[str], folders: bool = False) -> list[Path]:
    """Files in ``<root>/<class>/``, sorted; what else is there is counted in a warning.

    Args:
        root: folder of the class folders.
        suffixes: of the files, in lower case.
        folders: take the folders in a class folder too, as a file each.

    Raises:
        FileNotFoundError: if there are none.
    """
    beside = {path for path in root.glob('[!.]*') if not path.is_dir()}
    inside = {*root.glob('[!.]*/[!.]*')}
    found = sorted(
        path for path in inside if (folders if path.is_dir() else path.suffix.lower() in suffixes)
    )
    if not found:
        raise FileNotFoundError(f'{root}: expected files in <class>/, found none')
    if left_out := beside | inside - {*found}:
        text = f'{root}: left out by suffix or place: {count_suffixes(left_out)}'
        print_log(text, logger='current', level=logging.WARNING)
    return found


def _jpeg_ends(content):
    """Whether the segments of a JPEG lead to its end mark."""
    if content.rstrip(b'\0').endswith(b'\xff\xd9'):
        return True
    # Something follows the image, such as the video of a phone's "motion photo", or its end is
    # missing: an end mark somewhere proves nothing, it may be that of the preview in the header.
    at = 2
    while found := _MARKER.search(content, at):
        if found[1] == b'\xd9':
            return True
        at = found.end() + int.from_bytes(content[found.end() : found.end() + 2], 'big')
    return False
