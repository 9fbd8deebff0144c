"""Lists and annotations of a config's datasets are read, and what is wrong in them is told."""

import copy
import os
import os.path as osp
from collections import Counter

import numpy as np
from mmengine.dataset import BaseDataset

from .annotations import collector_paused, inspect_annotations, inspect_evaluator
from .context import Context, Finding, Loaded, is_first_process, name_of, splits_of, walk
from .data import (
    REMEDY,
    depends_on_files_alone,
    find_heads,
    find_missing,
    missing_file,
    open_dataset,
    open_datasets,
    reads_coco,
)

LISTED = 100_000  # images that are looked for at the start of a run


def check_annotations(context: Context) -> list[Finding]:
    """Read the annotations that a run learns from and is evaluated by, as far as they can be wrong.

    These are files in COCO's format, and the lists of images and labels of a classifier. At the
    levels of the data, all lists are read, every image is looked for, and the contents are counted.
    """
    if not is_first_process(context.cfg):  # files may be large, and are the same for all
        return [Finding('annotations', 'skipped', 'the first process of the run reads them')]
    heads = list(find_heads(context.cfg)) if context.scope == 'mmpretrain' else []
    number, found = 0, []
    for split in splits_of(context):
        loader, contents, datasets = f'{split}_dataloader', {}, []
        before = len(found)
        for config, opened, error in open_datasets(context, loader):
            if error or find_missing(config, opened, loader):
                continue  # check_data tells of it
            if opened is None or getattr(opened, 'download', False):
                if context.every_image:
                    text = (
                        f'{loader}: {name_of(config)} is remote, downloaded or of another package'
                    )
                    found.append(Finding('annotations', 'skipped', text))
                continue
            if not (context.every_image or reads_coco(opened) or (heads and opened.ann_file)):
                continue
            dataset = copy.copy(opened)  # to leave the list of `opened` unread
            new = _read(dataset, config, loader, contents)
            if all(each.status != 'error' for each in new):
                new += _inspect(context, config, dataset, heads, loader)
            found += new
            if getattr(dataset, '_fully_initialized', False):
                _keep(context, config, opened, dataset)
            if reads_coco(dataset):
                datasets.append(dataset)
            number += 1
        if all(each.status != 'error' for each in found[before:]):
            found += _inspect_evaluators(context.cfg, split, datasets, contents)
    if found or not number:
        return found or [Finding('annotations', 'skipped', 'no file of annotations is read')]
    return [Finding('annotations', 'ok', f'{number} files hold what their datasets expect')]


@collector_paused()
def _read(dataset, config, loader, contents):
    """Read the list of a dataset, and say what is wrong with the file of its objects."""
    try:
        if reads_coco(dataset):
            evaluated, steps = loader != 'train_dataloader', config.get('pipeline', ())
            return inspect_annotations(dataset, steps, contents, evaluated)
        dataset.serialize_data = False
        dataset.full_init()
    except Exception as error:  # whatever a list that is cut short leads to
        path = dataset.ann_file or next(iter(dataset.data_prefix.values()), '')
        text = (
            f'{loader}.dataset: {name_of(config)} cannot read its list of images, {path!r}: '
            f'{type(error).__name__}: {error}; {REMEDY}'
        )
        return [Finding('annotations', 'error', text)]
    return []


def find_fault(config: dict, loader: str) -> str:
    """What keeps a local dataset of the frameworks from being built and read, '' if nothing does.

    Args:
        config: of the dataset.
        loader: name of its dataloader, for the message.
    """
    dataset, error = open_dataset(config, loader, None)
    texts = [error] if error else find_missing(config, dataset, loader)
    if not texts and dataset is not None and not getattr(dataset, 'download', False):
        found = _read(dataset, config, loader, {})
        texts = [each.text for each in found if each.status == 'error']
    return next(iter(texts), '')


def _inspect(context, config, dataset, heads, loader):
    """What is wrong with the list of a dataset that is read or, of every image, what is in it."""
    images = dataset.data_list
    looked_for = images
    if not context.every_image and (reads_coco(dataset) or len(images) > LISTED):
        looked_for = []  # which takes long
    absent = _absent(image['img_path'] for image in looked_for if 'img_path' in image)
    counted, fault = '', _label_fault(dataset, heads, loader)
    if not images:
        fault = f'it finds no image to use; {REMEDY}'
    elif absent:
        fault = (
            f'{len(absent):,} of {len(images):,} images do not exist, the first is {absent[0]!r}; '
            f'{REMEDY}'
        )
    elif context.every_image and not fault:
        counted, fault = _count(dataset, loader)
    paths = [path for path in (*dataset.data_prefix.values(), dataset.ann_file) if path]
    name = f'{name_of(config)} in {", ".join(paths)}'
    if fault:
        return [Finding('annotations', 'error', f'{loader}.dataset: {name}: {fault}')]
    if not context.every_image:
        return []
    return [Finding('annotations', 'ok', f'{loader}: {name}: {len(images):,} images{counted}')]


def _label_fault(dataset, heads, loader):
    """Say which labels of a dataset no output of a head, or no class, is for; '' if all are right.

    Labels are whole numbers, lists of them or, without classes, of images, or of several tasks.
    """
    given = [image['gt_label'] for image in dataset.data_list if 'gt_label' in image]
    if not given or isinstance(given[0], dict):
        return ''
    labels = _labels(given)
    if not labels:
        return '' if loader == 'test_dataloader' else f'no image has a label; {REMEDY}'
    if min(labels) < 0:
        return f'expected labels from 0 on, got {min(labels)}: correct the list'
    limits = heads if type(given[0]) is int else []
    if dataset.metainfo.get('classes'):
        limits = [*limits, ('metainfo.classes', len(dataset.metainfo['classes']))]
    for path, number in limits:
        if max(labels) >= number:
            return (
                f'expected labels 0 to {number - 1} by {path}, got {min(labels)} to {max(labels)}: '
                f'correct the list, or set {path}'
            )
    return ''


def _labels(given):
    """The labels of images that have one, several or, in a test, None."""
    labels = {label for label in given if type(label) is int}
    others = (label for label in given if type(label) is not int and label is not None)
    return labels.union(*(map(int, np.ravel(label)) for label in others))


def _count(dataset, loader):
    """What a dataset holds besides images, and what is wrong, '' if nothing is."""
    first = dataset.data_list[0]
    if isinstance(first.get('gt_label'), dict):  # of several tasks
        tasks = Counter(task for image in dataset.data_list for task in image['gt_label'])
        return ''.join(f', {number:,} labels of {task}' for task, number in tasks.items()), ''
    if 'gt_label' in first:
        number = len(_labels([image['gt_label'] for image in dataset.data_list]))
        return f', {number:,} classes', ''
    if 'instances' not in first:
        return '', ''
    classes = tuple(dataset.metainfo['classes'])
    ignored = [each.get('ignore_flag', 0) for i in dataset.data_list for each in i['instances']]
    number = ignored.count(0)
    if not number and loader != 'test_dataloader':  # a test set may keep them secret
        but = f' but {len(ignored):,} to be ignored' if ignored else ''
        return '', f'no object of the classes {classes}{but}; name its own in metainfo.classes'
    return f', {number:,} annotations, {len(classes):,} classes', ''


def _inspect_evaluators(cfg, split, datasets, contents):
    """What is wrong with the files in COCO's format that the metrics of a split evaluate by."""
    where = f'{split}_evaluator'
    evaluator = cfg.get(where)
    metrics = [node for _, node in walk(evaluator) if name_of(node) == 'CocoMetric']
    found = []
    for number, metric in enumerate(metrics):
        several = isinstance(evaluator, dict) and evaluator.get('dataset_prefixes')
        own = datasets[number : number + 1] if several else datasets
        if not metric.get('ann_file') or not missing_file(metric['ann_file'], where):
            found += inspect_evaluator(metric, where, own, contents)
    return found


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


def count_steps(context: Context) -> int | None:
    """Iterations of an epoch of the training, of each process; None where that is not known.

    Lists of images that :func:`check_annotations` leaves unread, of class folders, are read.
    """
    loader = context.cfg.get('train_dataloader') or {}
    batch, sampler = loader.get('batch_size'), loader.get('sampler') or {}
    plain = name_of(sampler) in ('', 'DefaultSampler') and 'num_batch_per_epoch' not in loader
    if not (plain and isinstance(batch, int) and is_first_process(context.cfg)):
        return None
    images = _count_images(context, loader.get('dataset') or {})
    if images is None:
        return None
    of_each = -(-images // context.processes)
    return of_each // batch if loader.get('drop_last') else -(-of_each // batch)


def _count_images(context, node):
    """Number of images of a dataset, or of a wrapper of some, None where it is not known."""
    for config, opened, _ in open_datasets(context, 'train_dataloader'):
        if config is node:
            return _read_length(context, config, opened)
    if name_of(node) == 'ConcatDataset':
        numbers = [_count_images(context, each) for each in node.get('datasets', ())]
        return None if None in numbers else sum(numbers)
    if name_of(node) in ('RepeatDataset', 'MultiImageMixDataset'):
        number = _count_images(context, node['dataset'])
        return None if number is None else number * node.get('times', 1)
    return None


def _keep(context, config, opened, dataset):
    """Keep the length of a dataset whose list is read, and the dataset for the run."""
    context.lengths[id(config)] = len(dataset)
    if context.loaded is not None and depends_on_files_alone(dataset):
        context.loaded.append(Loaded(config, dataset, opened.serialize_data))


def _read_length(context, config, opened):
    if id(config) in context.lengths:
        return context.lengths[id(config)]
    if not isinstance(opened, BaseDataset) or getattr(opened, 'download', False):
        return None
    if reads_coco(opened):  # which takes long
        return None
    dataset = copy.copy(opened)
    if _read(dataset, config, 'train_dataloader', {}):
        return None  # check_data, or the dataloader of the run, tells of it
    _keep(context, config, opened, dataset)
    return len(dataset)
