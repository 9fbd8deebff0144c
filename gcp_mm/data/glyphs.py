"""Letters and digits drawn with the fonts of a machine, as a classification set of 62 classes.

Families of fonts are kept apart: what is validated on was drawn with families never trained on.
"""

import hashlib
import json
import string
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFont

from .._io import sha256
from ..ops.arguments import check_integer
from .complete import written_once

# Folders that differ by more than the case of a letter.
CLASSES = {
    **{digit: digit for digit in string.digits},
    **{f'upper_{letter}': letter for letter in string.ascii_uppercase},
    **{f'lower_{letter}': letter for letter in string.ascii_lowercase},
}
SUFFIXES = ('.ttf', '.otf')


def find_fonts(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Fonts that have all 62 characters, by family.

    Args:
        folders: searched with all that is in them for .ttf and .otf files.

    Returns:
        {family: files}, both sorted; of files that draw the same the first one.

    Raises:
        FileNotFoundError: if a folder does not exist.
    """
    families, seen = defaultdict(list), set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f'FOLDER: there is no folder {str(folder)!r}')
        for path in sorted(folder.rglob('*')):
            if path.suffix.lower() not in SUFFIXES:
                continue
            family, drawn = _family(path)
            if family and drawn not in seen:
                seen.add(drawn)
                families[family].append(path)
    return dict(sorted(families.items()))


def _family(path):
    """Name of the family, and a hash of what the font draws for the 62 characters.

    None for a font without one of the characters or its outlines.
    """
    try:
        font = TTFont(path, lazy=True)
        name, characters = font['name'].getBestFamilyName(), font.getBestCmap() or {}
        drawn = ImageFont.truetype(str(path), 32)
        masks = [drawn.getmask(text) for text in CLASSES.values()]
    except (TTLibError, KeyError, OSError):
        return None, ''
    has_all = all(ord(text) in characters for text in CLASSES.values())
    if not has_all or not all(mask.getbbox() for mask in masks):
        return None, ''
    return name, hashlib.sha256(b''.join(map(bytes, masks))).hexdigest()


def draw_glyph(font: ImageFont.FreeTypeFont, text: str, size: int) -> np.ndarray:
    """A character in the middle of an image, white on black, (size, size) uint8."""
    wide = Image.new('L', (3 * size, 3 * size))
    ImageDraw.Draw(wide).text((size, size), text, fill=255, font=font)
    left, top, right, bottom = wide.getbbox()
    image = Image.new('L', (size, size))
    image.paste(wide.crop(wide.getbbox()), ((size - right + left) // 2, (size - bottom + top) // 2))
    return np.asarray(image)


def write_glyphs(
    root: Path,
    folders: Iterable[Path],
    size: int = 64,
    per_family: int = 2,
    val_families: int = 4,
) -> bool:
    """Write ``root/{train,val}/<class>/<font>.png``, and the fonts with their hashes.

    Every `val_families`-th family is for validation. ``root/fonts.json`` lists family, file name,
    SHA-256 and split of each font.

    Args:
        root: folder to make.
        folders: of fonts, see :func:`find_fonts`.
        size: width and height of the images in pixels, at least 16.
        per_family: fonts of a family at most, the first ones by name; they are its styles.
        val_families: one in so many families is for validation, at least 2.

    Returns:
        Whether anything was written; False where `root` is complete with the same fonts.

    Raises:
        FileNotFoundError: if a folder of `folders` does not exist.
        TypeError, ValueError: for a wrong option, fewer families than `val_families`, or a `root`
            that holds something else.
    """
    check_integer('size', size, 16)
    check_integer('per_family', per_family)
    check_integer('val_families', val_families, 2)
    families = find_fonts(folders)
    if len(families) < val_families:
        raise ValueError(
            f'FOLDER: expected fonts of at least {val_families} families with all of A-Z, a-z and '
            f'0-9, found {len(families)}; install some, such as the fonts-* packages of Debian'
        )
    fonts = [
        dict(
            family=family,
            file=path.name,
            sha256=sha256(path),
            split='val' if number % val_families == val_families - 1 else 'train',
        )
        for number, (family, paths) in enumerate(families.items())
        for path in paths[:per_family]
    ]
    paths = [path for of_family in families.values() for path in of_family[:per_family]]
    listing = json.dumps(fonts, indent=1)
    options = dict(size=size, fonts=hashlib.sha256(listing.encode()).hexdigest())
    with written_once(root, options) as folder:
        if folder is None:
            return False
        (folder / 'fonts.json').write_text(listing + '\n')
        for number, (path, listed) in enumerate(zip(paths, fonts, strict=True)):
            font = ImageFont.truetype(str(path), round(0.7 * size))
            for name, text in CLASSES.items():
                file = folder / listed['split'] / name / f'{number:04d}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw_glyph(font, text, size)).save(file)
    return True
