"""Image files as they are found in data sets: broken ones, and unusual ones that are intact."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 96, 64
ORIENTATION = Image.Exif()
ORIENTATION[0x112] = 6  # to be turned a quarter to the right when shown


def pixels():
    """Smooth colors, (HEIGHT, WIDTH, 3) uint8 RGB, which survive JPEG."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.BICUBIC))


def encode(image, kind='JPEG', **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def resized(png, width, height):
    """A PNG whose header promises so many pixels, and that has its own."""
    header = b'IHDR' + struct.pack('>II', width, height) + png[24:29]
    return png[:12] + header + struct.pack('>I', zlib.crc32(header)) + png[33:]


IMAGE = pixels()
JPEG, PNG = encode(IMAGE, quality=95), encode(IMAGE, 'PNG')
PREVIEWED = encode(IMAGE, quality=95, exif=b'Exif\0\0' + encode(IMAGE[:16, :24]))
TURNED = encode(IMAGE, quality=95, exif=ORIENTATION)
_MIDDLE = len(PNG) // 2

# {what: (content, what is said of it)}
BROKEN = {
    'JPEG cut in half': (JPEG[: len(JPEG) // 2], 'truncated'),
    'JPEG without its last 2 bytes': (JPEG[:-2], 'truncated'),
    'JPEG cut in half, with a preview': (PREVIEWED[: len(PREVIEWED) * 3 // 4], 'truncated'),
    'JPEG of zeros from its middle on': (
        JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2),
        'truncated',
    ),
    'PNG cut in half': (PNG[:_MIDDLE], 'truncated'),
    'PNG with a damaged byte': (
        PNG[:_MIDDLE] + bytes([PNG[_MIDDLE] ^ 255]) + PNG[_MIDDLE + 1 :],
        'finds no image in it, or a damaged one',
    ),
    'file of 0 bytes': (b'', 'the file is empty'),
    'text file': (b'<html>404 Not Found</html>', 'finds no image in it'),
    'PNG of 40000x40000 pixels': (resized(PNG, 40_000, 40_000), 'more pixels than OpenCV decodes'),
}

_RGB = Image.fromarray(IMAGE)
_ALPHA = np.dstack([IMAGE, np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))])
_GRAY = IMAGE[..., 1]
_PALETTE = _RGB.quantize(64)

# {what: (content, its pixels as RGB)}
UNUSUAL = {
    'grayscale JPEG': (encode(_GRAY, quality=95), np.dstack([_GRAY] * 3)),
    'CMYK JPEG': (encode(_RGB.convert('CMYK'), quality=95), IMAGE),
    'PNG with a palette': (encode(_PALETTE, 'PNG'), np.asarray(_PALETTE.convert('RGB'))),
    'PNG with transparency': (encode(_ALPHA, 'PNG'), IMAGE),
    'PNG of 16 bits': (encode(_GRAY.astype(np.uint16) * 256, 'PNG'), np.dstack([_GRAY] * 3)),
    'image of 1 pixel': (encode(IMAGE[:1, :1], 'PNG'), IMAGE[:1, :1]),
    'JPEG turned by EXIF': (TURNED, np.rot90(IMAGE, -1)),
    'JPEG followed by a video': (JPEG + bytes([0xFF, 0xDA, 1, 2]) * 999, IMAGE),
}
# What no decoder tells: the end is there, and what is missing before it turns gray
CLOSED = JPEG[: len(JPEG) // 2] + b'\xff\xd9'
