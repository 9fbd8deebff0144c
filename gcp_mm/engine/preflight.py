"""Checks of a whole config that find a mistake before any data is read or any file written."""

import os.path as osp
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

from ..checkpoints import check_checkpoint_file, is_pretrained

# Data sets that MMPretrain downloads where they are absent
DOWNLOADED = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')
REMEDY = (
    "prepare the data as docs/data.md says, or set data_root, and the ann_file of CocoMetric's "
    'evaluator, to where they are'
)


def check_run(cfg: Config, split: str) -> None:
    """Check that the parts of a config fit together and that the files it names are there.

    Args:
        cfg: the final config, command-line options merged.
        split: 'train', which also validates, or 'test'.

    Raises:
        FileNotFoundError: for an absent checkpoint, annotation file or image folder.
        ValueError: for an empty one, or a head whose `in_channels` is not what the GCP neck
            before it gives.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        check_head(cfg.model)
    if cfg.get('load_from'):
        check_checkpoint_file(cfg.load_from)
    if split == 'train':
        for init_cfg in _find(cfg.model, is_pretrained):
            check_checkpoint_file(init_cfg.get('checkpoint'))
    for used in ('train', 'val') if split == 'train' else ('test',):
        name = f'{used}_dataloader'
        if cfg.get(name):
            for dataset in find_datasets(cfg[name]):
                check_dataset(dataset, name)
        name = f'{used}_evaluator'
        if cfg.get(name):
            for metric in find_annotated(cfg[name]):
                check_file(metric['ann_file'], f'{name}.ann_file')


def check_head(model: dict) -> None:
    """Raise ValueError unless the head takes vectors of the length its GCP neck gives.

    Args:
        model: config of the model. One without a GCP neck passes.
    """
    neck, head = model.get('neck'), model.get('head')
    if isinstance(neck, Sequence):
        neck = neck[-1]
    if not neck or str(neck.get('type')).split('.')[-1] != 'GlobalCovariancePooling':
        return
    right = MODELS.build(neck).out_channels
    if head and head.get('in_channels', right) != right:
        raise ValueError(
            f'model.head.in_channels={head["in_channels"]}, but the neck GlobalCovariancePooling '
            f'gives vectors of length {right}: set model.head.in_channels={right}'
        )


def find_datasets(dataloader: dict) -> Iterator[ConfigDict]:
    """Configs of the datasets in a dataloader's that name files, wrapped ones too."""
    return _find(dataloader, lambda node: {'data_root', 'data_prefix'} & node.keys())


def find_annotated(evaluator: dict | Sequence[dict]) -> Iterator[ConfigDict]:
    """Configs of the metrics in an evaluator's that read an annotation file."""
    return _find(evaluator, lambda node: node.get('ann_file'))


def check_dataset(dataset: dict, name: str) -> None:
    """Raise unless the files and folders a dataset's config names exist and are not empty.

    Args:
        dataset: config of one dataset. Remote paths, and data sets that MMPretrain downloads, are
            left alone.
        name: of its dataloader, for the message.
    """
    kind = str(dataset.get('type')).split('.')[-1]
    if kind in DOWNLOADED and dataset.get('download', True):
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
        if not any(entry.is_file() for entry in Path(path).rglob('*')):
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


def _find(node, wanted) -> Iterator[ConfigDict]:
    """Every dict anywhere in `node` that is `wanted`."""
    if isinstance(node, dict):
        if wanted(node):
            yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from _find(child, wanted)
