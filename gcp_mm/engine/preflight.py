"""Checks of a whole config that find a mistake before any data is read or any file written."""

import os.path as osp
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from ..checkpoints import check_checkpoint_file


def check_run(cfg: Config, dataloaders: Sequence[str]) -> None:
    """Check that the parts of a config fit together and that the files it names are there.

    Args:
        cfg: the final config, command-line options merged.
        dataloaders: which of its dataloaders the run is going to use.

    Raises:
        FileNotFoundError: for an absent checkpoint, annotation file or image folder.
        ValueError: for an empty one, or a head whose `in_channels` is not what the GCP neck
            before it gives.
    """
    check_head(cfg.model)
    for init_cfg in _find(cfg.model, lambda node: node.get('type') == 'Pretrained'):
        check_checkpoint_file(init_cfg['checkpoint'])
    if cfg.get('load_from'):
        check_checkpoint_file(cfg.load_from)
    for name in dataloaders:
        if cfg.get(name):
            for dataset in _find(cfg[name], lambda node: 'data_root' in node):
                check_dataset(dataset, name)


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


def check_dataset(dataset: dict, name: str) -> None:
    """Raise unless the files and folders a dataset's config names exist and are not empty.

    Args:
        dataset: config of one dataset, with `data_root`. Remote paths are left alone.
        name: of its dataloader, for the message.
    """
    root = dataset['data_root'] or ''
    prefix = dataset.get('data_prefix')
    if not prefix and dataset.get('type') == 'ImageNet':
        prefix = dataset.get('split')
    folders = prefix.values() if isinstance(prefix, dict) else [prefix or '']
    remedy = (
        f"prepare the data as README.md's section 'Data' says, or point {name}.dataset.data_root "
        '(for CocoDataset also the ann_file of the evaluator) at it'
    )
    for path in (osp.join(root, folder) for folder in folders):
        if '://' in path or not path:
            continue
        if not osp.isdir(path):
            raise FileNotFoundError(f'{name}: the image folder {path!r} does not exist; {remedy}')
        if not any(entry.is_file() for entry in Path(path).rglob('*')):
            raise ValueError(f'{name}: the image folder {path!r} holds no file; {remedy}')
    ann_file = osp.join(root, dataset.get('ann_file') or '')
    if dataset.get('ann_file') and '://' not in ann_file and not osp.isfile(ann_file):
        raise FileNotFoundError(f'{name}: the annotations {ann_file!r} do not exist; {remedy}')


def _find(node, wanted) -> Iterator[ConfigDict]:
    """Every dict anywhere in `node` that is `wanted`."""
    if isinstance(node, dict):
        if wanted(node):
            yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from _find(child, wanted)
