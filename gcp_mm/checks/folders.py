"""Class folders, whose place among the others is the label of their images."""

import os
import os.path as osp

from .tree import name_of


def class_folders(dataset: dict) -> list[str]:
    """Names of the folders that a dataset takes for classes, in the order of their labels.

    Args:
        dataset: config of one. Of another class than MMPretrain's `CustomDataset`, with a list of
            its images, or whose folder is absent or remote, it has none.
    """
    if name_of(dataset) != 'CustomDataset':
        return []
    if dataset.get('ann_file') or not dataset.get('with_label', True):
        return []
    prefix = dataset.get('data_prefix') or ''
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path') or ''
    path = osp.join(dataset.get('data_root') or '', prefix)
    if not osp.isdir(path):
        return []
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())
