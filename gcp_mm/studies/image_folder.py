"""A folder of images as a network is tested on them."""

import os.path as osp
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor
from torch.utils.data import Dataset

from ..data import check_image_file


class ImageFolder(Dataset):
    """Images ``<folder>/<class>/<image>``, sent through the test pipeline of a config.

    An item is what the pipeline gives as `inputs`, (C, H, W).

    Args:
        folder: of the class folders; an image may lie deeper in its own.
        cfg: config of a classifier with a `test_dataloader`, whose pipeline is used.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has no class folders, or one of them no image; or if `cfg` has no
            `test_dataloader`.
    """

    def __init__(self, folder: str | Path, cfg: Config):
        if not cfg.get('test_dataloader'):
            raise ValueError('config: it has no test_dataloader, and so no pipeline to test by')
        self.folder = Path(folder).expanduser()
        layout = 'expected <folder>/<class>/<image>'
        if not self.folder.is_dir():
            raise FileNotFoundError(f'folder {str(folder)!r} does not exist; {layout}')
        if not any(path.is_dir() for path in self.folder.iterdir()):
            raise ValueError(f'folder {str(folder)!r} holds no folders of classes; {layout}')
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            try:
                self.images = DATASETS.build(
                    dict(
                        type='CustomDataset',
                        data_root=str(self.folder),
                        pipeline=cfg.test_dataloader.dataset.pipeline,
                        test_mode=True,
                    )
                )
            except RuntimeError as error:  # CustomDataset finds no image at all
                raise ValueError(f'folder {str(folder)!r}: {error}') from error
        infos = [self.images.get_data_info(i) for i in range(len(self.images))]
        self.paths = [info['img_path'] for info in infos]
        self.labels = np.array([info['gt_label'] for info in infos], dtype=np.int64)
        self.classes = tuple(self.images.CLASSES)
        empty = [self.classes[k] for k in set(range(len(self.classes))) - set(self.labels.tolist())]
        if empty:
            raise ValueError(
                f'folder {str(folder)!r}: {len(empty)} of {len(self.classes)} class folders hold '
                f'no image, one is {min(empty)!r}; {layout}'
            )

    @property
    def files(self) -> list[str]:
        """Paths of the images below the folder."""
        return [Path(osp.relpath(path, self.folder)).as_posix() for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self.paths[index]
        try:
            check_image_file(path)
        except Exception as error:  # decoders raise many kinds for a broken file
            raise ValueError(
                f'image {path!r} cannot be read ({error}); mend or remove it'
            ) from error
        return self.images[index]['inputs']
