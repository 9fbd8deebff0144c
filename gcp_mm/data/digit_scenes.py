"""Scenes of real handwritten digits on noise, with boxes and masks in COCO's format."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from .complete import written_once
from .digits import NUM_VAL, SEED, enlarge, load_splits

CLASSES = tuple(str(digit) for digit in range(10))
MAX_DIGITS = 4  # in a scene


def write_scenes(
    root: Path,
    scene_size: int = 160,
    train_scenes: int = 400,
    val_scenes: int = 100,
) -> bool:
    """Write ``root/{train,val}/*.png`` and ``root/annotations/instances_{train,val}.json``.

    Every scene holds 1 to 4 digits of the split it belongs to, in a bright color, 0.2 to 0.45 of
    the scene wide, whose boxes do not overlap; fewer where no room is left. Masks are run-length
    encoded: digits have holes, which polygons in COCO's format do not.

    Args:
        root: folder to make.
        scene_size: width and height of a scene in pixels, at least 40.
        train_scenes: number of training scenes.
        val_scenes: number of validation scenes.

    Returns:
        Whether anything was written; False where `root` is complete with the same options.

    Raises:
        ValueError: for a `root` that holds something else.
    """
    counts = {'train': train_scenes, 'val': val_scenes}
    made_by = dict(max_digits=MAX_DIGITS, val_digits=NUM_VAL, seed=SEED)
    options = dict(scene_size=scene_size, **counts, **made_by)
    with written_once(root, options) as folder:
        if folder is None:
            return False
        (folder / 'annotations').mkdir()
        for number, (split, (digits, labels)) in enumerate(load_splits().items()):
            rng = np.random.default_rng([SEED, number])
            (folder / split).mkdir()
            images, annotations = [], []
            for image_id in range(counts[split]):
                scene, objects = draw_scene(digits, labels, scene_size, rng)
                name = f'{image_id:05d}.png'
                Image.fromarray(scene).save(folder / split / name)
                images.append(
                    dict(id=image_id, file_name=name, width=scene_size, height=scene_size)
                )
                for label, mask in objects:
                    annotations.append(_annotation(len(annotations) + 1, image_id, label, mask))
            categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES)]
            content = dict(images=images, annotations=annotations, categories=categories)
            (folder / f'annotations/instances_{split}.json').write_text(json.dumps(content))
    return True


def draw_scene(digits, labels, size, rng):
    """Draw one scene.

    Args:
        digits: (n, 8, 8) digits in [0, 1] to choose from.
        labels: (n,) their classes.
        size: width and height of the scene in pixels.
        rng: :class:`numpy.random.Generator`.

    Returns:
        The scene, (size, size, 3) uint8 RGB, and a list of (label, (size, size) bool mask).
    """
    scene = rng.normal(rng.uniform(30, 110), 20, (size, size, 3))
    taken = np.zeros((size, size), bool)
    objects = []
    for _ in range(rng.integers(1, MAX_DIGITS, endpoint=True)):
        pick = rng.integers(len(digits))
        width = int(size * rng.uniform(0.2, 0.45))
        ink = enlarge(digits[pick], width)
        color = rng.uniform(170, 255, 3)
        for _ in range(20):  # positions to try before the scene counts as full
            top, left = rng.integers(0, size - width, 2, endpoint=True)
            window = (slice(top, top + width), slice(left, left + width))
            if not taken[window].any():
                break
        else:
            continue
        scene[window] += ink[..., None] * (color - scene[window])
        mask = np.zeros((size, size), bool)
        mask[window] = ink > 0.4
        objects.append((int(labels[pick]), mask))
        taken[window] = True
    return scene.clip(0, 255).astype(np.uint8), objects


def _annotation(annotation_id, image_id, label, mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(
        id=annotation_id,
        image_id=image_id,
        category_id=label,
        bbox=coco_mask.toBbox(rle).tolist(),  # x, y, width, height
        area=int(coco_mask.area(rle)),
        iscrowd=0,
        segmentation=dict(size=rle['size'], counts=rle['counts'].decode('ascii')),
    )
