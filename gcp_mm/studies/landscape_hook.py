"""The smoothness of the loss during training, as in section 3.2 of the paper."""

import copy
import math
import os.path as osp
import time

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor, nn

from .._io import append_jsonl, drop_jsonl
from ..ops.precision import autocast_off
from ..runtime.untouched import untouched
from ..runtime.wrapping import unwrap
from . import measure_landscape
from .split import find_stem, split_at

FILE = 'landscape.jsonl'


@HOOKS.register_module()
class LandscapeHook(Hook):
    """Measure the loss and its gradient along the gradient of the first features, M_l and M_g.

    Before the step of every `interval`-th iteration, with its batch and the weights as they are,
    :func:`gcp_mm.studies.measure_landscape` takes X, the output of `stem`, and `num_points` steps
    eta, evenly spaced over `eta_range`. The training goes on as if nothing had been: weights,
    buffers, gradients, optimizer and random generators stay bit for bit what they are.

    The loss is the one of the step: the classifier's own, with its batch augmentation and
    dropout, in training mode (batch statistics), but in float32 with `AmpOptimWrapper` too. In a
    distributed run it is the mean over all processes, X the features of all their batches, and
    g the gradient of that mean: a batch of 256 gives the same in 1 process and in 8, but for the
    batch statistics, which are of each process.

    Each measurement is a line of ``<work_dir>/landscape.jsonl`` with iter (steps taken before),
    epoch, etas, losses (M_l) and gradient_distances (M_g); the visualizer gets their smallest and
    largest values. A resumed run first drops the lines it will measure again.

    A measurement costs num_points + 1 forward and backward passes.

    Args:
        interval: iterations from one measurement to the next; the first is in iteration 0.
        eta_range: smallest and largest step. The paper: (0.1, 75) for ResNet-18, (0.045, 1.5) for
            MobileNetV2.
        num_points: number of steps.
        stem: path of the module whose output is X; None is the first convolution (after BN, ReLU
            and, in a ResNet, max-pooling), see :func:`gcp_mm.studies.split.find_stem`.

    Raises:
        TypeError: if `interval` or `num_points` is not an integer.
        ValueError: if one of them is too small, `eta_range` is not two increasing numbers or,
            before training starts, the model has no module `stem`.
    """

    priority = 'LOW'  # after the hooks that prepare an iteration

    def __init__(
        self,
        interval: int,
        eta_range: tuple[float, float],
        num_points: int = 50,
        stem: str | None = None,
    ):
        for name, value, least in (('interval', interval, 1), ('num_points', num_points, 2)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f'{name}: expected a whole number, got {value!r}')
            if value < least:
                raise ValueError(f'{name}: expected at least {least}, got {value}')
        if not _is_range(eta_range):
            raise ValueError(
                'eta_range: expected the smallest and the largest step, such as (0.1, 75), '
                f'got {eta_range!r}'
            )
        self.interval = interval
        self.etas = torch.linspace(*eta_range, num_points, dtype=torch.float64).tolist()
        self.stem = stem

    def before_run(self, runner):
        self.stem = find_stem(unwrap(runner.model), self.stem)

    def before_train(self, runner):
        self.path = osp.join(runner.work_dir, FILE)
        if is_main_process():
            dropped = drop_jsonl(self.path, runner.iter)
            if dropped:
                runner.logger.warning(
                    f'{self.path}: dropped {dropped} measurements from iteration {runner.iter} on, '
                    'which are made again'
                )

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter % self.interval:
            return
        start = time.perf_counter()
        losses, distances = measure_step(unwrap(runner.model), self.stem, data_batch, self.etas)
        band = dict(
            loss_min=losses.min().item(),
            loss_max=losses.max().item(),
            gradient_min=distances.min().item(),
            gradient_max=distances.max().item(),
        )
        runner.logger.info(
            f'landscape in iteration {runner.iter}: loss {band["loss_min"]:.4g} to '
            f'{band["loss_max"]:.4g}, gradient distance {band["gradient_min"]:.4g} to '
            f'{band["gradient_max"]:.4g} ({time.perf_counter() - start:.1f} s)'
        )
        runner.visualizer.add_scalars(
            {f'landscape/{key}': value for key, value in band.items()}, step=runner.iter
        )
        if is_main_process():
            record = dict(
                iter=runner.iter,
                epoch=runner.epoch,
                etas=self.etas,
                losses=losses.tolist(),
                gradient_distances=distances.tolist(),
            )
            append_jsonl(self.path, record)


def measure_step(
    model: nn.Module, stem: str, data_batch: dict, etas: list[float]
) -> tuple[Tensor, Tensor]:
    """M_l and M_g of a training step, of the mean loss over all processes.

    Args:
        model: classifier of MMPretrain, not wrapped, in the mode to measure it in.
        stem: path of the module whose output is X.
        data_batch: of this process, as it comes from the dataloader.
        etas: steps.

    Returns:
        M_l and M_g, (len(etas),), the same in every process.
    """
    processes = get_world_size()
    with untouched(model), autocast_off(next(model.parameters()).device.type):
        # A copy: the preprocessor writes mixed labels into the samples.
        data = model.data_preprocessor(copy.deepcopy(data_batch), True)
        x, rest = split_at(model, stem, lambda: model(**data, mode='loss'))
        losses, distances = measure_landscape(
            rest, lambda out, _: model.parse_losses(out)[0] / processes, x, None, etas
        )
    squares = distances.square()
    all_reduce(losses)
    all_reduce(squares)
    return losses, squares.sqrt()


def _is_range(value):
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(v, int | float) and math.isfinite(v) for v in value)
        and value[0] < value[1]
    )
