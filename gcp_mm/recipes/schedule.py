"""What the configs of all tasks have in common: how long a training is, and its text."""

import pprint
import textwrap
from dataclasses import dataclass

WIDTH = 100  # of a line of a config
VALIDATIONS = 10
LEAST = 4  # images of a process in a step: batch normalization takes the statistics of those


@dataclass(frozen=True)
class Regime:
    """Learning rate and length of a training, before the size of its data is known.

    Attributes:
        rate: learning rate for `batch` images in a step, with whose number it goes.
        batch: number of images.
        highest: largest learning rate.
        steps: least number of steps.
        epochs: least and largest number of epochs.
    """

    rate: float
    batch: int
    highest: float
    steps: int
    epochs: tuple[int, int]


@dataclass(frozen=True)
class Schedule:
    """Length and batch of a training.

    Attributes:
        batch: images of each process in a step.
        total: images of all processes in a step.
        steps: of an epoch.
        epochs: of the training, a multiple of `interval`.
        warmup: epochs in which the learning rate rises, at most a tenth of them.
        interval: epochs from one validation to the next.
    """

    batch: int
    total: int
    steps: int
    epochs: int
    warmup: int
    interval: int


def plan(
    images: int, batch: int, processes: int, regime: Regime, drop_last: bool = True
) -> Schedule:
    """Choose the length of a training.

    Args:
        images: of the training set.
        batch: images of all processes in a step; fewer where a set is small, more where a process
            would have fewer than :data:`LEAST`.
        processes: of the training.
        regime: of the training.
        drop_last: whether images that do not fill a batch are left out of an epoch.

    Raises:
        ValueError: if there are not two images for each process.
    """
    if images < 2 * processes:
        raise ValueError(
            f'{images} images to train on make no batch for {processes} processes; add images, or '
            'take fewer (--gpus)'
        )
    own = min(max(batch // processes, LEAST), max(1, images // 2 // processes))
    while not drop_last and own > 1 and -(-images // processes) % own == 1:
        own += 1  # batch normalization would take the statistics of a single image
    total = own * processes
    steps = images // total if drop_last else -(-images // total)
    length = min(max(-(-regime.steps // steps), regime.epochs[0]), regime.epochs[1])
    interval = max(1, length // VALIDATIONS)
    length = -(-length // interval) * interval
    return Schedule(own, total, steps, length, max(1, length // 20), interval)


def schedule_text(schedule: Schedule, regime: Regime, start: float, more: str = '') -> str:
    """The lines of a config from the learning rate to the end.

    Args:
        schedule: length and batch.
        regime: of the training.
        start: share of the rate that the warm-up begins with.
        more: further lines of `optim_wrapper`.
    """
    rate = min(regime.rate * schedule.total / regime.batch, regime.highest)
    log = min(schedule.steps, 50)
    about = comment(
        f'{schedule.epochs} epochs of {schedule.steps} steps of {schedule.total} images are '
        f'{schedule.epochs * schedule.steps:,} steps. The learning rate is {regime.rate:g} for '
        f'{regime.batch} images, and goes with their number up to {regime.highest:g}.'
    )
    return f"""\
{about}
epochs, warmup, interval = {schedule.epochs}, {schedule.warmup}, {schedule.interval}
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr={rate:g}, momentum=0.9, weight_decay=1e-4),
{more})
param_scheduler = [
    dict(type='LinearLR', start_factor={start}, end=warmup, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        begin=warmup,
        end=epochs,
        T_max=epochs - warmup,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=epochs, val_interval=interval)
auto_scale_lr = dict(base_batch_size={schedule.total})
default_hooks = dict(logger=dict(interval={log}), checkpoint=dict(interval=interval))
"""


def comment(*sentences: str) -> str:
    """Sentences as lines of comment."""
    lines = dict(initial_indent='# ', subsequent_indent='# ', break_long_words=False)
    return '\n'.join(textwrap.wrap(' '.join(filter(None, sentences)), WIDTH, **lines))


def literal(value: object) -> str:
    """A value as Python writes it, in several lines where it is long."""
    return pprint.pformat(value, width=WIDTH - 12, compact=True)


def up_to(low: float, high: float) -> str:
    """A range of whole numbers."""
    return f'{low:.0f}' if low == high else f'{low:.0f} to {high:.0f}'
