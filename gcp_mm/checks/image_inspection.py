"""A look at every image of a config's data, decoded as training decodes it."""

import os
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data import LoadCheckedImage
from .data import DOWNLOADED, find_datasets
from .dataloaders import load_named
from .tree import name_of


def find_bad_images(cfg: Config, workers: int | None = None) -> Iterator[tuple[str, str]]:
    """Decode every image that a config's dataloaders read, in several processes.

    Args:
        cfg: config of a classifier or of a detector whose lists of images can be read, see
            :func:`.inspection.inspect_dataset`.
        workers: number of processes; by default one for each CPU.

    Yields:
        The path of an image that cannot be used, and why; each path once.
    """
    seen = set()
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for config in find_datasets(cfg.get(name)):
            images = _Images(config, cfg.get('default_scope'), seen)
            # A worker that dies, of an image too large for the memory, ends this with an error.
            batches = DataLoader(
                images,
                batch_size=16,
                num_workers=os.cpu_count() if workers is None else workers,
                collate_fn=list,
            )
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
        if name_of(config) in DOWNLOADED:
            return
        loaders = [
            t for t in load_named(config.get('pipeline', [])) if t.type == 'LoadCheckedImage'
        ]
        loader = {**loaders[0], 'on_error': 'raise'} if loaders else dict(type='LoadCheckedImage')
        self.loader: LoadCheckedImage = TRANSFORMS.build(loader)
        with DefaultScope.overwrite_default_scope(scope):
            dataset = DATASETS.build({**config, 'pipeline': [], 'serialize_data': False})
        for info in dataset.data_list:
            if info['img_path'] not in seen:
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
