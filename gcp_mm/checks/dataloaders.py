"""Dataloaders of a run, and what is in their lists, annotations and images."""

import logging
import os
import os.path as osp
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import partial

import numpy as np
from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data import LoadCheckedImage
from .annotations import inspect_evaluator
from .context import Context, Finding, Opened, is_first_process, name_of, splits_of, walk
from .data import REMEDY, find_heads, missing_file, open_datasets, reads_coco

LISTED = 100_000  # images of a list that are looked for at the start of a run
LOADER_OPTIONS = {'type', 'to_float32', 'color_type', 'imdecode_backend', 'backend_args'}


def build_dataloader(
    build: Callable[..., DataLoader],
    dataloader: dict,
    loaded: list[Opened] | None = None,
    **kwargs,
) -> DataLoader:
    """Build a dataloader whose pipelines load images by `LoadCheckedImage`, and check it.

    Args:
        build: `Runner.build_dataloader`.
        dataloader: config of the dataloader. It is not modified: the inferencers of both frameworks
            look for `LoadImageFromFile` in the config of a run.
        loaded: of :func:`.run_checks`. The datasets of this dataloader are removed, and used in
            place of new ones.
        **kwargs: arguments of `build`.

    Raises:
        ValueError: if the dataloader would be empty; if no image of a detector's training set has
            an object.
    """
    named = load_named(dataloader)
    nodes = zip([*walk(dataloader)], [*walk(named)], strict=True)
    for (_, config), (_, node) in nodes if loaded else ():
        number = next((k for k, each in enumerate(loaded) if each.config == config), None)
        if number is not None:
            _reuse(node, loaded.pop(number))
    loader = build(named, **kwargs)
    _check_objects(loader.dataset)
    if isinstance(loader.dataset, Sized) and not len(loader):
        images = len(loader.dataset)
        if not images:
            raise ValueError(f'{_describe(loader.dataset)} holds no image to use; {REMEDY}')
        raise ValueError(
            f'{_describe(loader.dataset)}: {images} images make no whole batch of '
            f'{loader.batch_sampler.batch_size}, and drop_last=True leaves out the rest'
        )
    return loader


def _reuse(node, opened):
    """Change a dataset's config, in place, to one that gives the opened one its transforms."""
    config, dataset, _ = opened

    def complete(pipeline=None):
        if pipeline is not None:
            dataset.pipeline = Compose(pipeline)
        dataset.serialize_data = config.get('serialize_data', True)
        if dataset.serialize_data:
            dataset.data_bytes, dataset.data_address = dataset._serialize_data()
        return dataset

    kept = {key: node[key] for key in node.keys() & {'pipeline', '_scope_'}}
    node.clear()
    node.update(type=complete, **kept)


def load_named(node):
    """A copy of a config with `LoadCheckedImage` in place of each mmcv `LoadImageFromFile`."""
    if isinstance(node, list | tuple):
        return type(node)(map(load_named, node))
    if not isinstance(node, dict):
        return node
    node = ConfigDict({key: load_named(value) for key, value in node.items()})
    if name_of(node) == 'LoadImageFromFile' and node.keys() <= LOADER_OPTIONS:
        node['type'] = 'LoadCheckedImage'
    return node


def image_loader(pipeline: list[dict], **options) -> LoadCheckedImage:
    """What loads the images of a pipeline, with other options; a bad one raises."""
    steps = load_named(pipeline)
    step = next((step for step in steps if step['type'] == 'LoadCheckedImage'), {})
    return TRANSFORMS.build({**step, 'type': 'LoadCheckedImage', 'on_error': 'raise', **options})


def _parts(dataset):
    """The datasets that a wrapper of datasets, or of one, comes down to."""
    inner = getattr(dataset, 'datasets', None)
    inner = inner if isinstance(inner, list | tuple) else [getattr(dataset, 'dataset', None)]
    if not all(isinstance(part, Dataset) for part in inner):
        yield dataset
        return
    for part in inner:
        yield from _parts(part)


def _check_objects(dataset):
    """Look whether there are objects for a detector to learn from, or to be evaluated by."""
    parts = [part for part in _parts(dataset) if isinstance(part, BaseDataset) and len(part)]
    if not parts or not all(map(_object_fault, parts)):
        return
    text = f'{_describe(dataset)}: {_object_fault(parts[0])}'
    if not all(part.test_mode for part in parts):
        raise ValueError(text)
    print_log(f'{text}, or do not evaluate by it', logger='current', level=logging.WARNING)


def _object_fault(dataset):
    """Say that no image has an object for the loss; '' if one has, or if they have no objects."""
    for index in range(len(dataset)):
        instances = dataset.get_data_info(index).get('instances')
        if instances is None or any(not each.get('ignore_flag') for each in instances):
            return ''
    return (
        f'no image has an object of the classes {dataset.metainfo["classes"]}; name its own in '
        'metainfo.classes'
    )


def describe_dataset(dataset: Dataset) -> str:
    """The class of a dataset and where it reads from, its images and classes."""
    text = _describe(dataset)
    if isinstance(dataset, Sized):
        text += f', {len(dataset):,} images'
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    return f'{text} of {len(classes):,} classes' if classes else text


def _describe(dataset):
    """The class of a dataset and where it reads from."""
    first = next(_parts(dataset))
    paths = [*getattr(first, 'data_prefix', {}).values(), getattr(first, 'ann_file', '')]
    return f'{type(first).__name__} in {", ".join(path for path in paths if path)}'


def check_annotations(context: Context) -> list[Finding]:
    """Look into the lists of a run's datasets, and into what its metrics evaluate by.

    At the levels of the data, every image is looked for, and lists without a fault are told too.
    """
    if not is_first_process(context.cfg):
        return [Finding('annotations', 'skipped', 'the first process of the run reads them')]
    number, found = 0, []
    for split in splits_of(context):
        loader, before = f'{split}_dataloader', len(found)
        opened = open_datasets(context, loader)
        for config, dataset, findings in opened:
            found += [each for each in findings if each.check == 'annotations']
            if getattr(dataset, '_fully_initialized', False):
                found += _inspect(context, dataset, loader)
                number += 1
            elif context.every_image and not findings:
                text = f'{loader}: {name_of(config)} is remote, downloaded or of another package'
                found.append(Finding('annotations', 'skipped', text))
        datasets = [each.dataset for each in opened]
        if None not in datasets and all(each.status != 'error' for each in found[before:]):
            found += _inspect_evaluators(context, split, [*filter(reads_coco, datasets)])
    context.contents.clear()
    if found or not number:
        return found or [Finding('annotations', 'skipped', 'no list is read')]
    return [Finding('annotations', 'ok', f'{number} lists hold what their datasets expect')]


def _inspect(context, dataset, loader):
    """What is wrong with the list of a dataset or, at the levels of the data, what is in it."""
    paths = [each['img_path'] for each in dataset.data_list if 'img_path' in each]
    looked_for, least = [path for path in paths if isinstance(path, str)], ''
    if not context.every_image and (reads_coco(dataset) or len(paths) > LISTED):
        looked_for, least = looked_for[:1], 'at least '  # to look for all takes long
    # At the start of a run check_classes compares those of folders.
    by_list = context.scope == 'mmpretrain' and (dataset.ann_file or context.every_image)
    heads = list(find_heads(context.cfg)) if by_list else []
    absent = _absent(looked_for)
    fault = _label_fault(dataset, heads, loader)
    if not len(dataset):
        fault = f'it finds no image to use; {REMEDY}'
    elif absent:
        number = f'{least}{len(absent):,} of {len(paths):,}'
        fault = f'{number} images do not exist, the first is {absent[0]!r}; {REMEDY}'
    elif context.every_image and loader != 'test_dataloader':  # a test set may keep them secret
        fault = fault or _object_fault(dataset)
    text = describe_dataset(dataset)
    if fault:
        return [Finding('annotations', 'error', f'{loader}.dataset: {text}: {fault}')]
    return [Finding('annotations', 'ok', f'{loader}: {text}')] if context.every_image else []


def _inspect_evaluators(context, split, datasets):
    """What is wrong with the files in COCO's format that the metrics of a split evaluate by."""
    where = f'{split}_evaluator'
    evaluator = context.cfg.get(where)
    metrics = [node for _, node in walk(evaluator) if name_of(node) == 'CocoMetric']
    found = []
    for number, metric in enumerate(metrics):
        several = isinstance(evaluator, dict) and evaluator.get('dataset_prefixes')
        own = datasets[number : number + 1] if several else datasets
        if not metric.get('ann_file') or not missing_file(metric['ann_file'], where):
            found += inspect_evaluator(metric, where, own, context.contents)
    return found


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


def check_images(context: Context) -> Iterator[Finding]:
    """Decode every image that a config's dataloaders read, each once, in several processes."""
    if context.errors:
        yield Finding('images', 'skipped', 'the data have errors, see above')
        return
    seen, bad = set(), 0
    for split in splits_of(context):
        name = f'{split}_dataloader'
        for config, dataset, _ in open_datasets(context, name):
            if dataset is None:
                continue
            listed = dataset.data_list  # empty of one that is downloaded
            images = {image['img_path']: image for image in listed if 'img_path' in image}
            new = [image for path, image in images.items() if path not in seen]
            seen.update(images)
            loader = image_loader(config.get('pipeline', []))
            for path, error in find_bad_images(new, loader, context.workers, name):
                bad += 1
                yield Finding('images', 'error', f'{path}: {error}')
    if bad:
        yield Finding('images', 'error', f'{bad:,} of {len(seen):,} images cannot be used')
    else:
        yield Finding('images', 'ok', f'all {len(seen):,} images can be used')


def find_bad_images(
    images: Sequence[dict], loader: LoadCheckedImage, workers: int | None, name: str
) -> Iterator[tuple[str, str]]:
    """Decode images in several processes, with a progress bar.

    Args:
        images: what a dataset knows of each.
        loader: what loads them, and raises for a bad one.
        workers: number of processes; None for one for each CPU.
        name: name of the bar.

    Yields:
        The path of each image that cannot be used, and the reason.
    """
    keys = ('img_path', 'height', 'width')
    infos = [{key: image[key] for key in keys if key in image} for image in images]
    # A worker that dies, of an image too large for the memory, ends this with an error.
    workers = os.cpu_count() if workers is None else workers
    decode = partial(_bad_images, loader)
    batches = DataLoader(infos, batch_size=16, num_workers=workers, collate_fn=decode)
    with tqdm(total=len(infos), desc=name, unit='image') as progress:
        for number, bad in batches:
            yield from bad
            progress.update(number)


def _bad_images(loader, infos):
    """The number of images in a batch, and those that cannot be used."""
    bad = []
    for info in infos:
        try:
            loader.load(info)
        except (FileNotFoundError, ValueError) as error:
            bad.append((info['img_path'], str(error)))
    return len(infos), bad
