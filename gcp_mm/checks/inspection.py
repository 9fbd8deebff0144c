"""Every list of images and annotations of a config, read as its framework reads it."""

import os
import os.path as osp
from collections import Counter
from collections.abc import Iterator, Sequence

import mmengine
import numpy as np

from .context import Context, Finding, name_of
from .data import (
    REMEDY,
    build_dataset,
    find_annotated,
    find_datasets,
    find_missing,
    is_remote,
    missing_file,
)

# Images of the complete ImageNet (ILSVRC 2012), to be read beside what was found
IMAGENET_IMAGES = dict(train=1_281_167, val=50_000)


def check_lists(context: Context) -> Iterator[Finding]:
    """Read what all dataloaders and evaluators of a config read, and look for every image."""
    cfg = context.cfg
    for split in ('train', 'val', 'test'):
        loader, evaluator = f'{split}_dataloader', f'{split}_evaluator'
        if split == 'test' and cfg.get(loader) and cfg[loader] == cfg.get('val_dataloader'):
            yield Finding(loader, 'ok', 'the same as val_dataloader')
        else:
            for dataset in find_datasets(cfg.get(loader)):
                yield from inspect_dataset(dataset, loader, context.scope)
        for metric in find_annotated(cfg.get(evaluator)):
            error = missing_file(metric['ann_file'], f'{evaluator}.ann_file')
            found = f'{name_of(metric)} with {metric["ann_file"]}'
            yield Finding(evaluator, 'error' if error else 'ok', error or found)


def inspect_dataset(config: dict, loader: str, scope: str | None = None) -> list[Finding]:
    """Read a dataset's list of images, and look for each of them.

    Args:
        config: of one dataset.
        loader: name of its dataloader.
        scope: the framework's registry, 'mmpretrain' or 'mmdet'.

    Returns:
        What is wrong with it or, if nothing, its files and folders, and the numbers of images,
        classes and annotations in them.
    """
    kind, where = name_of(config), f'{loader}.dataset'
    missing = find_missing(config, loader, scope)
    if missing:
        return [Finding(loader, 'error', text) for text in missing]
    if is_remote(config):
        return [Finding(loader, 'skipped', f'{kind}, remote: not looked at')]
    try:
        dataset = build_dataset(config, scope, lazy_init=True)
        if getattr(dataset, 'download', False):
            text = f'{kind}, which MMPretrain downloads where it is absent'
            return [Finding(loader, 'skipped', text)]
        if dataset is not None:
            dataset.serialize_data = False
            dataset.full_init()
    except Exception as error:  # whatever a list that is cut short leads to
        path = dataset.ann_file or next(iter(dataset.data_prefix.values()), '')
        text = f'{kind} cannot read its list of images, {path!r}: {type(error).__name__}: {error}'
        return [Finding(loader, 'error', f'{where}: {text}; {REMEDY}')]
    if dataset is None:
        return [Finding(loader, 'skipped', f'{kind} is of another package: not looked at')]
    images = dataset.data_list
    if not images:
        text = f'{where}: {kind} finds no image to use; {REMEDY}'
        return [Finding(loader, 'error', text)]
    absent = _absent(image['img_path'] for image in images if 'img_path' in image)
    if absent:
        text = (
            f'{where}: {len(absent):,} of {len(images):,} images do not exist, the first is '
            f'{absent[0]!r}; {REMEDY}'
        )
        return [Finding(loader, 'error', text)]
    findings = []
    counted = [f'{len(images):,} images']
    complete = IMAGENET_IMAGES.get(config.get('split')) if kind == 'ImageNet' else None
    if complete and complete != len(images):
        counted[0] += f' (the complete set: {complete:,})'
    if 'gt_label' in images[0]:
        error, text = _count_labels(dataset, loader)
        counted.append(text)
    elif 'instances' in images[0]:
        error, text = _count_objects(dataset, loader)
        counted.append(text)
        if kind == 'CocoDataset':
            masks = any(step.get('with_mask') for step in config.get('pipeline', ()))
            classes = dataset.metainfo['classes']
            findings = inspect_annotations(dataset.ann_file, classes, masks, loader)
    else:
        error = ''
    if error:
        return [Finding(loader, 'error', f'{where}: {error}')]
    if any(finding.status == 'error' for finding in findings):
        return findings
    paths = [path for path in (*dataset.data_prefix.values(), dataset.ann_file) if path]
    text = f'{kind} in {", ".join(paths)}: {", ".join(counted)}'
    return [Finding(loader, 'ok', text), *findings]


def _count_labels(dataset, loader):
    """What is wrong with the labels of a dataset, or '', and how many classes they have."""
    given = [image['gt_label'] for image in dataset.data_list]
    if isinstance(given[0], dict):  # of several tasks
        tasks = Counter(task for label in given for task in label)
        return '', ', '.join(f'{number:,} labels of {task}' for task, number in tasks.items())
    # One of each image, a list or, of a test set, None
    lists = any(isinstance(label, list) for label in given)
    labels = {int(one) for label in given if label is not None for one in np.ravel(label)}
    if not labels and loader != 'test_dataloader':
        return f'no image has a label; {REMEDY}', ''
    classes = len(dataset.metainfo.get('classes') or labels)
    if lists and labels and 'classes' not in dataset.metainfo:
        classes = max(labels) + 1  # such as InShop's queries, whose labels are images
    if labels and (min(labels) < 0 or max(labels) >= classes):
        got = f'{min(labels)} to {max(labels)}'
        return f'expected labels 0 to {classes - 1}, got {got}; {REMEDY}', ''
    folders = getattr(dataset, 'folder_to_idx', {})  # where there is no annotation file
    empty = sorted(folder for folder, label in folders.items() if label not in labels)
    if empty and loader == 'train_dataloader':  # in validation one keeps the place of its class
        number = f'{len(empty)} of {len(folders)}'
        return f'{number} class folders hold no image, the first is {empty[0]!r}; {REMEDY}', ''
    without = f' and {len(empty):,} folders without' if empty else ''
    return '', f'{len(labels):,} classes{without}'


def _count_objects(dataset, loader):
    """What is wrong with the objects of a dataset, or '', and how many there are."""
    classes = tuple(dataset.metainfo['classes'])
    objects = sum(len(image['instances']) for image in dataset.data_list)
    if not objects and loader != 'test_dataloader':  # a test set may keep them secret
        text = f'{dataset.ann_file!r} holds no object of the classes {classes}'
        return f'{text}; name its own in metainfo.classes', ''
    return '', f'{objects:,} annotations, {len(classes):,} classes'


def _absent(paths):
    """Those of `paths` that do not exist; lists each folder once, not asking for each file."""
    folders = {}
    absent = []
    for path in paths:
        folder, file = osp.split(path)
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if osp.isdir(folder) else set()
        if file not in folders[folder]:
            absent.append(path)
    return absent


def inspect_annotations(
    path: str, classes: Sequence[str], masks: bool, check: str
) -> list[Finding]:
    """Look for annotations in COCO's format that training would not see as they are meant.

    Args:
        path: of the annotation file.
        classes: names of the dataset's classes.
        masks: whether its pipeline loads masks.
        check: name of the check.

    Returns:
        An error for an image id that stands for two images, an annotation without an image or,
        with `masks`, without a mask, or classes that are absent or in another order; else a
        warning if MMDetection leaves annotations out.
    """
    content = mmengine.load(path)
    names = [c['name'] for c in content['categories'] if c['name'] in classes]
    if names != list(classes):
        text = (
            f'of the classes, its categories hold {names}, in this order, and metainfo.classes are '
            f'{list(classes)}: labels would mean other classes than their names say; make them '
            'agree'
        )
        return [Finding(check, 'error', f'{path!r}: {text}')]
    ids = Counter(image['id'] for image in content['images'])
    if len(ids) < len(content['images']):
        text = (
            f'image id {ids.most_common(1)[0][0]!r} stands for several images, of which the last '
            'would get the annotations of all; give each its own'
        )
        return [Finding(check, 'error', f'{path!r}: {text}')]
    images = {image['id']: image for image in content['images']}
    categories = {c['id'] for c in content['categories'] if c['name'] in classes}
    reasons = Counter()
    for annotation in content.get('annotations', ()):  # those of unlabelled images lack it
        image = images.get(annotation['image_id'])
        reason = image and _reason(annotation, image, categories, masks)
        error = '' if reason else _annotation_error(annotation, image, masks)
        if error:
            text = f'{path!r}: annotation {annotation["id"]!r} {error}'
            return [Finding(check, 'error', text)]
        reasons[reason] += 1
    total, kept = sum(reasons.values()), reasons.pop('', 0)
    if kept == total:
        return []
    parts = ', '.join(f'{number:,} {reason}' for reason, number in reasons.most_common())
    text = f'{path}: {total - kept:,} of {total:,} annotations left out: {parts}'
    return [Finding(check, 'warning', text)]


def _annotation_error(annotation, image, masks):
    """What is wrong with an annotation, '' if nothing."""
    if image is None:
        return (
            f'is of image {annotation["image_id"]!r}, which is not in its list; remove it or add '
            'the image'
        )
    mask = annotation.get('segmentation')
    if not masks or (isinstance(mask, list) and mask) or _is_mask(mask, image):
        return ''
    return (
        "has no mask in its segmentation, or an empty one, or one that is not of its image's "
        f'{image["width"]}x{image["height"]} pixels, and the pipeline loads masks; mend or remove '
        'it'
    )


def _is_mask(mask, image):
    """Whether a segmentation is a run-length encoded mask of an image, and not empty."""
    from pycocotools import mask as coco_mask  # comes with MMDetection

    try:
        counts, (height, width) = mask['counts'], mask['size']
        if [height, width] != [image['height'], image['width']]:
            return False
        if isinstance(counts, list):
            if sum(counts) != height * width:  # the rest of the image would be undefined
                return False
            mask = coco_mask.frPyObjects(mask, height, width)
        return bool(counts) and bool(coco_mask.decode(mask).any())
    except (LookupError, TypeError, ValueError):
        return False


def _reason(annotation, image, categories, masks):
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
    polygons = annotation.get('segmentation')
    if not masks or not isinstance(polygons, list) or not polygons:
        return ''
    if any(len(part) % 2 == 0 and len(part) >= 6 for part in polygons):
        return ''
    return 'with a polygon of fewer than 3 points'
