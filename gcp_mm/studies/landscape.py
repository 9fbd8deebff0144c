"""How a loss and its gradient change along the gradient of features.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.2, equations (3) and (4); the idea is of
Santurkar et al., How Does Batch Normalization Help Optimization?, NeurIPS 2018.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..ops.precision import autocast_off, full_float32


def measure_landscape(
    rest: Callable[[Tensor], object],
    loss_fn: Callable[[object, object], Tensor],
    x: Tensor,
    target: object,
    etas: Iterable[float],
) -> tuple[Tensor, Tensor]:
    """Loss, and distance of its gradient from the one at `x`, at steps along that gradient.

    With L(X) = loss_fn(rest(X), target) and g = dL/dX at `x`, for each eta::

        M_l = L(x + eta g);  M_g = || g - dL/dX (x + eta g) ||_2

    These are len(etas) + 1 forward and backward passes of `rest`, one eta at a time, so that memory
    is that of one training step and a few tensors like `x`. (Several etas in one batch would share
    their batch normalisation statistics, and so be another function.) No gradient of a weight is
    computed. All passes see the same random numbers, dropout's masks for example, and leave the
    generators as they were. Buffers that `rest` updates are left to :func:`.untouched.untouched`.

    Args:
        rest: what follows the features `x` in the network.
        loss_fn: mean loss of the batch, from what `rest` gives and `target`.
        x: features, of any shape. float16 and bfloat16 are measured in float32, as is everything
            under autocast.
        target: handed to `loss_fn` as it is.
        etas: steps, at least one.

    Returns:
        M_l and M_g, a value for each eta, in the loss's dtype.

    Raises:
        TypeError: if `x` is not a floating-point tensor.
        ValueError: if there is no eta, or one that is not finite, or the loss is not a scalar.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f'x: expected a floating-point tensor, got {getattr(x, "dtype", type(x))}')
    etas = [float(eta) for eta in etas]
    if not etas or not torch.tensor(etas).isfinite().all():
        raise ValueError(f'etas: expected finite numbers, at least one, got {etas}')
    x = x.detach()
    x = x if x.dtype == torch.float64 else x.float()
    devices = [x.device] if x.is_cuda else []

    def loss_and_gradient(x):
        x.requires_grad_()
        with torch.enable_grad(), torch.random.fork_rng(devices):
            loss = loss_fn(rest(x), target)
            if loss.dim():
                raise ValueError(f'loss_fn: expected a scalar, got shape {tuple(loss.shape)}')
            return loss.detach(), torch.autograd.grad(loss, x)[0]

    losses, distances = [], []
    with autocast_off(x.device.type), full_float32():
        g = loss_and_gradient(x.clone())[1]
        for eta in etas:
            loss, g_eta = loss_and_gradient(x + eta * g)
            losses.append(loss)
            distances.append(torch.linalg.vector_norm(g - g_eta))
    return torch.stack(losses), torch.stack(distances)
