"""Annotation files in COCO's format, and what MMDetection makes of them."""

import gc
import json
import os.path as osp
import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmengine.dataset import BaseDataset
from mmengine.registry import TRANSFORMS

from .context import Finding

NUMBERS = {int, float}  # of which bool is none
LARGEST = 2**53  # whole numbers beyond it are not exact in NumPy's arrays
FILTERED = 'of an image that filter_cfg or indices leaves out'


def _is_number(value):
    return type(value) in NUMBERS and abs(value) < LARGEST  # which NaN is not


def _are_numbers(values):
    right = isinstance(values, list) and NUMBERS.issuperset(map(type, values))
    return right and abs(sum(values)) < LARGEST


# What a file holds: {part: {key: (whether a value is right, what is expected)}}
ID = (lambda value: isinstance(value, str) or _is_number(value), 'a number or a string')
TEXT = (lambda value: isinstance(value, str) and value, 'a string')
SIZE = (lambda value: _is_number(value) and value > 0 and value % 1 == 0, 'a number of pixels')
BOX = (lambda value: _are_numbers(value) and len(value) == 4, 'four numbers [x, y, width, height]')
FLAG = (lambda value: type(value) in (bool, *NUMBERS) and value in (0, 1), '0 or 1')
RULES = dict(
    images=dict(id=ID, file_name=TEXT, width=SIZE, height=SIZE),
    categories=dict(id=ID, name=TEXT),
    annotations=dict(
        **dict(id=ID, image_id=ID, category_id=ID, bbox=BOX, area=(_is_number, 'a number')),
        **dict(iscrowd=FLAG, ignore=FLAG),
    ),
)
OPTIONAL = {'iscrowd', 'ignore'}
NOUNS = dict(images='image', categories='category', annotations='annotation')


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause garbage collection while many long-lived objects are created."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_annotations(path: str, contents: dict, evaluated: bool = False) -> tuple[dict, str]:
    """Read a file, once, and look for what MMDetection or pycocotools would fail at or misread.

    Args:
        path: of the file.
        contents: of the files read so far, by path; this one's is added.
        evaluated: whether pycocotools evaluates by it, which needs `iscrowd`.

    Returns:
        Its content, and the first fault with the path, the part, its key and value; '' if none.
    """
    key = osp.realpath(path)
    try:
        if key not in contents:
            with open(path) as file:  # as pycocotools does
                contents[key] = json.load(file)
    except (OSError, RecursionError, ValueError) as error:
        return {}, f'{path!r} is no JSON: {type(error).__name__}: {error}'
    content = contents[key]
    optional = OPTIONAL - {'iscrowd'} if evaluated else OPTIONAL
    faults = [*_malformed(content, optional)]
    faults = faults or [*_conflicting(content)]
    more = f' ({len(faults) - 1:,} more such faults)' if len(faults) > 1 else ''
    return content, f'{path!r}: {faults[0]}{more}; mend or remove it' if faults else ''


def _malformed(content, optional) -> Iterator[str]:
    """Say which values are of another form than COCO's."""
    if not isinstance(content, dict):
        yield f'holds {reprlib.repr(content)}, expected an object of {", ".join(RULES)}'
        return
    for part, rules in RULES.items():
        # Files of unlabeled images have no annotations.
        entries = content.get(part, [] if part == 'annotations' else None)
        if not isinstance(entries, list):
            yield f'{part}={reprlib.repr(entries)}, expected a list'
            continue
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                yield f'{part}[{number}]={reprlib.repr(entry)}, expected an object'
                continue
            for key, (is_right, expected) in rules.items():
                if is_right(entry.get(key)) or (key not in entry and key in optional):
                    continue
                key_is_right = ID[0](entry.get('id'))
                name = f'{NOUNS[part]} {entry["id"]!r}' if key_is_right else f'{part}[{number}]'
                value = f'{key}={reprlib.repr(entry[key])}' if key in entry else f'has no {key}'
                yield f'{name}: {value}, expected {expected}'


def _conflicting(content) -> Iterator[str]:
    """Say which ids stand for several things or, of images, for none."""
    for part, noun in NOUNS.items():
        counts = Counter(entry['id'] for entry in content.get(part, ()))
        for key, count in counts.items():
            if count > 1:
                yield f'{noun} id {key!r} stands for several {part}; give each its own'
        if len({isinstance(key, str) for key in counts}) > 1:  # NumPy makes strings of all
            yield f'some ids of {part} are strings, and others numbers'
    names = Counter(category['name'] for category in content['categories'])
    for name, count in names.items():
        if count > 1:  # MMDetection would give each of them a label
            yield f'{count} categories have the name {name!r}; merge them, or remove the unused one'
    images = {image['id'] for image in content['images']}
    for annotation in content.get('annotations', ()):
        if annotation['image_id'] not in images:
            name = f'annotation {annotation["id"]!r}: image_id={annotation["image_id"]!r}'
            yield f'{name} is the id of no image'


def inspect_annotations(
    dataset: BaseDataset,
    pipeline: Sequence[dict],
    contents: dict,
    evaluated: bool,
) -> list[Finding]:
    """Compare the objects in a dataset's file with those that it gives to the loss.

    Args:
        dataset: one that :func:`reads_coco`, its list unread; read afterwards, if all is right.
        pipeline: configs of its transforms.
        contents: as of :func:`read_annotations`.
        evaluated: whether it is for evaluation, where the file decides what counts.

    Returns:
        An error for a malformed file, classes that are absent or in another order, a mask that
        cannot be loaded, or if nothing reaches the loss; else a warning if MMDetection leaves
        annotations out.
    """
    path = dataset.ann_file
    content, fault = read_annotations(path, contents)
    if fault:
        return [Finding('annotations', 'error', fault)]
    _load(dataset, content)
    if _kept(dataset, content) != list(dataset.metainfo['classes']):
        return [Finding('annotations', 'error', f'{path!r}: {_name_classes(dataset, content)}')]
    loaders = [TRANSFORMS.build(step) for step in pipeline if step.get('with_mask')]
    total, left_out = len(content.get('annotations', ())), Counter()
    for fault in _compare(content, dataset, loaders, left_out):
        return [Finding('annotations', 'error', f'{path!r}: {fault}')]
    if evaluated or not left_out:
        return []
    number = left_out.total()
    parts = ', '.join(f'{count:,} {reason}' for reason, count in left_out.most_common())
    text = f'{path}: {number:,} of {total:,} annotations left out: {parts}'
    if number == total:
        return [Finding('annotations', 'error', f'{text}; none is left to learn from')]
    return [Finding('annotations', 'warning', text)]


def _load(dataset, content):
    """Let a dataset make its list of a file's content, without reading the file again."""
    api = dataset.COCOAPI

    def index(_):
        coco = api()
        coco.dataset = dict(content)  # some datasets sort the categories
        coco.createIndex()
        coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
        return coco

    dataset.COCOAPI = index
    dataset.serialize_data = False
    dataset.full_init()
    del dataset.COCOAPI


def _kept(dataset, content):
    """The categories that a dataset takes from its file's, in the order of their labels."""
    names = {category['id']: category['name'] for category in content['categories']}
    return [names[key] for key in dataset.cat_ids]


def _name_classes(dataset, content):
    """Say that classes are not the categories of a file, and what to write instead."""
    classes, kept = list(dataset.metainfo['classes']), _kept(dataset, content)
    names = [category['name'] for category in content['categories']]
    right = tuple(kept if len(kept) == len(classes) else names)
    own = type(dataset).METAINFO.get('classes')
    whose = f'the {len(own)} of {type(dataset).__name__}' if own == tuple(classes) else classes
    text = (
        f'its categories are {names}, and metainfo.classes are {whose}: labels would mean other '
        f'classes than their names say: set metainfo=dict(classes={right!r}) in the datasets of '
        f'all splits, and num_classes={len(right)} in the heads'
    )
    if kept and own != tuple(classes):  # those of another split's file
        text += f'; or give this file the categories {classes}, in this order: their ids can stay'
    return text


def _compare(content, dataset, loaders, left_out) -> Iterator[str]:
    """Say which masks cannot be loaded, and count in `left_out` what a dataset leaves out, why."""
    infos = {info['img_id']: info for info in dataset.data_list}
    groups = defaultdict(list)
    for annotation in content.get('annotations', ()):
        groups[annotation['image_id']].append(annotation)
    for image in content['images']:
        kept = groups[image['id']]
        info = infos.get(image['id'])
        if info is None or len(info['instances']) < len(kept):
            reasons = [_why(each, image, dataset) for each in kept]
            left_out.update(filter(None, reasons))
            kept = [each for each, why in zip(kept, reasons, strict=True) if not why]
        if info is None:
            left_out.update(FILTERED for _ in kept)
            continue
        faults = [_mask_fault(each, image) for each in kept] if loaders else []
        yield from filter(None, faults)
        if any(faults):
            continue
        results = dict(instances=[dict(each) for each in info['instances']])
        for loader in loaders:  # a whole transform would draw every mask, for minutes
            loader._process_masks(results)
        for annotation, instance in zip(kept, results['instances'], strict=True):
            if instance['ignore_flag']:
                left_out[_why_ignored(annotation)] += 1


def reason_left_out(annotation: dict, image: dict) -> str:
    """Why MMDetection's CocoDataset leaves out an annotation of any category; '' if it does not."""
    x, y, width, height = annotation['bbox']
    if annotation.get('ignore'):
        return "with 'ignore'"
    if width < 1 or height < 1:
        return 'with a box less than a pixel wide or high'
    if min(x + width, image['width']) <= max(x, 0) or min(y + height, image['height']) <= max(y, 0):
        return 'with a box outside its image'
    if annotation['area'] <= 0:
        return 'with no area'
    return ''


def _why(annotation, image, dataset):
    """Why a dataset that :func:`reads_coco` leaves an annotation out, '' if it does not."""
    reason = reason_left_out(annotation, image)
    is_class = annotation['category_id'] in dataset.cat_ids
    return reason or ('' if is_class else 'of a category that is no class')


def _why_ignored(annotation):
    """Why MMDetection's LoadAnnotations marks an object as one to ignore."""
    if annotation.get('iscrowd'):
        return 'with iscrowd=1'
    if isinstance(annotation['segmentation'], dict):
        return 'with a run-length encoded mask and poly2mask=False'
    return 'with no polygon of 3 points or more'


def _mask_fault(annotation, image, least=0):
    """What keeps an annotation's mask from being used, '' if nothing.

    pycocotools, unlike MMDetection, leaves out no polygon of less than `least` numbers: it would
    take four for a box, or fail.
    """
    mask = annotation.get('segmentation')
    if isinstance(mask, list) and mask:
        right = all(_are_numbers(part) and len(part) >= least for part in mask)
        expected = 'lists of numbers: [[x1, y1, x2, y2, ...], ...]'
    else:
        right = _is_mask(mask, image)
        expected = f"a mask of its image's {image['width']}x{image['height']} pixels, not empty"
    name = '' if right else f'annotation {annotation["id"]!r}: segmentation={reprlib.repr(mask)}'
    return name and f'{name}, expected {expected}; mend or remove it'


def _is_mask(mask, image):
    """Whether a segmentation is a run-length encoded mask of an image, and not empty."""
    from pycocotools import mask as coco_mask  # comes with MMDetection

    try:
        counts, (height, width) = mask['counts'], mask['size']
        if [height, width] != [image['height'], image['width']]:
            return False
        if isinstance(counts, list):
            if set(map(type, counts)) != {int} or min(counts) < 0:
                return False
            if sum(counts) != height * width:  # the rest of the image would be undefined
                return False
            mask = coco_mask.frPyObjects(mask, height, width)
        return bool(counts) and bool(coco_mask.decode(mask).any())
    except (LookupError, TypeError, ValueError):
        return False


def inspect_evaluator(
    metric: dict, where: str, datasets: Sequence[BaseDataset], contents: dict
) -> list[Finding]:
    """Look whether a CocoMetric evaluates by its datasets' file, and by all that is in it.

    Args:
        metric: its config.
        where: path of the evaluator in the config.
        datasets: those of the dataloader that :func:`reads_coco`, their lists read without a fault.
        contents: as of :func:`read_annotations`.

    Returns:
        An error for another file than the datasets', values that pycocotools does not take, or no
        object to evaluate; a warning for images that the dataloader does not give, each of which
        counts as one without detections, and for an annotation that never counts as found.
    """
    path = metric.get('ann_file')
    if not datasets:
        return []
    own = {osp.realpath(dataset.ann_file): dataset.ann_file for dataset in datasets}
    if path and own.keys() != {osp.realpath(path)}:
        text = (
            f"{where}.ann_file={path!r} is not the file of all the dataloader's datasets, "
            f'{", ".join(own.values())}: name theirs'
        )
        return [Finding('annotations', 'error', text)]
    classes, objects, texts = set(datasets[0].metainfo['classes']), [], []
    for file in own.values():
        content, fault = read_annotations(file, contents, evaluated=bool(path))
        if fault:
            return [Finding('annotations', 'error', f'{where}: {fault}')]
        kept = {c['id'] for c in content['categories'] if c['name'] in classes}
        objects += [a for a in content.get('annotations', ()) if a['category_id'] in kept]
    name = f'{where}: {(path or datasets[0].ann_file)!r}'
    if not metric.get('format_only') and all(each.get('iscrowd') for each in objects):
        texts.append(
            'holds no object of the classes without iscrowd=1: there is nothing to evaluate, and '
            'mAP would be -1; name another file or, for a test without ground truth, set '
            'format_only=True'
        )
    if path and 'segm' in metric.get('metric', 'bbox'):
        images = {image['id']: image for image in content['images']}
        faults = (_mask_fault(each, images[each['image_id']], 6) for each in objects)
        texts += [next(filter(None, faults), '')]
    errors = [Finding('annotations', 'error', f'{name}: {text}') for text in texts if text]
    if errors or not path:
        return errors
    warnings = []
    given = {info['img_id'] for dataset in datasets for info in dataset.data_list}
    if len(given) < len(content['images']):
        warnings.append(
            f'lists {len(content["images"]):,} images, of which the dataloader gives '
            f'{len(given):,}: all objects in the others will count as missed; evaluate all images, '
            "or leave out ann_file and add 'instances' to the meta_keys of PackDetInputs"
        )
    if any(each['id'] == 0 for each in objects):
        warnings.append(
            'has annotation 0, which pycocotools never counts as found; number them from 1'
        )
    return [Finding('annotations', 'warning', f'{name} {text}') for text in warnings]
