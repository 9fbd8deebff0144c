"""How long a training is, and in which steps."""

from dataclasses import dataclass

VALIDATIONS = 10


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

    @property
    def reason(self) -> str:
        """Why it is as long as it is, a sentence."""
        return (
            f'{self.epochs} epochs of {self.steps} steps of {self.total} images are '
            f'{self.epochs * self.steps:,} steps.'
        )


def plan(images: int, batch: int, processes: int, least: int, epochs: tuple[int, int]) -> Schedule:
    """Choose the length of a training.

    Args:
        images: of the training set.
        batch: images of all processes in a step; fewer are taken where a set is small.
        processes: of the training.
        least: steps that it is to have.
        epochs: least and largest number of epochs.

    Raises:
        ValueError: if there are not two images for each process.
    """
    if images < 2 * processes:
        raise ValueError(
            f'{images} images to train on make no batch for {processes} processes; add images, or '
            'take fewer (--gpus)'
        )
    own = max(1, min(batch, images // 2) // processes)
    total = own * processes
    steps = images // total
    length = min(max(-(-least // steps), epochs[0]), epochs[1])
    interval = max(1, length // VALIDATIONS)
    length = -(-length // interval) * interval
    return Schedule(own, total, steps, length, max(1, length // 20), interval)
