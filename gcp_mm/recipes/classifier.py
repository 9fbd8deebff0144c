"""The config of a classifier of own images, as text."""

import inspect

import numpy as np

from .folders import Folders
from .network import Network
from .schedule import Regime, comment, literal, plan, schedule_text, up_to

SIZES = (64, 224)  # least and largest side of an image in pixels; the paper's is 224
RATIO = (256, 196)  # channels D to positions of the last map, in the paper's networks
CHANNELS = (32, 256)
# Training images up to which a step has so many
BATCHES = ((2_000, 16), (20_000, 64), (np.inf, 256))
# From random weights, at most the paper's learning rate; and from pretrained ones
SCRATCH = Regime(rate=0.02, batch=16, highest=0.1, steps=800, epochs=(30, 300))
FINE = Regime(rate=0.002, batch=16, highest=0.01, steps=500, epochs=(12, 100))
MANY = 50  # classes, of which the five most likely are evaluated too


def choose_size(sizes: np.ndarray) -> tuple[int, str]:
    """Side of the images to train with, in pixels: a multiple of 32 that enlarges few images.

    Args:
        sizes: (n, 2), widths and heights of the images.

    Returns:
        The side, and why.
    """
    size = int(np.quantile(sizes.min(1), 0.1)) // 32 * 32
    if size < SIZES[0]:
        return SIZES[0], 'smaller ones leave a map of few positions'
    if size > SIZES[1]:
        return SIZES[1], "the paper's, and the images are no smaller"
    return size, 'a multiple of 32 that nine in ten images reach'


def choose_channels(positions: int) -> int:
    """Channels D for a map of so many positions: a power of two from 32 to 256.

    As many for a position as in the paper's networks at most, but never fewer than 32: of four
    positions 32 channels still learn more than 8, though their covariance lacks the full rank
    (docs/guides/own_data.md).
    """
    d = CHANNELS[0]
    while d < CHANNELS[1] and 2 * d * RATIO[1] <= positions * RATIO[0]:
        d *= 2
    return d


def classifier(
    folders: Folders,
    sizes: np.ndarray,
    lists: dict[str, str],
    network: Network,
    *,
    size: int | None,
    processes: int,
    workers: int,
) -> str:
    """Write the config of a classifier.

    Args:
        folders: the dataset.
        sizes: (n, 2), widths and heights of its images.
        lists: file of each split that lists its images, where the dataset was split.
        network: ResNet, pooling and weights.
        size: side of the images in pixels; None for one that fits the images.
        processes: of the training.
        workers: processes that load images, for each process of the training.

    Raises:
        ValueError: if there are not two images to train on for each process.
    """
    fine = network.weights is not None
    if size is not None:
        reason = 'as asked for'
    elif fine:
        size, reason = SIZES[1], 'of most pretrained networks'
    else:
        size, reason = choose_size(sizes)
    number, top = len(folders.classes), '(1, 5)' if len(folders.classes) >= MANY else '(1,)'
    images = len(folders.samples['train'])
    batch = next(batch for limit, batch in BATCHES if images <= limit)
    regime = FINE if fine else SCRATCH
    schedule = plan(images, batch, processes, regime)
    low, high = sizes.min(), sizes.max()
    counts = {split: len(files) for split, files in folders.samples.items()}
    about = comment(
        f'{folders.root}: {number} classes, {counts["train"]:,} images to train on and '
        f'{counts["val"]:,} to validate, {up_to(low, high)} pixels wide and high.',
        *folders.notes,
    )
    return f"""\
{about}
_base_ = [
    'gcp_mm::_base_/models/resnet50_{network.kind}.py',
    'gcp_mm::_base_/own_classifier.py',  # samplers, normalization of pixels, hooks, seed
]

# In the order of the labels
classes = {literal(folders.classes)}
size = {size}  # pixels; {reason}
{_model(network, size, number, top)}
load = dict(type='LoadImageFromFile')
pack = dict(type='PackInputs')
# The whole image is resized, at its aspect ratio, and padded right and below: nothing is cut off.
train_pipeline = [
    load,
    dict(type='RandomResize', scale=(size, size), ratio_range=(0.7, 1.0), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),  # leave it out where a mirror image is of another class
    dict(type='Pad', size=(size, size)),
    pack,
]
test_pipeline = [
    load,
    dict(type='Resize', scale=(size, size), keep_ratio=True),
    dict(type='Pad', size=(size, size)),
    pack,
]
data_preprocessor = dict(num_classes={number})
{_datasets(folders, lists)}
train_dataloader = dict(
    batch_size={schedule.batch},  # of each process
    num_workers={workers},
    dataset=dict(**dataset, **train, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size={schedule.batch},
    num_workers={workers},
    dataset=dict(**dataset, **val, pipeline=test_pipeline),
)
val_evaluator = dict(type='Accuracy', topk={top})
test_dataloader = val_dataloader
test_evaluator = val_evaluator

{schedule_text(schedule, regime, 0.1, _more(fine))}"""


def _more(fine):
    """Further lines of `optim_wrapper`."""
    if not fine:
        return ''
    return (
        '    # The new classifier learns faster than what is pretrained.\n'
        "    paramwise_cfg=dict(custom_keys={'head.': dict(lr_mult=5)}),\n"
    )


def _model(network, size, number, top):
    """The lines of the model."""
    weights = network.weights
    checkpoint = f'checkpoint = {weights.checkpoint!r}\n' if weights else ''
    start = f'        init_cfg={network.init_cfg("backbone")},\n' if weights else ''
    neck, length, formula = '', network.width, ''
    if network.pooling:
        side = -(-size // 16)
        loaded = weights and weights.reduction
        widths = loaded or (choose_channels(side**2),)
        d, why = widths[-1], ', as in the weights' if loaded else ''
        init = f', init_cfg={network.init_cfg("neck")}' if loaded else ''
        neck = (
            f'    # D = {d}{why}: the last map has {side}x{side} = {side**2} positions\n'
            f'    neck=dict(in_channels={network.width}, reduction={widths}{init}),\n'
        )
        length, formula = d * (d + 1) // 2, '  # D (D + 1) / 2'
    return f"""\
{checkpoint}model = dict(
    backbone=dict(
        depth={network.depth},{'' if network.depth == 50 else '  # in place of the 50 of the base'}
{start}    ),
{neck}    head=dict(num_classes={number}, in_channels={length}, topk={top}),{formula}
)
"""


def _datasets(folders, lists):
    """The lines of the datasets."""
    from mmpretrain.datasets import CustomDataset

    default = set(inspect.signature(CustomDataset).parameters['extensions'].default)
    lines = ["dataset = dict(type='CustomDataset', metainfo=dict(classes=classes))"]
    for split, prefix in folders.prefixes.items():
        if folders.was_split:
            place = f'data_prefix={str(folders.root)!r}, ann_file={lists[split]!r}'
        else:
            place = f'data_root={str(folders.root)!r}, data_prefix={prefix!r}'
        used = {name[name.rfind('.') :].lower() for name, _ in folders.samples[split]}
        if not folders.was_split and not used <= default:
            place += f', extensions={tuple(sorted(used))}'
        lines.append(f'{split} = dict({place})')
    return '\n'.join(lines)
