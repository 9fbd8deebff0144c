"""How a loss and its gradient change along the gradient of features.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.2, equations (3) and (4); the idea is from
Santurkar et al., How Does Batch Normalization Help Optimization?, NeurIPS 2018.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..ops.precision import full_float32, full_precision
from ..runtime.network import untouched


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
    update the buffers of the network: see :func:`gcp_mm.runtime.untouched.untouched`.

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
