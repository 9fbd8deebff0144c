"""Validation and test measure what the training learns."""

import os
import os.path as osp

from mmengine.config import Config

from .data import find_datasets
from .finding import Finding
from .tree import name_of

EVALUATIONS = ('val_dataloader', 'test_dataloader')


def check_evaluation(cfg: Config) -> list[Finding]:
    """Check that validation and test use all of their images, and the labels of the training.

    Args:
        cfg: the final config.

    Raises:
        ValueError: see :func:`check_skipping` and :func:`check_class_folders`.
    """
    if not any(cfg.get(name) for name in EVALUATIONS):
        return [Finding('skipped', 'nothing is validated or tested')]
    check_skipping(cfg)
    check_class_folders(cfg)
    return [Finding('ok', 'no image is left out, and class folders are those of the training')]


def check_skipping(cfg: Config) -> None:
    """Raise ValueError if a config would leave bad images out of a validation or a test.

    In MMPretrain's, whose datasets do not know that they are for that, others would be taken in
    their place.
    """
    for name in EVALUATIONS:
        for dataset in find_datasets(cfg.get(name)):
            for transform in dataset.get('pipeline') or ():
                if transform.get('on_error') == 'skip':
                    raise ValueError(
                        f"{name}: {transform['type']} has on_error='skip', and the result would "
                        "not be that of the whole data set; set on_error='raise' there, and keep "
                        "'skip' to the train_dataloader"
                    )


def check_class_folders(cfg: Config) -> None:
    """Raise ValueError unless validation and test have the class folders of the training.

    The label of a class is the place of its folder among the others: with one missing, all behind
    it would be compared with the class before. A folder that is there and empty shifts nothing.
    """
    for reference in map(_class_folders, find_datasets(cfg.get('train_dataloader'))):
        for name in EVALUATIONS:
            for dataset in find_datasets(cfg.get(name)):
                folders = _class_folders(dataset)
                if reference and folders and folders != reference:
                    raise ValueError(
                        f'{name}: its class folders are not those of train_dataloader: missing '
                        f'{sorted(reference - folders)}, besides {sorted(folders - reference)}. '
                        'A label is the place of its folder among the others, and would mean '
                        'another class; add the missing ones, empty if need be'
                    )


def _class_folders(dataset):
    """Names of the folders that a dataset takes for classes, none where it does not do so."""
    root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or ''
    by_folder = name_of(dataset) == 'CustomDataset'
    if not by_folder or dataset.get('ann_file') or not dataset.get('with_label', True):
        return frozenset()
    path = osp.join(root, prefix.get('img_path', '') if isinstance(prefix, dict) else prefix)
    if not osp.isdir(path):  # absent, which another check says, or remote
        return frozenset()
    return frozenset(entry.name for entry in os.scandir(path) if entry.is_dir())
