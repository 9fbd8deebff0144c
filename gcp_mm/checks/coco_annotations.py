"""What is in an annotation file of COCO's format that MMDetection leaves out, or cannot use."""

from collections import Counter
from collections.abc import Sequence

import mmengine


def inspect_annotations(path: str, classes: Sequence[str], masks: bool) -> str:
    """Look for annotations that training would not see as they are meant.

    Args:
        path: of the annotation file.
        classes: names of the dataset's classes.
        masks: whether its pipeline loads masks.

    Returns:
        How many annotations are left out, and why; '' if none is.

    Raises:
        ValueError: for an image id that stands for two images, an annotation without an image or,
            with `masks`, without a mask; for classes that are absent or in another order.
    """
    content = mmengine.load(path)
    names = [c['name'] for c in content['categories'] if c['name'] in classes]
    if names != list(classes):
        raise ValueError(
            f'{path!r}: of the classes, its categories hold {names}, in this order, and '
            f'metainfo.classes are {list(classes)}: labels would mean other classes than their '
            'names say; make them agree'
        )
    images = {image['id']: image for image in content['images']}
    if len(images) < len(content['images']):
        ids = Counter(image['id'] for image in content['images'])
        raise ValueError(
            f'{path!r}: image id {ids.most_common(1)[0][0]!r} stands for several images, of which '
            'the last would get the annotations of all; give each its own'
        )
    categories = {c['id'] for c in content['categories'] if c['name'] in classes}
    reasons = Counter()
    for annotation in content.get('annotations', ()):  # those of unlabelled images lack it
        image = images.get(annotation['image_id'])
        if image is None:
            raise ValueError(
                f'{path!r}: annotation {annotation["id"]!r} is of image '
                f'{annotation["image_id"]!r}, which is not in its list; remove it or add the image'
            )
        reason = _box_reason(annotation, image, categories)
        if masks and not reason:
            reason = _mask_reason(annotation, image, path)
        reasons[reason] += 1
    total, kept = sum(reasons.values()), reasons.pop('', 0)
    if kept == total:
        return ''
    parts = ', '.join(f'{number:,} {reason}' for reason, number in reasons.most_common())
    return f'{total - kept:,} of {total:,} annotations left out: {parts}'


def _box_reason(annotation, image, categories):
    """Why MMDetection's CocoDataset leaves an annotation out, '' if it does not."""
    x, y, width, height = annotation['bbox']
    # As there: zero for a number that is none too
    inside_x = max(0, min(x + width, image['width']) - max(x, 0))
    inside_y = max(0, min(y + height, image['height']) - max(y, 0))
    if annotation.get('ignore', False):
        return "with 'ignore'"
    if width < 1 or height < 1:
        return 'with a box less than a pixel wide or high'
    if inside_x * inside_y == 0:
        return 'with a box outside its image'
    if annotation['area'] <= 0:
        return 'with no area'
    if annotation['category_id'] not in categories:
        return 'of a category that is no class'
    return ''


def _mask_reason(annotation, image, path):
    """Why a mask is ignored, '' if it is not; ValueError for one that is no mask."""
    mask = annotation.get('segmentation')
    if isinstance(mask, list) and mask:
        usable = any(len(part) % 2 == 0 and len(part) >= 6 for part in mask)
        return '' if usable else 'with a polygon of fewer than 3 points'
    size = [image['height'], image['width']]
    try:
        wrong = not mask or list(mask['size']) != size or not _decode(mask).any()
    except (LookupError, TypeError, ValueError):
        wrong = True
    if wrong:
        raise ValueError(
            f'{path!r}: annotation {annotation["id"]!r} has no mask in its segmentation, or an '
            f"empty one, or one that is not of its image's {size[1]}x{size[0]} pixels, and the "
            'pipeline loads masks; mend or remove it'
        )
    return ''


def _decode(mask):
    """Pixels of a run-length encoded mask, (H, W) uint8."""
    from pycocotools import mask as coco_mask  # comes with MMDetection

    counts, (height, width) = mask['counts'], mask['size']
    if not counts or (isinstance(counts, list) and sum(counts) != height * width):
        raise ValueError('runs that do not cover the image, whose rest would be undefined')
    if isinstance(counts, list):
        mask = coco_mask.frPyObjects(mask, height, width)
    return coco_mask.decode(mask)
