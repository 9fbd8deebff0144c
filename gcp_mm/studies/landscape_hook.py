"""The smoothness of the loss during training, as in section 3.2 of the paper."""

import copy
import math
import os.path as osp

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor, nn

from .._io import append_jsonl, drop_jsonl
from ..ops.arguments import check_integer
from ..ops.precision import autocast_off
from ..runtime.network import untouched, unwrap
from .landscape import measure_landscape, split_at

FILE = 'landscape.jsonl'


@HOOKS.register_module()
class LandscapeHook(Hook):
    """Measure the loss and its gradient along the gradient of the first features, M_l and M_g.

    Before every `interval`-th iteration the hook calls :func:`gcp_mm.studies.measure_landscape` on
    the batch and weights of that iteration. X is the output of `stem`, and the `num_points` steps
    eta are evenly spaced over `eta_range`. The hook does not affect the training: weights, buffers,
    gradients, optimizer and random generators stay bit-identical.

    The loss is the classifier's own, with its batch augmentation and dropout, in training mode
    (batch statistics). It is computed in float32, also with `AmpOptimWrapper`. In a distributed run
    it is the mean over all processes, X the features of all their batches, and g the gradient of
    that mean. A batch of 256 gives the same result in 1 process and in 8, except for the batch
    statistics, which each process computes by itself.

    Each measurement is a line of ``<work_dir>/landscape.jsonl`` with iter (previous steps), epoch,
    etas, losses (M_l) and gradient_distances (M_g). The visualizer gets the smallest and largest
    values. A resumed run first removes the lines that it will measure again.

    A measurement costs num_points + 1 forward and backward passes, and one more forward pass.

    Args:
        interval: iterations between measurements, beginning with iteration 0.
        eta_range: smallest and largest step. The paper: (0.1, 75) for ResNet-18, (0.045, 1.5) for
            MobileNetV2.
        num_points: number of steps.
        stem: path of the module whose output is X. In the paper X is the output of the first
            convolution after BN, ReLU and, in a ResNet, max-pooling. This is
            ``'backbone.maxpool'`` in a ResNet, and ``'backbone.conv1'`` in MobileNetV2 and
            ShuffleNetV2.

    Raises:
        TypeError: if `interval` or `num_points` is not an integer.
        ValueError: if one of them is too small, or `eta_range` does not have two increasing
            numbers.
    """

    priority = 'LOW'  # after the hooks that prepare an iteration

    def __init__(
        self,
        interval: int,
        eta_range: tuple[float, float],
        num_points: int = 50,
        stem: str = 'backbone.maxpool',
    ):
        check_integer('interval', interval)
        check_integer('num_points', num_points, 2)
        try:
            low, high = map(float, eta_range)
        except (TypeError, ValueError):
            low = high = math.nan
        if not -math.inf < low < high < math.inf:
            raise ValueError(
                'eta_range: expected the smallest and the largest step, such as (0.1, 75), '
                f'got {eta_range!r}'
            )
        self.interval = interval
        self.etas = torch.linspace(low, high, num_points, dtype=torch.float64).tolist()
        self.stem = stem

    def before_train(self, runner):
        try:
            unwrap(runner.model).get_submodule(self.stem)
        except AttributeError as error:
            raise ValueError(
                f'stem={self.stem!r}: {error}; name the module whose output is X, such as '
                "'backbone.conv1' of MobileNetV2"
            ) from error
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
        losses, distances = measure_step(unwrap(runner.model), self.stem, data_batch, self.etas)
        extremes = {
            'landscape/loss_min': losses.min().item(),
            'landscape/loss_max': losses.max().item(),
            'landscape/gradient_min': distances.min().item(),
            'landscape/gradient_max': distances.max().item(),
        }
        runner.visualizer.add_scalars(extremes, step=runner.iter)
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
            x, lambda x: model.parse_losses(rest(x))[0] / processes, etas
        )
    squares = distances.square()
    all_reduce(losses)
    all_reduce(squares)
    return losses, squares.sqrt()
