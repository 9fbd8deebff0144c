"""The datasets of a config are there, with the labels that its heads and its validation expect."""

import inspect
import os
import os.path as osp
from collections.abc import Iterator, Sequence
from itertools import product, zip_longest

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

from ..data import IMAGE_SUFFIXES, count_suffixes
from .annotations import collector_paused, inspect_annotations
from .context import Context, Finding, Opened, is_first_process, name_of, splits_of, walk
from .keys import class_of, package_of

REMEDY = (
    'prepare the data as docs/guides/data.md says, or set data_root (and, of a detector, the '
    "ann_file of CocoMetric's evaluator) to where they are"
)
FRAMEWORKS = ('mmengine', 'mmpretrain', 'mmdet', 'gcp_mm')
FILES = {'data_root', 'data_prefix', 'ann_file'}  # keys of datasets that read some
# Heads of MMDetection whose num_classes is that of the data; an RPN has one of its own.
DETECTION = ('bbox_head', 'mask_head')
# Metrics that compare the labels of the data with the numbers of the head's outputs
COMPARING = {'Accuracy', 'SingleLabelMetric', 'ConfusionMatrix'}


def find_datasets(dataloader: dict | None) -> Iterator[dict]:
    """Configs of the datasets in a dataloader's that name files, wrapped ones too."""
    return (node for _, node in walk(dataloader) if FILES & node.keys())


def find_annotated(evaluator: dict | Sequence[dict] | None) -> Iterator[dict]:
    """Configs of the metrics in an evaluator's that read an annotation file."""
    return (node for _, node in walk(evaluator) if node.get('ann_file'))


def build_dataset(config: dict, scope: str | None, **options) -> BaseDataset | None:
    """Build a dataset without its transforms; None for another than the frameworks' BaseDatasets.

    MMPretrain's MultiTaskDataset, which is none, gets the attributes of one that is read.

    Args:
        config: of one dataset.
        scope: the framework's, in which its class is looked up.
        **options: further arguments, such as `lazy_init=True`, which leaves its list unread.

    Raises:
        Exception: whatever its class raises.
    """
    with DefaultScope.overwrite_default_scope(scope):
        kind = class_of(config.get('type'), DATASETS)
        if getattr(kind, '__name__', '') == 'MultiTaskDataset':
            read = DATASETS.build({**config, 'pipeline': []})
            read.data_prefix, read._fully_initialized = dict(img_path=read.data_prefix), True
            read.get_data_info = read.data_list.__getitem__
            return read
        if not (inspect.isclass(kind) and issubclass(kind, BaseDataset)):
            return None
        if package_of(kind) not in FRAMEWORKS:
            return None
        if 'pipeline' in config:
            options['pipeline'] = []
        return DATASETS.build({**config, **options})


def reads_coco(dataset: BaseDataset | None) -> bool:
    """Whether a dataset takes its objects from a file as MMDetection's CocoDataset does."""
    bases = {base.__name__: base for base in type(dataset).__mro__}
    coco = bases.get('CocoDataset')
    if coco is None or any(name.startswith('LVIS') for name in bases):
        return False
    return type(dataset).parse_data_info is coco.parse_data_info


def depends_on_files_alone(dataset: BaseDataset) -> bool:
    """Whether a dataset reads its list as CocoDataset or MMPretrain's CustomDataset does.

    ImageNet does. Other classes may draw at random, or wait for the other processes.
    """
    bases = {base.__name__: base for base in type(dataset).__mro__}
    known = bases.get('CocoDataset') or bases.get('CustomDataset')
    return known is not None and type(dataset).load_data_list is known.load_data_list


def is_remote(config: dict) -> bool:
    """Whether a dataset is read from an address, or from another backend than the local disk."""
    backend = (config.get('backend_args') or {}).get('backend', 'local')
    paths = [config.get(key) for key in ('data_root', 'data_prefix', 'ann_file')]
    return backend != 'local' or '://' in str(paths)


def open_datasets(context: Context, loader: str) -> list[Opened]:
    """All datasets in a dataloader, opened once."""
    if loader not in context.datasets:
        configs = find_datasets(context.cfg.get(loader))
        context.datasets[loader] = [open_dataset(context, each, loader) for each in configs]
    return context.datasets[loader]


@collector_paused()
def open_dataset(context: Context, config: dict, loader: str) -> Opened:
    """Build a local dataset of the frameworks and, in the first process, read its list.

    Lists may be large, and are the same in all processes. Those of other splits than the run's, and
    what is downloaded, are not read.
    """
    if is_remote(config):
        return Opened(config, None, [])
    read = is_first_process(context.cfg)
    read &= loader in [f'{split}_dataloader' for split in splits_of(context)]
    name, done = f'{loader}.dataset', 'be built'
    try:
        dataset = build_dataset(config, context.scope, lazy_init=True)
        if dataset is None or not read or getattr(dataset, 'download', False):
            return Opened(config, dataset, [])
        # Of class folders, reading says it; of lists, some are never looked into.
        folders = dataset.data_prefix.values() if dataset.ann_file else ()
        absent = [each for each in folders if each and not osp.isdir(each)]
        texts = [f'{name}: the folder {each!r} does not exist; {REMEDY}' for each in absent]
        texts.append(dataset.ann_file and missing_file(dataset.ann_file, f'{name}.ann_file'))
        if any(texts):
            found = [Finding('data', 'error', text) for text in texts if text]
            return Opened(config, None, found)
        if dataset._fully_initialized:
            return Opened(config, dataset, [])
        path = dataset.ann_file or next(iter(dataset.data_prefix.values()), '')
        done = f'read its list of images, {path!r}'
        found, dataset.serialize_data = [], False
        if reads_coco(dataset):
            evaluated, steps = loader != 'train_dataloader', config.get('pipeline', ())
            found = inspect_annotations(dataset, steps, context.contents, evaluated)
        else:
            dataset.full_init()
    except Exception as error:  # whatever a class raises, or a list that is cut short leads to
        what = f'{name_of(config)} cannot {done}: {type(error).__name__}: {error}'
        text = f'{name}: {what}; {REMEDY}'
        return Opened(config, None, [Finding('data', 'error', text)])
    failed = any(each.status == 'error' for each in found)
    return Opened(config, None if failed else dataset, found)


def check_data(context: Context) -> list[Finding]:
    """Open the datasets of a run, and look for the files of its metrics."""
    errors, warnings, number = [], [], 0
    for split in splits_of(context):
        loader, evaluator = f'{split}_dataloader', f'{split}_evaluator'
        for opened in open_datasets(context, loader):
            errors += [each for each in opened.findings if each.check == 'data']
            if is_first_process(context.cfg):  # it looks at every file's name
                warnings += inspect_folders(opened.dataset, loader)
            number += not is_remote(opened.config)
        for metric in find_annotated(context.cfg.get(evaluator)):
            if text := missing_file(metric['ann_file'], f'{evaluator}.ann_file'):
                errors.append(Finding('data', 'error', text))
    warnings = [Finding('data', 'warning', text) for text in warnings]
    if errors or not number:
        return errors or [Finding('data', 'skipped', 'the config names no files')]
    text = f'{number} datasets can be built, and the lists of this run read'
    text += '' if context.every_image else '; tools/check_data.py looks for every image'
    return warnings or [Finding('data', 'ok', text)]


def inspect_folders(dataset: BaseDataset | None, loader: str) -> list[str]:
    """A warning of the files that a dataset of class folders leaves out for suffix or place."""
    is_used = getattr(dataset, 'is_valid_file', None)
    if is_used is None or dataset.ann_file or not osp.isdir(dataset.img_prefix):
        return []
    root = dataset.img_prefix
    beside, others = [], []
    for folder, folders, files in os.walk(root, followlinks=True):
        if folder == root and dataset.with_label and folders:
            beside = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
            continue
        others += [file for file in files if not file.startswith('.') and not is_used(file)]
    left_out = [f'{count_suffixes(beside)} outside the class folders'] if beside else []
    if others:
        images = {each for each in IMAGE_SUFFIXES if any(o.lower().endswith(each) for o in others)}
        wanted = tuple(sorted({*dataset.extensions, *images}))
        left_out.append(
            f'{count_suffixes(others)} by suffix; to take in those that are images set '
            f'{loader}.dataset.extensions, such as {wanted}'
        )
    text = f'{loader}.dataset: files in {root!r} left out: {", and ".join(left_out)}'
    return [text] if left_out else []


def missing_file(path: str, name: str) -> str:
    """Say that `path`, named `name` in the message, is absent or empty; '' if not, or remote."""
    if '://' in path or (osp.isfile(path) and osp.getsize(path)):
        return ''
    wrong = 'is empty' if osp.isfile(path) else 'does not exist'
    return f'{name}: the file {path!r} {wrong}; {REMEDY}'


def check_classes(context: Context) -> list[Finding]:
    """Compare `num_classes` of the heads with the classes of the datasets, where both are known.

    A file in COCO's format has to be read for it: the classes of its dataset are often just those
    that were not replaced.
    """
    if context.has_failed('annotations') or not is_first_process(context.cfg):
        return [Finding('classes', 'skipped', 'the annotations are wrong, or not read here')]
    heads = list(find_heads(context.cfg))
    found = []
    for split in splits_of(context):
        loader = f'{split}_dataloader'
        for config, dataset, _ in open_datasets(context, loader):
            classes = count_classes(config, dataset, context.scope)
            for path, number in heads if classes else ():
                found.append(_compare(path, number, loader, classes, context.scope))
    return list(dict.fromkeys(found)) or [
        Finding('classes', 'skipped', 'the number of classes is not in the config')
    ]


def find_heads(cfg: Config) -> Iterator[tuple[str, int]]:
    """Path in the config and number of classes of each head that has one."""
    model = cfg.get('model') or {}
    if cfg.get('default_scope') != 'mmdet':
        nodes = [('model.head', model.get('head') or {})]
    elif model.get('language_model'):  # its outputs are words
        nodes = []
    else:
        parts = (*DETECTION, 'roi_head')
        nodes = [each for part in parts for each in walk(model.get(part), f'model.{part}')]
        nodes = [each for each in nodes if each[0].split('.')[-1].split('[')[0] in DETECTION]
    for path, node in nodes:
        if isinstance(node.get('num_classes'), int):
            yield f'{path}.num_classes', node['num_classes']


def count_classes(config: dict, dataset: BaseDataset | None, scope: str | None) -> int | None:
    """Number of classes of a dataset, as far as it is known; else None.

    Args:
        config: of the dataset.
        dataset: the dataset, or None to go by the config alone.
        scope: the framework's.
    """
    named = config.get('classes') or (config.get('metainfo') or {}).get('classes')
    if dataset is None:
        return len(named) if isinstance(named, list | tuple) else None
    if 'thing_classes' in dataset.metainfo:
        return None  # panoptic: things and stuff are for different heads
    if not named and config.get('ann_file') and scope != 'mmdet':
        return None  # a list of images, which may be of fewer classes than its dataset has
    names = dataset.metainfo.get('classes') or class_folders(dataset)
    return len(names) if isinstance(names, list | tuple) and names else None


def _compare(path, number, loader, classes, scope):
    if number == classes:
        return Finding('classes', 'ok', f'{path}={number}, and the data have {classes} classes')
    text = f'{path}={number}, but {loader}.dataset has {classes} classes: set {path}={classes}'
    if number < classes or scope == 'mmdet':
        return Finding('classes', 'error', text)
    return Finding('classes', 'warning', f'{text}, unless the head is to have outputs to spare')


def class_folders(dataset: BaseDataset | None) -> list[str]:
    """Folders that a `CustomDataset` of MMPretrain takes for classes, in the order of labels."""
    if type(dataset).__name__ != 'CustomDataset' or dataset.ann_file or not dataset.with_label:
        return []
    from mmpretrain.datasets.custom import find_folders

    return find_folders(dataset.img_prefix)[0] if osp.isdir(dataset.img_prefix) else []


def check_evaluation(context: Context) -> list[Finding]:
    """Check that the validation of a run uses all of its images, and the labels of the training.

    The label of a detector's class is the place of its name in metainfo.classes. In class folders
    it is the place of its folder among the others: with one missing, all behind it would be
    compared with the class before. Folders missing at the end shift nothing.
    """
    cfg = context.cfg
    split = 'val' if context.split == 'train' else 'test'
    loader = f'{split}_dataloader'
    if not cfg.get(loader):
        return [Finding('evaluation', 'skipped', f'there is no {loader}')]
    texts = [
        f"{loader}: {step['type']} has on_error='skip', and the result would not be that of the "
        "whole dataset; set on_error='raise' there, and keep 'skip' to the train_dataloader"
        for dataset in find_datasets(cfg.get(loader))
        for step in dataset.get('pipeline') or ()
        if step.get('on_error') == 'skip'
    ]
    metrics = {name_of(node) for _, node in walk(cfg.get(f'{split}_evaluator'))}
    compared, both = False, ('train_dataloader', loader)
    for trained, names in product(*(_names(context, each, metrics) for each in both)):
        detector = context.scope == 'mmdet'  # whose metrics want a category for each label
        pairs = [*zip_longest(trained, names)] if detector else [*zip(trained, names, strict=False)]
        compared |= bool(pairs)
        wrong = ((label, *pair) for label, pair in enumerate(pairs) if pair[0] != pair[1])
        if first := next(wrong, None):
            label, one, two = first
            texts.append(
                f'{loader}: label {label} is {two!r}, in train_dataloader {one!r}, and all results '
                'would be of other classes. A label is the place of a class folder, or of a name '
                'in metainfo.classes: give both the same, an empty folder if need be, in the same '
                'order'
            )
    if texts:
        return [Finding('evaluation', 'error', text) for text in dict.fromkeys(texts)]
    has = ', and has the classes of the training' if compared else ''
    return [Finding('evaluation', 'ok', f'{loader} leaves out no bad image{has}')]


def _names(context, loader, metrics):
    """What the labels of each dataset in a dataloader stand for, of those that are compared."""
    datasets = [each.dataset for each in open_datasets(context, loader) if each.dataset is not None]
    if context.scope != 'mmdet':
        return [class_folders(each) for each in datasets] if metrics & COMPARING else []
    if context.cfg.model.get('language_model') or context.has_failed('annotations'):
        return []  # classes are words, or wrong
    names = [each.metainfo.get('classes') for each in datasets]
    return [each for each in names if isinstance(each, list | tuple)]
