"""Every list of images and annotations of a config, read as its framework reads it."""

import copy
import os
import os.path as osp
from collections import Counter
from collections.abc import Iterator

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope

from .annotations import (
    collector_paused,
    has_its_classes,
    inspect_annotations,
    inspect_evaluator,
)
from .context import Context, Finding, Loaded, is_first_process, name_of, splits_of, walk
from .data import (
    REMEDY,
    depends_on_files_alone,
    file_and_classes,
    find_annotated,
    find_datasets,
    find_heads,
    find_missing,
    inspect_folders,
    is_remote,
    missing_file,
    open_dataset,
    open_datasets,
    reads_coco,
)

LISTED = 100_000  # images that are looked for at the start of a run


def check_annotations(context: Context) -> list[Finding]:
    """Read the annotations that a run learns from and is evaluated by, as far as they can be wrong.

    These are files in COCO's format, and the lists of images and labels of a classifier.
    """
    if not is_first_process(context.cfg):  # files may be large, and are the same for all
        return [Finding('annotations', 'skipped', 'the first process of the run reads them')]
    heads = list(find_heads(context.cfg)) if context.scope == 'mmpretrain' else []
    number, found = 0, []
    for split in splits_of(context):
        loader, contents, datasets = f'{split}_dataloader', {}, []
        for config, opened, _ in open_datasets(context, loader):
            if opened is None or find_missing(config, opened, loader):
                continue  # check_data tells of it
            dataset = copy.copy(opened)  # to leave the list of `opened` unread
            if not reads_coco(dataset) and not (heads and dataset.ann_file):
                continue
            found += read_dataset(dataset, config, loader, 'annotations', contents)
            found += _other_labels(dataset, heads, loader)
            found += _absent_images(dataset, loader)
            number += 1
            if _is_to_be_evaluated(dataset, contents, context.agree):
                datasets.append(dataset)
            if getattr(dataset, '_fully_initialized', False):
                _keep(context, config, opened, dataset)
        found += _inspect_evaluators(context.cfg, split, datasets, 'annotations', contents)
    if found or not number:
        return found or [Finding('annotations', 'skipped', 'no file of annotations is read')]
    return [Finding('annotations', 'ok', f'{number} files hold what their datasets expect')]


def _is_to_be_evaluated(dataset, contents, agree):
    """Whether evaluators are compared with a dataset that has been read, as far as it could be.

    They are not with one of other classes than its file, which would be told twice. What it is
    goes into `agree`.
    """
    if not reads_coco(dataset):
        return False
    key = file_and_classes(dataset)
    if dataset._fully_initialized:  # else the file has other faults
        agree[key] = has_its_classes(dataset, contents[key[0]])
    return agree.get(key, True)


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
    if read_dataset(dataset, config, 'train_dataloader', 'schedule', {}):
        return None  # check_data, or the dataloader of the run, tells of it
    _keep(context, config, opened, dataset)
    return len(dataset)


def _absent_images(dataset, loader):
    """An error if images that a list of a classifier names do not exist; a long list is left."""
    if reads_coco(dataset) or not 0 < len(dataset.data_list) <= LISTED:
        return []
    absent = _absent(image['img_path'] for image in dataset.data_list if 'img_path' in image)
    if not absent:
        return []
    text = (
        f'{loader}.dataset: {len(absent):,} of the {len(dataset.data_list):,} images in '
        f'{dataset.ann_file!r} do not exist, the first is {absent[0]!r}; restore them, or remove '
        'their lines'
    )
    return [Finding('annotations', 'error', text)]


def _other_labels(dataset, heads, loader):
    """Errors for labels that a classifier's head has no output for."""
    labels = {info['gt_label'] for info in dataset.data_list if type(info.get('gt_label')) is int}
    return [
        Finding(
            'annotations',
            'error',
            f'{loader}.dataset: {dataset.ann_file!r} has labels {min(labels)} to {max(labels)}, '
            f'and {path}={number} expects 0 to {number - 1}; mend the list, or set {path}',
        )
        for path, number in heads
        if labels and (min(labels) < 0 or max(labels) >= number)
    ]


def _inspect_evaluators(cfg, split, datasets, check, contents):
    """What is wrong with the files in COCO's format that the metrics of a split evaluate by."""
    where = f'{split}_evaluator'
    evaluator = cfg.get(where)
    metrics = [node for _, node in walk(evaluator) if name_of(node) == 'CocoMetric']
    found = []
    for number, metric in enumerate(metrics):
        several = isinstance(evaluator, dict) and evaluator.get('dataset_prefixes')
        own = datasets[number : number + 1] if several else datasets
        if not metric.get('ann_file') or not missing_file(metric['ann_file'], where):
            found += inspect_evaluator(metric, where, own, check, contents)
    return found


def check_lists(context: Context) -> Iterator[Finding]:
    """Read what all dataloaders and evaluators of a config read, and look for every image."""
    cfg, failed = context.cfg, False
    for split in ('train', 'val', 'test'):
        loader, evaluator = f'{split}_dataloader', f'{split}_evaluator'
        if split == 'test' and cfg.get(loader) and cfg[loader] == cfg.get('val_dataloader'):
            # `contents` and `datasets` are those of val, for an evaluator of its own.
            yield Finding(loader, 'skipped' if failed else 'ok', 'the same as val_dataloader')
        else:
            contents, datasets, failed = {}, [], False
            for config in find_datasets(cfg.get(loader)):
                for finding in inspect_dataset(config, loader, context.scope, contents, datasets):
                    failed |= finding.status == 'error'
                    yield finding
        found = _inspect_evaluators(cfg, split, datasets, evaluator, contents)
        yield from found
        for metric in find_annotated(cfg.get(evaluator)):
            error = missing_file(metric['ann_file'], f'{evaluator}.ann_file')
            if error or not found:
                text = error or f'{name_of(metric)} with {metric["ann_file"]}'
                yield Finding(evaluator, 'error' if error else 'ok', text)


@collector_paused()
def read_dataset(
    dataset: BaseDataset,
    config: dict,
    loader: str,
    check: str,
    contents: dict,
) -> list[Finding]:
    """Read the list of a dataset, and look for what is wrong with its objects.

    Args:
        dataset: the dataset, its list unread; read afterwards, if it can be.
        config: its config.
        loader: name of its dataloader.
        check: name of the check.
        contents: as of :func:`.inspect_annotations`.
    """
    try:
        if reads_coco(dataset):
            evaluated, steps = loader != 'train_dataloader', config.get('pipeline', ())
            return inspect_annotations(dataset, steps, check, contents, evaluated)
        dataset.serialize_data = False
        dataset.full_init()
    except Exception as error:  # whatever a list that is cut short leads to
        path = dataset.ann_file or next(iter(dataset.data_prefix.values()), '')
        text = (
            f'{loader}.dataset: {name_of(config)} cannot read its list of images, {path!r}: '
            f'{type(error).__name__}: {error}; {REMEDY}'
        )
        return [Finding(check, 'error', text)]
    return []


def inspect_dataset(
    config: dict,
    loader: str,
    scope: str | None = None,
    contents: dict | None = None,
    datasets: list | None = None,
) -> list[Finding]:
    """Read a dataset's list of images, and look for each of them.

    Args:
        config: of one dataset.
        loader: name of its dataloader.
        scope: the framework's registry, 'mmpretrain' or 'mmdet'.
        contents: as of :func:`.inspect_annotations`.
        datasets: to which the dataset is added, if it reads a file in COCO's format.

    Returns:
        What is wrong with it or, if nothing, its files and folders, and the numbers of images,
        classes and annotations in them.
    """
    kind, where = name_of(config), f'{loader}.dataset'
    dataset, error = open_dataset(config, loader, scope)
    missing = [error] if error else find_missing(config, dataset, loader)
    if missing:
        return [Finding(loader, 'error', text) for text in missing]
    if dataset is None:
        other = 'remote' if is_remote(config) else 'of another package'
        return [Finding(loader, 'skipped', f'{kind}, {other}: not looked at')]
    if getattr(dataset, 'download', False):
        text = f'{kind}, which MMPretrain downloads where it is absent'
        return [Finding(loader, 'skipped', text)]
    contents = {} if contents is None else contents
    with DefaultScope.overwrite_default_scope(scope):
        findings = read_dataset(dataset, config, loader, loader, contents)
    if datasets is not None and _is_to_be_evaluated(dataset, contents, {}):
        datasets.append(dataset)
    if any(finding.status == 'error' for finding in findings):
        return findings
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
    counted = [f'{len(images):,} images']
    if 'gt_label' in images[0]:
        error, text = _count_labels(dataset, loader)
        counted.append(text)
    elif 'instances' in images[0]:
        error, text = _count_objects(dataset, loader)
        counted.append(text)
    else:
        error = ''
    if error:
        return [Finding(loader, 'error', f'{where}: {error}')]
    findings += [Finding(loader, 'warning', text) for text in inspect_folders(dataset, loader)]
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
    return '', f'{len(labels):,} classes'


def _count_objects(dataset, loader):
    """What is wrong with the objects of a dataset, or '', and how many there are."""
    classes = tuple(dataset.metainfo['classes'])
    ignored = [each.get('ignore_flag', 0) for i in dataset.data_list for each in i['instances']]
    number = ignored.count(0)
    if not number and loader != 'test_dataloader':  # a test set may keep them secret
        but = f' but {len(ignored):,} to be ignored' if ignored else ''
        text = f'{dataset.ann_file!r} holds no object of the classes {classes}{but}'
        return f'{text}; name its own in metainfo.classes', ''
    return '', f'{number:,} annotations, {len(classes):,} classes'


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
