"""A few tiny images in COCO's own file layout, with its categories and both forms of its masks."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

# The 80 of 1 ... 90 that COCO's annotations use
CATEGORY_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def write_coco(root: Path, classes, width=128, height=96) -> None:
    """Write ``root/{train,val}2017/*.jpg`` and ``root/annotations/instances_{train,val}2017.json``.

    Two images of each split show a person, a toothbrush (the first and the last category) and a
    crowd of persons, whose mask is run-length encoded as COCO's crowds are. A third has no
    annotation, which some of COCO's lack too.

    Args:
        root: folder to make.
        classes: names of the 80 categories in COCO's order.
        width, height: of the images, in pixels.
    """
    rng = np.random.default_rng(0)
    categories = [
        dict(id=i, name=name, supercategory='thing')
        for i, name in zip(CATEGORY_IDS, classes, strict=True)
    ]
    boxes = ((1, 8, 10, 40, 60), (90, 60, 20, 30, 50))  # category, then x, y, width, height
    crowd = np.zeros((height, width), np.uint8)
    crowd[2:20, 90:120] = 1
    changes = np.flatnonzero(np.diff(crowd.flatten('F'))) + 1
    counts = np.diff([0, *changes, crowd.size]).tolist()  # down the columns, from a run of zeros
    (root / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        (root / f'{split}2017').mkdir()
        images, annotations = [], []
        for image_id in (139, 285, 632):
            name = f'{image_id:012d}.jpg'
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / f'{split}2017' / name)
            images.append(dict(id=image_id, file_name=name, width=width, height=height))
        for image in images[:2]:
            for category_id, x, y, w, h in boxes:
                annotations.append(
                    dict(
                        image_id=image['id'],
                        category_id=category_id,
                        bbox=[x, y, w, h],
                        area=w * h,
                        iscrowd=0,
                        segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                    )
                )
            annotations.append(
                dict(
                    image_id=image['id'],
                    category_id=1,
                    bbox=[90, 2, 30, 18],
                    area=30 * 18,
                    iscrowd=1,
                    segmentation=dict(size=[height, width], counts=counts),
                )
            )
        for number, annotation in enumerate(annotations, 1):
            annotation['id'] = number
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / f'annotations/instances_{split}2017.json').write_text(json.dumps(content))
