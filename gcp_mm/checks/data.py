"""The data that a config names are there."""

import os
import os.path as osp
from collections.abc import Iterator, Sequence

from mmengine.config import Config
from mmengine.registry import DefaultScope

from .finding import Finding
from .registered import find_classes, package_of
from .tree import name_of, walk

# Data sets that MMPretrain downloads where they are absent
DOWNLOADED = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')
REMEDY = (
    'prepare the data as docs/data.md says, or set data_root (and, of a detector, the ann_file of '
    "CocoMetric's evaluator) to where they are"
)
FRAMEWORKS = ('mmengine', 'mmpretrain', 'mmdet', 'gcp_mm')


def check_data(cfg: Config, split: str) -> list[Finding]:
    """Check that the folders and files are there which the data sets and metrics of a run name.

    Args:
        cfg: the final config.
        split: 'train', which also validates, or 'test'.

    Raises:
        FileNotFoundError: for an absent annotation file or image folder.
        ValueError: for an empty one.
    """
    number = 0
    for used in ('train', 'val') if split == 'train' else ('test',):
        loader, evaluator = f'{used}_dataloader', f'{used}_evaluator'
        for dataset in find_datasets(cfg.get(loader)):
            check_dataset(dataset, loader, cfg.get('default_scope'))
            number += 1
        for metric in find_annotated(cfg.get(evaluator)):
            check_file(metric['ann_file'], f'{evaluator}.ann_file')
    if not number:
        return [Finding('skipped', 'the config names no files')]
    return [
        Finding(
            'ok',
            f'folders and lists of {number} data sets are there and not empty; '
            'tools/check_data.py looks for every image',
        )
    ]


def find_datasets(dataloader: dict | None) -> Iterator[dict]:
    """Configs of the datasets in a dataloader's that name files, wrapped ones too."""
    return (node for _, node in walk(dataloader) if {'data_root', 'data_prefix'} & node.keys())


def find_annotated(evaluator: dict | Sequence[dict] | None) -> Iterator[dict]:
    """Configs of the metrics in an evaluator's that read an annotation file."""
    return (node for _, node in walk(evaluator) if node.get('ann_file'))


def check_dataset(dataset: dict, name: str, scope: str | None = None) -> None:
    """Raise unless the files and folders a dataset's config names exist and are not empty.

    Args:
        dataset: config of one dataset. Left alone are remote paths, data sets that MMPretrain
            downloads, and classes of other packages, which may mean something else by them.
        name: of its dataloader, for the message.
        scope: the framework's, in which its class is looked up.
    """
    kind = name_of(dataset)
    if kind in DOWNLOADED and dataset.get('download', True):
        return
    if (dataset.get('backend_args') or {}).get('backend', 'local') != 'local':
        return
    with DefaultScope.overwrite_default_scope(scope):
        classes = find_classes(dataset['type']) if dataset.get('type') else []
    if classes and not any(package_of(each) in FRAMEWORKS for each in classes):
        return
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix')
    if not prefix and kind == 'ImageNet':
        prefix = dataset.get('split')
    for folder in prefix.values() if isinstance(prefix, dict) else [prefix]:
        path = osp.join(root, folder or '')
        if '://' in path or not path:
            continue
        if not osp.isdir(path):
            raise FileNotFoundError(
                f'{name}.dataset: the image folder {path!r} does not exist; {REMEDY}'
            )
        if not any(files for _, _, files in os.walk(path, followlinks=True)):
            raise ValueError(f'{name}.dataset: the image folder {path!r} holds no file; {REMEDY}')
    if dataset.get('ann_file'):
        check_file(osp.join(root, dataset['ann_file']), f'{name}.dataset.ann_file')


def check_file(path: str, name: str) -> None:
    """Raise unless `path`, named `name` in the message, is remote or a file with content."""
    if '://' in path:
        return
    if not osp.isfile(path):
        raise FileNotFoundError(f'{name}: the file {path!r} does not exist; {REMEDY}')
    if not osp.getsize(path):
        raise ValueError(f'{name}: the file {path!r} is empty; {REMEDY}')
