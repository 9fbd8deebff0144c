"""A whole look at a config's data: every image it names is there, and how many there are."""

import os
import os.path as osp
from collections.abc import Callable, Iterator
from functools import partial

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from .coco_annotations import inspect_annotations
from .data import DOWNLOADED, REMEDY, check_dataset, check_file, find_annotated, find_datasets
from .tree import name_of

# Images of the complete ImageNet (ILSVRC 2012), to be read beside what was found
IMAGENET_IMAGES = dict(train=1_281_167, val=50_000)


def data_checks(cfg: Config) -> Iterator[tuple[str, Callable[[], str]]]:
    """The checks of everything a config's dataloaders and evaluators read.

    Args:
        cfg: config of a classifier or of a detector, command-line options merged.

    Yields:
        What is checked, such as 'train_dataloader', and a function that checks it. The function
        returns in words what it found, or raises like :func:`inspect_dataset`.
    """
    for split in ('train', 'val', 'test'):
        dataloader, evaluator = f'{split}_dataloader', f'{split}_evaluator'
        if split == 'test' and cfg.get(dataloader) and cfg[dataloader] == cfg.get('val_dataloader'):
            yield dataloader, lambda: 'the same as val_dataloader'
        elif cfg.get(dataloader):
            for dataset in find_datasets(cfg[dataloader]):
                scope = cfg.get('default_scope')
                yield dataloader, partial(inspect_dataset, dataset, dataloader, scope)
        if cfg.get(evaluator):
            for metric in find_annotated(cfg[evaluator]):
                yield evaluator, partial(_inspect_metric, metric, evaluator)


def inspect_dataset(config: dict, name: str, scope: str | None = None) -> str:
    """Read a dataset's list of images as its framework does, and look for each of them.

    Args:
        config: of one dataset.
        name: of its dataloader, for messages.
        scope: the framework's registry, 'mmpretrain' or 'mmdet'.

    Returns:
        Its files and folders, and the numbers of images, classes and annotations in them.

    Raises:
        FileNotFoundError: for an absent folder, annotation file or image.
        ValueError: for an empty one, a class folder without an image, or lists that the
            framework cannot read.
    """
    check_dataset(config, name, scope)
    kind = name_of(config)
    if kind in DOWNLOADED:
        return f'{kind}, which MMPretrain downloads where it is absent'
    if '://' in f'{config.get("data_root")}{config.get("data_prefix")}{config.get("ann_file")}':
        return f'{kind}, remote: not looked at'
    with DefaultScope.overwrite_default_scope(scope):
        try:
            dataset = DATASETS.build({**config, 'pipeline': [], 'serialize_data': False})
        except (AssertionError, LookupError, RuntimeError, ValueError) as error:
            raise ValueError(
                f'{name}.dataset: {kind} cannot read its list of images, {_list_of(config)!r}: '
                f'{type(error).__name__}: {error}; {REMEDY}'
            ) from error
    images = dataset.data_list
    if not images:
        raise ValueError(f'{name}.dataset: {kind} finds no image to use; {REMEDY}')
    missing = _missing(image['img_path'] for image in images)
    if missing:
        raise FileNotFoundError(
            f'{name}.dataset: {len(missing):,} of {len(images):,} images do not exist, the first '
            f'is {missing[0]!r}; {REMEDY}'
        )
    found = [f'{len(images):,} images']
    complete = IMAGENET_IMAGES.get(config.get('split')) if kind == 'ImageNet' else None
    if complete and complete != len(images):
        found[0] += f' (the complete set: {complete:,})'
    if 'gt_label' in images[0]:
        found.append(_count_labels(dataset, name))
    elif 'instances' in images[0]:
        found.append(f'{_count_objects(dataset, name):,} annotations')
        found.append(f'{len(dataset.metainfo["classes"]):,} classes')
        if kind == 'CocoDataset':
            masks = any(step.get('with_mask') for step in config.get('pipeline', []))
            found.append(inspect_annotations(dataset.ann_file, dataset.metainfo['classes'], masks))
    paths = [path for path in (*dataset.data_prefix.values(), dataset.ann_file) if path]
    return f'{kind} in {", ".join(paths)}: {", ".join(filter(None, found))}'


def _list_of(config):
    """Path of a dataset's list of images: a file, or the folder that they are in."""
    prefix = config.get('data_prefix') or ''
    if isinstance(prefix, dict):
        prefix = next(iter(prefix.values()), '')
    return osp.join(config.get('data_root') or '', config.get('ann_file') or prefix)


def _count_labels(dataset, name):
    labels = {image['gt_label'] for image in dataset.data_list}
    classes = len(dataset.metainfo.get('classes') or labels)
    if min(labels) < 0 or max(labels) >= classes:
        raise ValueError(
            f'{name}.dataset: expected labels 0 to {classes - 1}, got {min(labels)} to '
            f'{max(labels)}; {REMEDY}'
        )
    folders = getattr(dataset, 'folder_to_idx', {})  # where there is no annotation file
    empty = sorted(folder for folder, label in folders.items() if label not in labels)
    if empty and name == 'train_dataloader':  # in validation one keeps the place of its class
        raise ValueError(
            f'{name}.dataset: {len(empty)} of {len(folders)} class folders hold no image, the '
            f'first is {empty[0]!r}; {REMEDY}'
        )
    return f'{len(labels):,} classes' + (f' and {len(empty):,} folders without' if empty else '')


def _count_objects(dataset, name):
    objects = sum(len(image['instances']) for image in dataset.data_list)
    if not objects and name != 'test_dataloader':  # a test set may keep them secret
        raise ValueError(
            f'{name}.dataset: {dataset.ann_file!r} holds no object of the classes '
            f'{tuple(dataset.metainfo["classes"])}; name its own in metainfo'
        )
    return objects


def _inspect_metric(config, name):
    check_file(config['ann_file'], f'{name}.ann_file')
    return f'{name_of(config)} with {config["ann_file"]}'


def _missing(paths):
    """Those of `paths` that do not exist; lists each folder once, not asking for each file."""
    folders = {}
    missing = []
    for path in paths:
        folder, file = osp.split(path)
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if osp.isdir(folder) else set()
        if file not in folders[folder]:
            missing.append(path)
    return missing
