"""Images of shapes: class folders, and a set in COCO's format, as people have them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ('circle', 'cross', 'ring', 'square', 'star', 'triangle')
SHARP = 4  # times the resolution that a shape is drawn at


def write_folders(root: Path, train: int = 60, val: int = 20, classes=CLASSES, seed: int = 0):
    """Write ``root/{train,val}/<class>/<number>.{jpg,png}``, of 80 to 300 pixels each way."""
    rng = np.random.default_rng(seed)
    for split, number in (('train', train), ('val', val)):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                width = int(rng.integers(80, 300, endpoint=True))
                height = int(np.clip(width * rng.uniform(0.7, 1.4), 80, 300))
                image = background(width, height, rng)
                draw(image, name, rng)
                image.save(folder / f'{i:03d}{(".jpg", ".png")[i % 2]}')


def write_coco(root: Path, train: int = 40, val: int = 20, classes=('circle', 'star'), seed=0):
    """Write ``root/{train,val}/*.jpg`` and ``root/annotations/instances_{train,val}.json``.

    Each image, of 96 to 160 pixels each way, has one to three shapes, with boxes and polygons.
    Ids of the categories are not in a row, as those of COCO.
    """
    rng = np.random.default_rng(seed)
    (root / 'annotations').mkdir(parents=True)
    for split, number in (('train', train), ('val', val)):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(number):
            width, height = (int(side) for side in rng.integers(96, 160, 2, endpoint=True))
            image, taken = background(width, height, rng), []
            for _ in range(rng.integers(1, 3, endpoint=True)):
                label = int(rng.integers(len(classes)))
                outline = draw(image, classes[label], rng, (0.3, 0.6), taken)
                if outline is None:
                    continue
                (left, top), (right, bottom) = outline.min(0), outline.max(0)
                box = [left, top, right - left, bottom - top]
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=i + 1,
                        category_id=3 * label + 2,
                        bbox=[float(value) for value in box],
                        area=float(box[2] * box[3]),
                        iscrowd=0,
                        segmentation=[outline.ravel().tolist()],
                    )
                )
            name = f'{i:03d}.jpg'
            image.save(root / split / name)
            images.append(dict(id=i + 1, file_name=name, width=width, height=height))
        categories = [dict(id=3 * i + 2, name=name) for i, name in enumerate(classes)]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(content))


def background(width, height, rng):
    """A dark image of noise on a color that goes from one to another."""
    start, end = rng.uniform(10, 110, (2, 1, 1, 3))
    slope = np.linspace(0, 1, width)[None, :, None]
    pixels = start + slope * (end - start) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw(image, name, rng, scale=(0.5, 0.95), taken=None):
    """Draw a shape, of a share `scale` of the shorter side, where no box of `taken` is.

    Returns:
        Its outline, (n, 2) pixels; None if there was no room.
    """
    width, height = image.size
    for _ in range(20):
        size = rng.uniform(*scale) * min(width, height)
        center = rng.uniform(size / 2, np.array([width, height]) - size / 2)
        box = [*(center - size / 2), *(center + size / 2)]
        if not any(_overlap(box, other) for other in taken or ()):
            break
    else:
        return None
    if taken is not None:
        taken.append(box)
    turn = rng.uniform(-0.4, 0.4)
    outlines = [size / 2 * _outline(name) @ _rotation(turn) + center]
    if name == 'ring':
        outlines.append(0.55 * (outlines[0] - center) + center)
    mask = Image.new('L', (width * SHARP, height * SHARP))
    for value, outline in zip((255, 0), outlines, strict=False):
        ImageDraw.Draw(mask).polygon([tuple(point) for point in outline * SHARP], fill=value)
    color = rng.uniform(140, 255, 3)
    image.paste(tuple(int(value) for value in color), mask=mask.resize((width, height)))
    return outlines[0].clip(0, [width, height])


def _overlap(a, b):
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def _rotation(angle):
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _outline(name):
    """Corners of a shape in the unit circle."""
    if name in ('circle', 'ring'):
        return _polygon(48)
    if name == 'square':
        return _polygon(4, start=np.pi / 4)
    if name == 'triangle':
        return _polygon(3)
    if name == 'star':
        radii = np.tile([1, 0.45], 5)
        return _polygon(10) * radii[:, None]
    a, b = 0.3, 0.95  # a cross
    corners = [(a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a)]
    return np.array([*corners, *((-x, -y) for x, y in corners)])


def _polygon(corners, start=-np.pi / 2):
    angles = start + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)
