"""Curvature of a loss in the weights, and the loss on a plane through them.

The loss is given in parts, functions without arguments whose sum it is: one for each batch of a
data set, divided by the size of the set. The graph of one part at a time is held. Gradients and
directions are vectors of all weights, (P,), in the order of the parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from tqdm import tqdm

Parts = Sequence[Callable[[], Tensor]]


def gradient(loss: Parts, params: Sequence[Tensor]) -> Tensor:
    """Gradient of the loss in the parameters, (P,)."""
    return sum(_gradient(part(), params) for part in loss)


def hessian_product(loss: Parts, params: Sequence[Tensor], vector: Tensor) -> Tensor:
    """H v, by differentiating <gradient, v>: two backward passes of each part.

    Args:
        loss: parts of the loss; all their operations have second derivatives.
        params: weights, P numbers in all.
        vector: v, (P,).

    Returns:
        (P,), detached.
    """
    product = torch.zeros_like(vector)
    for part in loss:
        product += _gradient(_gradient(part(), params, create_graph=True) @ vector, params)
    return product


def top_eigenvalue(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    iterations: int = 100,
    tolerance: float = 0.01,
) -> tuple[float, float, int]:
    """The eigenvalue of largest magnitude of a symmetric matrix H, by power iteration.

    Args:
        product: maps v to H v.
        start: vector to start from, (P,), not zero.
        iterations: largest number of products, at least 1.
        tolerance: residual to stop at. Some eigenvalue is within residual * abs(value) of the
            value; the error of the value is of the order of its square.

    Returns:
        The last estimate; its residual ||H v - value v|| / abs(value), which is large if the
        iteration did not converge; and the number of products.
    """
    v = start / start.norm()
    residual, products = float('inf'), 0
    while residual > tolerance and products < iterations:
        w = product(v)
        value, length = w @ v, w.norm()
        residual = ((w - value * v).norm() / value.abs()).item() if length else 0.0
        v = w / length
        products += 1
    return value.item(), residual, products


def smoothness_along_gradient(
    loss: Parts, params: Sequence[Tensor], etas: Sequence[float]
) -> list[float]:
    """Change of the gradient g per length of the step, at steps along it.

    ||g(w) - g(w + eta g(w))|| / ||eta g(w)|| for each eta. The largest is the effective
    beta-smoothness of Santurkar et al., How Does Batch Normalization Help Optimization?, NeurIPS
    2018, section 3.1; the limit for eta to 0 is ||H g|| / ||g||.

    Args:
        loss: parts of the loss.
        params: weights w; restored bit for bit.
        etas: steps, none of them 0. Negative ones descend.

    Returns:
        A value for each eta.
    """
    g = gradient(loss, params)
    ratios = []
    for eta in tqdm(etas, desc='smoothness'):
        with moved(params, eta * g):
            ratios.append(((g - gradient(loss, params)).norm() / (abs(eta) * g.norm())).item())
    return ratios


def filter_normalized_direction(params: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """A random direction, each filter of which has the norm of the filter it is added to.

    A filter is the weights of one output: w[i] of the w of a convolution or a linear layer. Biases
    and the weights of batch normalization, which have one dimension, do not move, as in the code
    of Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018, section 4.

    Args:
        params: weights, P numbers in all.
        generator: of random numbers, on the CPU.

    Returns:
        (P,), Gaussian except for its scale.
    """
    parts = []
    for w in params:
        d = torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device)
        if w.dim() > 1:
            norms = w.detach().flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1)
            d *= norms.view(-1, *[1] * (w.dim() - 1))
        else:
            d.zero_()
        parts.append(d.flatten())
    return torch.cat(parts)


@torch.no_grad()
def loss_surface(
    loss: Parts,
    params: Sequence[Tensor],
    directions: tuple[Tensor, Tensor],
    steps: Sequence[float],
) -> Tensor:
    """Loss at w + a d_1 + b d_2 for all a and b in `steps`.

    Args:
        loss: parts of the loss.
        params: weights w; restored bit for bit.
        directions: d_1 and d_2, each (P,).
        steps: a, and b.

    Returns:
        (len(steps), len(steps)): row by a, column by b.
    """
    surface = torch.empty(len(steps), len(steps), dtype=directions[0].dtype)
    for i, a in enumerate(tqdm(steps, desc='surface', unit='row')):
        for j, b in enumerate(steps):
            with moved(params, a * directions[0] + b * directions[1]):
                surface[i, j] = sum(part() for part in loss)
    return surface


@contextmanager
def moved(params: Sequence[Tensor], step: Tensor) -> Iterator[None]:
    """Context with `step`, (P,), added to the weights; they end bit for bit as they were."""
    before = parameters_to_vector(params).detach()
    try:
        vector_to_parameters(before + step, params)
        yield
    finally:
        vector_to_parameters(before, params)


def _gradient(scalar, params, create_graph=False):
    grads = torch.autograd.grad(scalar, params, create_graph=create_graph, materialize_grads=True)
    return parameters_to_vector(grad.contiguous() for grad in grads)
