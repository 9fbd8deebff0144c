"""Validation and test measure what the training learns."""

from mmengine.config import Config

from .data import find_datasets
from .finding import Finding
from .folders import class_folders
from .tree import name_of, walk

# Metrics that compare the labels of the data with the numbers of the head's outputs
COMPARING = ('Accuracy', 'SingleLabelMetric', 'ConfusionMatrix')


def check_evaluation(cfg: Config, split: str) -> list[Finding]:
    """Check that the evaluation of a run uses all of its images, and the labels of the training.

    Args:
        cfg: the final config.
        split: 'train', which also validates, or 'test'.

    Raises:
        ValueError: see :func:`check_skipping` and :func:`check_class_folders`.
    """
    part = 'val' if split == 'train' else 'test'
    if not cfg.get(f'{part}_dataloader'):
        return [Finding('skipped', f'there is no {part}_dataloader')]
    check_skipping(cfg, part)
    compared = check_class_folders(cfg, part)
    folders = ', and has the class folders of the training' if compared else ''
    return [Finding('ok', f'{part}_dataloader leaves out no bad image{folders}')]


def check_skipping(cfg: Config, part: str) -> None:
    """Raise ValueError if bad images would be left out of a validation or a test.

    In MMPretrain's, whose datasets do not know that they are for that, others would be taken in
    their place.

    Args:
        cfg: the final config.
        part: 'val' or 'test'.
    """
    name = f'{part}_dataloader'
    for dataset in find_datasets(cfg.get(name)):
        for transform in dataset.get('pipeline') or ():
            if transform.get('on_error') == 'skip':
                raise ValueError(
                    f"{name}: {transform['type']} has on_error='skip', and the result would "
                    "not be that of the whole data set; set on_error='raise' there, and keep "
                    "'skip' to the train_dataloader"
                )


def check_class_folders(cfg: Config, part: str) -> bool:
    """Raise ValueError if class folders give labels that mean other classes than in training.

    The label of a class is the place of its folder among the others: with one missing, all behind
    it would be compared with the class before. Folders missing at the end shift nothing.

    Args:
        cfg: the final config.
        part: 'val' or 'test'. With a metric that does not compare labels with outputs, as in
            retrieval, there is nothing to check.

    Returns:
        Whether there was something to compare.
    """
    name = f'{part}_dataloader'
    metrics = [name_of(node) for _, node in walk(cfg.get(f'{part}_evaluator'))]
    if not set(metrics) & set(COMPARING):
        return False
    compared = False
    for reference in map(class_folders, find_datasets(cfg.get('train_dataloader'))):
        for folders in map(class_folders, find_datasets(cfg.get(name))):
            shared = min(len(reference), len(folders))
            compared = compared or shared > 0
            if reference[:shared] != folders[:shared]:
                raise ValueError(
                    f'{name}: its class folders are not those of train_dataloader: missing '
                    f'{sorted(set(reference) - set(folders))}, besides '
                    f'{sorted(set(folders) - set(reference))}. A label is the place of its folder '
                    'among the others, and would mean another class; add those that are missing, '
                    'empty if need be, and remove those that are no class, from either'
                )
    return compared
