"""The config of a detector of own images, as text."""

from pathlib import Path

import numpy as np

from .coco import Objects
from .network import Network
from .schedule import Regime, comment, literal, plan, schedule_text, up_to

LARGEST = (1333, 800)  # of MMDetection's COCO configs, pixels
SMALL = 320  # longer side up to which images get narrow heads
BATCH = 4
# From random weights; and from pretrained ones, 0.02 for 16 images as MMDetection has it
SCRATCH = Regime(rate=0.02, batch=BATCH, highest=0.04, steps=400, epochs=(24, 300))
FINE = Regime(rate=0.005, batch=BATCH, highest=0.02, steps=300, epochs=(12, 100))
ANCHORS = (2, 8)  # least and largest scale; MMDetection's is 8: 32 pixels on the finest map


def image_scale(sizes: np.ndarray) -> tuple[int, int]:
    """Longest and shortest side to resize images to, in pixels, at their aspect ratio.

    The larger ones keep their size, to a multiple of 32, up to MMDetection's 1333x800.

    Args:
        sizes: (n, 2), widths and heights of the images.
    """
    sides = np.sort(sizes, 1)  # shorter, longer
    short, long = (int(-(-np.quantile(side, 0.75) // 32) * 32) for side in sides.T)
    return min(long, LARGEST[0]), min(short, LARGEST[1])


def scale_to(longest: int, sizes: np.ndarray) -> tuple[int, int]:
    """The scale of :func:`image_scale`, reduced or enlarged to a longest side in pixels."""
    long, short = image_scale(sizes)
    return longest, max(1, round(longest * short / long))


def anchor_scale(boxes: np.ndarray, factor: float) -> int:
    """Side of the smallest anchors, in positions of the finest map (4 pixels each).

    Args:
        boxes: (n, 2), widths and heights of the objects in pixels.
        factor: by which images are resized.
    """
    small = factor * np.quantile(np.sqrt(boxes.prod(1)), 0.1)
    power = int(2 ** np.floor(np.log2(max(small / 4, 1))))
    return min(max(power, ANCHORS[0]), ANCHORS[1])


def detector(
    objects: Objects,
    sizes: np.ndarray,
    lists: dict[str, str],
    network: Network,
    *,
    size: int | None,
    processes: int,
    workers: int,
    masks: bool,
) -> str:
    """Write the config of Faster R-CNN or, with masks, of Mask R-CNN.

    Args:
        objects: the dataset.
        sizes: (n, 2), widths and heights of its images.
        lists: annotation file of each split, where the dataset was split.
        network: ResNet and weights.
        size: longest side of the resized images; None for what fits them.
        processes: of the training.
        workers: processes that load images, for each process of the training.
        masks: whether to find masks too.

    Raises:
        ValueError: if there are not two images to train on for each process.
    """
    files = lists or objects.annotation_files
    reason = 'as asked for' if size else 'most images are no larger'
    scale = scale_to(size, sizes) if size else image_scale(sizes)
    used = {split: objects.objects(split) for split in files}
    images = len({each['image_id'] for each in used['train']})
    regime = FINE if network.weights else SCRATCH
    schedule = plan(images, BATCH * processes, processes, regime, drop_last=False)
    factor = float(np.median(np.min(scale / np.sort(sizes, 1)[:, ::-1], axis=1)))
    boxes = np.array([each['bbox'][2:] for each in used['train']])
    anchors = anchor_scale(boxes, factor)
    counts = {split: len(objects.contents[split]['images']) for split in files}
    numbers = {split: len(used[split]) for split in files}
    steps = 'with_bbox=True, with_mask=True' if masks else 'with_bbox=True'
    sides, metric = np.sqrt(boxes.prod(1)), ['bbox', 'segm'] if masks else 'bbox'
    root = Path() if objects.was_split else objects.root
    low, high = sizes.min(), sizes.max()
    about = comment(
        f'{objects.root}: {len(objects.classes)} classes, {counts["train"]:,} images with '
        f'{numbers["train"]:,} objects to train on, {counts["val"]:,} with {numbers["val"]:,} to '
        f'validate; images of {up_to(low, high)} pixels wide and high, most objects of '
        f'{up_to(*np.quantile(sides, [0.1, 0.9]))}.',
        *objects.notes,
    )
    return f"""\
{about}
_base_ = [
    {_base(masks, max(scale) <= SMALL)}
    'gcp_mm::_base_/own_detector.py',  # samplers, clipping of gradients, hooks, seed
]

# In the order of the categories in the files
classes = {literal(objects.classes)}
scale = {scale}  # longer and shorter side in pixels; {reason}
{_model(network, len(objects.classes), anchors, masks)}
load = dict(type='LoadImageFromFile')
annotations = dict(type='LoadAnnotations', {steps})
train_pipeline = [
    load,
    annotations,
    dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),  # leave it out where a mirror image is of another class
    dict(type='PackDetInputs'),
]
test_pipeline = [
    load,
    dict(type='Resize', scale=scale, keep_ratio=True),
    annotations,
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
{_datasets(objects, files)}
train_dataloader = dict(
    batch_size={schedule.batch},  # of each process
    num_workers={workers},
    dataset=dict(**dataset, **train, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers={workers}, dataset=dict(**dataset, **val, pipeline=test_pipeline)
)
val_evaluator = dict(
    type='CocoMetric', ann_file={str(root / files['val'])!r}, metric={metric!r}
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator

{schedule_text(schedule, regime, 0.01)}"""


def _base(masks, narrow):
    """The line that names the model's base."""
    name = 'mask-rcnn' if masks else 'faster-rcnn'
    if narrow:
        return f"'gcp_mm::_base_/models/{name}_narrow.py',  # wide enough for images this small"
    return f"'mmdet::_base_/models/{name}_r50_fpn.py',"


def _model(network, number, anchors, masks):
    """The lines of the model."""
    checkpoint = ''
    if network.weights:
        checkpoint = f'checkpoint = {network.weights.checkpoint!r}\n'
        start = f'        init_cfg={network.init_cfg("backbone")},'
    else:
        start = (
            '        # From random weights all stages learn, and batch normalization too.\n'
            '        frozen_stages=-1,\n        norm_eval=False,\n        init_cfg=None,'
        )
    heads = ('bbox_head', 'mask_head') if masks else ('bbox_head',)
    return f"""\
{checkpoint}model = dict(
    backbone=dict(
        type='GCPResNet',
        depth={network.depth},
        conv5={network.conv5!r},
{start}
    ),
    neck=dict(in_channels={list(network.stages)}),
    rpn_head=dict(anchor_generator=dict(scales=[{anchors}])),  # from {4 * anchors} pixels on
    roi_head=dict({', '.join(f'{head}=dict(num_classes={number})' for head in heads)}),
)
"""


def _datasets(objects, files):
    """The lines of the datasets."""
    root = '' if objects.was_split else f'data_root={str(objects.root)!r}, '
    lines = [f"dataset = dict(type='CocoDataset', {root}metainfo=dict(classes=classes))"]
    for split, prefix in objects.prefixes.items():
        folder = str(objects.root / prefix) if objects.was_split else prefix
        lines.append(f'{split} = dict(ann_file={files[split]!r}, data_prefix=dict(img={folder!r}))')
    return '\n'.join(lines)
