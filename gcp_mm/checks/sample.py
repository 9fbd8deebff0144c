"""A batch to try a network on: of the config's data, or random images where there are none."""

import copy

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from .classes import find_heads
from .tree import walk

SIZES = ('crop_size', 'scale', 'scales', 'img_scale', 'size')  # of an image, in transforms


def real_batch(cfg: Config, images: int) -> dict:
    """The first `images` images that the train_dataloader of a config gives."""
    loader = copy.deepcopy(cfg.train_dataloader)
    loader.update(batch_size=images, num_workers=0, persistent_workers=False, pin_memory=False)
    loader.pop('prefetch_factor', None)
    return next(iter(Runner.build_dataloader(loader, seed=0)))


def random_batch(cfg: Config, images: int) -> dict:
    """Random images, with random labels or objects, of the size the training has."""
    height, width = image_size(cfg)
    classes = max([number for _, number in find_heads(cfg)], default=2)
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(
            images,
            (3, height, width),
            num_classes=max(classes, 2),
            with_mask=any('mask_head' in path for path, _ in walk(cfg.model)),
            with_semantic='semantic' in str(cfg.model),
            use_box_type=True,
        )
    from mmpretrain.structures import DataSample

    shape = (images, 3, height, width)
    return dict(
        inputs=torch.randint(256, shape, generator=torch.Generator().manual_seed(0)),
        data_samples=[DataSample().set_gt_label(i % classes) for i in range(images)],
    )


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width of the images of a training, as the last transform that sets them says.

    Where none does it is (224, 224), (800, 1333) for a detector.
    """
    detector = cfg.get('default_scope') == 'mmdet'
    size = (1333, 800) if detector else 224
    for _, node in walk(cfg.get('train_dataloader')):
        for step in node.get('pipeline') or ():
            size = next((step[key] for key in SIZES if step.get(key)), size)
    if isinstance(size, list | tuple) and isinstance(size[0], list | tuple):
        size = max(size)  # one of several at random: the largest
    if isinstance(size, int | float):
        return int(size), int(size)
    width, height = map(int, size)
    return (min(size), max(size)) if detector else (height, width)
