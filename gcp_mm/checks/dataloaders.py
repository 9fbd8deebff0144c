"""Dataloaders of a run, refused before its first step if there is nothing in them to learn from."""

import logging
import os
from collections.abc import Callable, Iterator, Sized

from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data import LoadCheckedImage
from .context import Context, Finding, Loaded, name_of, splits_of, walk
from .data import REMEDY, build_dataset, find_datasets, is_remote
from .inspection import find_fault

LOADER_OPTIONS = {'type', 'to_float32', 'color_type', 'imdecode_backend', 'backend_args'}


def build_dataloader(
    build: Callable[..., DataLoader],
    dataloader: dict,
    loaded: list[Loaded] | None = None,
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
    try:
        loader = build(named, **kwargs)
    except Exception as error:
        for config in find_datasets(dataloader):  # if it is the data, say which file it is
            if fault := find_fault(config, 'dataloader'):
                raise ValueError(fault) from error
        raise
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


def _reuse(node, loaded):
    """Change a dataset's config, in place, to one that gives the loaded one its transforms."""
    dataset = loaded.dataset

    def complete(pipeline=None):
        if pipeline is not None:
            dataset.pipeline = Compose(pipeline)
        dataset.serialize_data = loaded.serialize
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


def _parts(dataset: Dataset) -> Iterator[Dataset]:
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
    if not parts or any(map(_has_object, parts)):
        return
    text = (
        f'{_describe(dataset)}: no image has an object of the classes '
        f'{parts[0].metainfo["classes"]}; name its own in metainfo.classes'
    )
    if not all(part.test_mode for part in parts):
        raise ValueError(text)
    print_log(f'{text}, or do not evaluate by it', logger='current', level=logging.WARNING)


def _has_object(dataset):
    """Whether an image has one for the loss; also true of data not annotated by objects."""
    for index in range(len(dataset)):
        instances = dataset.get_data_info(index).get('instances')
        if instances is None or any(not each.get('ignore_flag') for each in instances):
            return True
    return False


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


def check_images(context: Context) -> Iterator[Finding]:
    """Decode every image that a config's dataloaders read, each once, in several processes."""
    if context.errors:
        yield Finding('images', 'skipped', 'the data have errors, see above')
        return
    seen = set()
    bad = 0
    for split in splits_of(context):
        name = f'{split}_dataloader'
        for config in find_datasets(context.cfg.get(name)):
            if is_remote(config):
                continue
            found = find_bad_images(config, context.scope, seen, context.workers, name)
            for path, error in found:
                bad += 1
                yield Finding('images', 'error', f'{path}: {error}')
    if bad:
        yield Finding('images', 'error', f'{bad:,} of {len(seen):,} images cannot be used')
    else:
        yield Finding('images', 'ok', f'all {len(seen):,} images can be used')


def find_bad_images(
    config: dict, scope: str | None, seen: set[str], workers: int | None, name: str
) -> Iterator[tuple[str, str]]:
    """Decode every image of a dataset, in several processes, with a progress bar.

    Args:
        config: of the dataset.
        scope: name of the framework.
        seen: paths of images to leave out; those of this dataset are added.
        workers: number of processes; None for one for each CPU.
        name: name of the bar.

    Yields:
        The path of each image that cannot be used, and the reason.
    """
    images = _Images(config, scope, seen)
    # A worker that dies, of an image too large for the memory, ends this with an error.
    workers = os.cpu_count() if workers is None else workers
    batches = DataLoader(images, batch_size=16, num_workers=workers, collate_fn=list)
    with tqdm(total=len(images), desc=name, unit='image') as progress:
        for batch in batches:
            yield from filter(None, batch)
            progress.update(len(batch))


class _Images(Dataset):
    """The images of a dataset that are not in `seen`: an item is what is wrong with one, or None.

    Args:
        config: of the dataset.
        scope: the framework's registry.
        seen: paths; those of this dataset are added.
    """

    def __init__(self, config, scope, seen):
        self.infos = []
        self.loader = image_loader(config.get('pipeline', []))
        dataset = build_dataset(config, scope, lazy_init=True)
        if dataset is None or getattr(dataset, 'download', False):
            return
        dataset.serialize_data = False
        dataset.full_init()
        for info in dataset.data_list:
            if 'img_path' in info and info['img_path'] not in seen:
                seen.add(info['img_path'])
                keys = info.keys() & {'img_path', 'height', 'width'}
                self.infos.append({key: info[key] for key in keys})

    def __len__(self):
        return len(self.infos)

    def __getitem__(self, index):
        try:
            self.loader.load(self.infos[index])
        except (FileNotFoundError, ValueError) as error:
            return self.infos[index]['img_path'], str(error)
        return None
