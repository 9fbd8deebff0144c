"""How a loss and its gradient change along the gradient of features, also during training.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.2, equations (3) and (4); the idea is from
Santurkar et al., How Does Batch Normalization Help Optimization?, NeurIPS 2018.
"""

import copy
import math
import os.path as osp
from collections.abc import Callable, Iterable

import torch
from mmengine.dist import all_reduce, broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor, nn

from .._io import append_jsonl, drop_jsonl, read_jsonl
from ..ops.arguments import check_integer
from ..ops.precision import full_float32, full_precision, full_products
from ..runtime.network import untouched, unwrap

FILE = 'landscape.jsonl'  # of LandscapeHook, in the work dir


@full_precision
def measure_landscape(
    x: Tensor, loss: Callable[[Tensor], Tensor], etas: Iterable[float]
) -> tuple[Tensor, Tensor]:
    """Measure the loss and the change of its gradient along the gradient at `x`.

    With L = `loss` and g = dL/dX at `x`, for each eta::

        M_l = L(x + eta g);  M_g = || g - dL/dX (x + eta g) ||_2

    The cost is len(etas) + 1 forward and backward passes. Each eta has its own pass, because a
    batch of several would share its batch normalization statistics. Gradients of weights are not
    computed. All passes draw the same random numbers from PyTorch, for example for dropout. They
    update the buffers of the network: see :func:`gcp_mm.runtime.network.untouched`.

    Args:
        x: features, of any shape. float16 and bfloat16 are computed in float32, also under
            autocast.
        loss: function from such features to the mean loss of the batch, a scalar; see
            :func:`split_at`.
        etas: steps, at least one.

    Returns:
        M_l and M_g, each (len(etas),), in the dtype of the loss.

    Raises:
        TypeError: if `x` is not a floating-point tensor.
        ValueError: if there is no eta, or one that is not finite.
    """
    etas = [float(eta) for eta in etas]
    if not etas or not all(map(math.isfinite, etas)):
        raise ValueError(f'etas: expected finite numbers, at least one, got {etas}')
    x = x.detach()
    devices = [x.device] if x.is_cuda else []

    def loss_and_gradient(x):
        x.requires_grad_()
        with torch.enable_grad(), torch.random.fork_rng(devices):
            value = loss(x)
            return value.detach(), torch.autograd.grad(value, x)[0]

    losses, distances = [], []
    with full_float32():
        g = loss_and_gradient(x.clone())[1]
        for eta in etas:
            value, g_eta = loss_and_gradient(x + eta * g)
            losses.append(value)
            distances.append(torch.linalg.vector_norm(g - g_eta))
    return torch.stack(losses), torch.stack(distances)


def split_at(
    model: nn.Module, stem: str, run: Callable[[], object]
) -> tuple[Tensor, Callable[[Tensor], object]]:
    """Split what `run` computes into features and a function of them.

    Forward hooks read the features, or replace them. What comes before the features is computed
    in every run. Splitting leaves buffers and random generators as they were.

    Args:
        model: network, whose real forward is split.
        stem: path of one of its modules.
        run: runs `model` on a batch, ``lambda: model(**data, mode='loss')`` for example.

    Returns:
        The output of `stem`, detached; and a function `rest` of such a tensor that returns what
        `run` returns with the tensor in place of that output.

    Raises:
        ValueError: if `stem` does not give one tensor in a run.
    """
    module, outputs = model.get_submodule(stem), []

    def read(module, args, output):  # what follows may work in place
        outputs.append(output.clone() if isinstance(output, Tensor) else output)

    def rest(x):
        with module.register_forward_hook(lambda *_: x.clone()):
            return run()

    with untouched(model), torch.no_grad(), module.register_forward_hook(read):
        run()
    if len(outputs) != 1 or not isinstance(outputs[0], Tensor):
        kinds = [type(output).__name__ for output in outputs]
        raise ValueError(
            f'stem={stem!r}: expected a module with one output in a run, a tensor, got {kinds}'
        )
    return outputs[0], rest


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
        ValueError: if one of them is too small, or `eta_range` are not two increasing numbers.
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
        others = [self._resume(runner)]
        broadcast_object_list(others)  # what the first process has found
        if others[0]:
            raise ValueError(
                f'eta_range or num_points: {self.path!r} holds measurements with others; set those '
                'again, or remove the file'
            )

    def _resume(self, runner):
        """Drop what is measured again; whether measurements of other steps are left."""
        if not is_main_process() or not osp.exists(self.path):
            return False
        if dropped := drop_jsonl(self.path, runner.iter):
            runner.logger.warning(
                f'{self.path}: dropped {dropped} measurements from iteration {runner.iter} on, '
                'which are made again'
            )
        return any(record['etas'] != self.etas for record in read_jsonl(self.path, etas=list))

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
            record = dict(iter=runner.iter, epoch=runner.epoch, etas=self.etas)
            record |= dict(losses=losses.tolist(), gradient_distances=distances.tolist())
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
    with untouched(model), full_products(next(model.parameters())):
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
