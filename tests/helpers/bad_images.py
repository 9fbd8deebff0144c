"""Image files as they are found in data sets: broken ones, and unusual ones that are intact."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 96, 64
ROTATED = 6  # EXIF: to be turned a quarter to the right when shown


def pixels():
    """Smooth colors, (HEIGHT, WIDTH, 3) uint8 RGB, which survive JPEG."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.BICUBIC))


def encode(image, kind='JPEG', **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation=1, preview=b''):
    """EXIF data, by hand: an orientation and, if given, a JPEG as preview."""
    entry = struct.Struct('<HHII').pack
    preview_at = 8 + 18 + 30
    header = b'II*\0' + struct.pack('<I', 8)
    first = struct.pack('<H', 1) + entry(0x112, 3, 1, orientation) + struct.pack('<I', 26)
    second = struct.pack('<H', 2) + entry(0x201, 4, 1, preview_at)
    second += entry(0x202, 4, 1, len(preview)) + struct.pack('<I', 0)
    return b'Exif\0\0' + header + first + second + preview


def png_of_size(width, height):
    """The header of a PNG that promises so many pixels, and next to none of them."""

    def chunk(kind, content):
        check = struct.pack('>I', zlib.crc32(kind + content))
        return struct.pack('>I', len(content)) + kind + content + check

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    parts = ((b'IHDR', header), (b'IDAT', zlib.compress(bytes(99))), (b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


IMAGE = pixels()
JPEG, PNG = encode(IMAGE, quality=95), encode(IMAGE, 'PNG')
PREVIEWED = encode(IMAGE, quality=95, exif=exif(preview=encode(IMAGE[:16, :24])))
_MIDDLE = len(PNG) // 2

# {what: (content, end of the file's name)}
BROKEN = {
    'JPEG cut in half': (JPEG[: len(JPEG) // 2], '.jpg'),
    'JPEG without its last 2 bytes': (JPEG[:-2], '.jpg'),
    'JPEG cut in half, with a preview': (PREVIEWED[: len(PREVIEWED) * 3 // 4], '.jpg'),
    'JPEG of zeros from its middle on': (JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2), '.jpg'),
    'PNG cut in half': (PNG[:_MIDDLE], '.png'),
    'PNG with a damaged byte': (
        PNG[:_MIDDLE] + bytes([PNG[_MIDDLE] ^ 255]) + PNG[_MIDDLE + 1 :],
        '.png',
    ),
    'file of 0 bytes': (b'', '.jpg'),
    'text file named .jpg': (b'<html>404 Not Found</html>', '.jpg'),
    'PNG of 40000x40000 pixels': (png_of_size(40_000, 40_000), '.png'),
}

_RGB = Image.fromarray(IMAGE)
_ALPHA = np.dstack([IMAGE, np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))])
_GRAY = IMAGE[..., 1]
_PALETTE = _RGB.quantize(64)

# {what: (content, end of the file's name, its pixels as RGB)}
UNUSUAL = {
    'grayscale JPEG': (encode(_GRAY, quality=95), '.jpg', np.dstack([_GRAY] * 3)),
    'CMYK JPEG': (encode(_RGB.convert('CMYK'), quality=95), '.jpg', IMAGE),
    'PNG with a palette': (encode(_PALETTE, 'PNG'), '.png', np.asarray(_PALETTE.convert('RGB'))),
    'PNG with transparency': (encode(_ALPHA, 'PNG'), '.png', IMAGE),
    'PNG of 16 bits': (
        encode(_GRAY.astype(np.uint16) * 256, 'PNG'),
        '.png',
        np.dstack([_GRAY] * 3),
    ),
    'image of 1 pixel': (encode(IMAGE[:1, :1], 'PNG'), '.png', IMAGE[:1, :1]),
    'JPEG turned by EXIF': (
        encode(IMAGE, quality=95, exif=exif(ROTATED)),
        '.jpg',
        np.rot90(IMAGE, -1),
    ),
    'JPEG followed by a video': (JPEG + bytes([0xFF, 0xDA, 1, 2]) * 999, '.jpg', IMAGE),
}
# What no decoder tells: the end is there, and what is missing before it turns gray
CLOSED = JPEG[: len(JPEG) // 2] + b'\xff\xd9'
