"""Whether an image file is intact: OpenCV 4.10 decodes half a JPEG without a warning."""

import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

# Of the files that tools take for images, in lower case: those of torchvision's ImageFolder, which
# `import gcp_mm` does not need
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')

# A marker of JPEG: not 0xff00, a byte 0xff of the pixels' code, and no restart marker within it
_MARKER = re.compile(rb'\xff+([^\x00\xff\xd0-\xd7])')
_PNG_END = b'IEND\xaeB`\x82'


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


def check_image_file(path: str | Path) -> None:
    """Check that a file is an image, by decoding it completely.

    Raises:
        OSError: if it cannot be read, is truncated, or is not an image.
        Exception: any exception of Pillow's decoders for a broken file, such as SyntaxError or
            ValueError.
    """
    content = Path(path).read_bytes()
    check_intact_image(content)
    with Image.open(io.BytesIO(content)) as image:
        image.draft('RGB', (1, 1))  # a JPEG is decoded at an eighth of its size, and as far
        image.load()


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
