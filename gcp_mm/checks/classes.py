"""The heads have as many outputs as the data sets have classes."""

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import DefaultScope

from .data import find_datasets
from .finding import Finding
from .folders import class_folders
from .registered import find_classes
from .tree import name_of, walk

# Heads of MMDetection whose num_classes is that of the data; an RPN has one of its own.
DETECTION = ('bbox_head', 'mask_head')
PARTS = (*DETECTION, 'roi_head')


def check_classes(cfg: Config, split: str) -> list[Finding]:
    """Compare the classes of the heads with those of the data sets, where both are known.

    Args:
        cfg: the final config.
        split: 'train', which also validates, or 'test'.

    Raises:
        ValueError: if they differ, with the number to set. A classifier may have more.
    """
    heads = list(find_heads(cfg))
    found = set()
    loaders = ('train_dataloader', 'val_dataloader') if split == 'train' else ('test_dataloader',)
    for loader in loaders:
        for dataset in find_datasets(cfg.get(loader)):
            classes = count_classes(dataset, cfg.get('default_scope'))
            for path, number in heads if classes else ():
                found.add(_compare(path, number, loader, classes, cfg.get('default_scope')))
    return sorted(found, key=str) or [
        Finding('skipped', 'the number of classes is not in the config')
    ]


def find_heads(cfg: Config) -> Iterator[tuple[str, int]]:
    """Place in the config and number of classes of each head that has one."""
    if cfg.get('default_scope') != 'mmdet':
        head = cfg.model.get('head') or {}
        if isinstance(head.get('num_classes'), int):
            yield 'model.head.num_classes', head['num_classes']
        return
    if cfg.model.get('language_model'):  # its outputs are words
        return
    for part in PARTS:
        for path, node in walk(cfg.model.get(part), f'model.{part}'):
            name = path.split('.')[-1].split('[')[0]
            if name in DETECTION and isinstance(node.get('num_classes'), int):
                yield f'{path}.num_classes', node['num_classes']


def count_classes(dataset: dict, scope: str | None = None) -> int | None:
    """Number of classes of a dataset, as far as its config, class or folders say; else None.

    Args:
        dataset: its config.
        scope: the framework's, in which its class is looked up.
    """
    if 'Panoptic' in name_of(dataset):
        return None  # things and stuff, which are for different heads
    names = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes')
    if isinstance(names, list | tuple):
        return len(names)
    if names:
        return None  # a file of them
    if name_of(dataset) == 'CustomDataset':
        return len(class_folders(dataset)) or None
    if dataset.get('ann_file') and scope != 'mmdet':
        return None  # a list of images, which may be of fewer classes
    with DefaultScope.overwrite_default_scope(scope):
        for found in find_classes(dataset.get('type')):
            names = getattr(found, 'METAINFO', {}).get('classes')
            if names:
                return len(names)
    return None


def _compare(path, number, loader, classes, scope):
    if number == classes:
        return Finding('ok', f'{path}={number}, and the data have {classes} classes')
    text = f'{path}={number}, but {loader}.dataset has {classes} classes: set {path}={classes}'
    if number < classes or scope == 'mmdet':
        raise ValueError(text)
    return Finding('warning', f'{text}, unless the head is to have outputs to spare')
