"""Curvature of a loss in the weights, through products with its Hessian.

The loss is given in parts, functions without arguments whose sum it is: one for each batch of a
data set, divided by the whole set's size. The graph of one part at a time is held. Gradients and
directions are vectors of all weights, in the order of the parameters.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

Parts = Sequence[Callable[[], Tensor]]


def gradient(loss: Parts, params: Sequence[Tensor]) -> Tensor:
    """Gradient of the loss in the parameters, (P,)."""
    return sum(parameters_to_vector(_gradients(part(), params)) for part in loss)


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
        grads = parameters_to_vector(_gradients(part(), params, create_graph=True))
        product += parameters_to_vector(_gradients(grads @ vector, params))
    return product


class Eigenvalue(NamedTuple):
    """A Rayleigh quotient, its unit vector, ||H v - value v|| / |value|, and products it took."""

    value: float
    vector: Tensor
    residual: float
    iterations: int


def top_eigenvalue(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    iterations: int = 100,
    tolerance: float = 0.01,
) -> Eigenvalue:
    """The eigenvalue of largest magnitude of a symmetric matrix, by power iteration.

    Args:
        product: gives the matrix times a vector.
        start: vector to start from, not zero.
        iterations: most products.
        tolerance: residual to stop at. Some eigenvalue is within residual |value| of the value;
            the error of the value is of the order of its square.

    Returns:
        The last estimate; one that did not converge shows in its residual.

    Raises:
        ValueError: if `iterations` < 1.
    """
    if iterations < 1:
        raise ValueError(f'iterations: expected at least 1, got {iterations}')
    v = start / start.norm()
    for k in range(1, iterations + 1):
        w = product(v)
        value, length = w @ v, w.norm()
        residual = ((w - value * v).norm() / value.abs()).item() if length else 0.0
        found = Eigenvalue(value.item(), v, residual, k)
        if residual <= tolerance:
            break
        v = w / length
    return found


def directional_sharpness(product: Callable[[Tensor], Tensor], direction: Tensor) -> float:
    """Second derivative along a direction of unit length: d^T H d / d^T d."""
    return ((direction @ product(direction)) / (direction @ direction)).item()


def smoothness_along_gradient(
    loss: Parts,
    params: Sequence[Tensor],
    etas: Sequence[float],
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[float]:
    """Change of the gradient g per length of the step, at steps along it.

    ||g(w) - g(w + eta g(w))|| / ||eta g(w)|| for each eta. The largest is the effective
    beta-smoothness of Santurkar et al., How Does Batch Normalization Help Optimization?, NeurIPS
    2018, section 3.1; the limit for eta to 0 is ||H g|| / ||g||.

    Args:
        loss: parts of the loss.
        params: weights w; restored bit for bit.
        etas: steps, none of them 0. Negative ones descend.
        progress: wraps the iterator over the steps, ``tqdm`` for example.

    Returns:
        A value for each eta.

    Raises:
        ValueError: for a step of 0.
    """
    if 0 in etas:
        raise ValueError(f'etas: a step of 0 has no length, got {etas}')
    g = gradient(loss, params)
    ratios = []
    for eta in progress(etas):
        with moved(params, eta * g):
            ratios.append(((g - gradient(loss, params)).norm() / (abs(eta) * g.norm())).item())
    return ratios


@contextmanager
def moved(params: Sequence[Tensor], step: Tensor) -> Iterator[None]:
    """Context with `step`, (P,), added to the weights; they end bit for bit as they were."""
    before = [p.detach().clone() for p in params]
    steps = step.split([p.numel() for p in params])
    try:
        with torch.no_grad():
            for p, s in zip(params, steps, strict=True):
                p.add_(s.view_as(p))
        yield
    finally:
        with torch.no_grad():
            for p, b in zip(params, before, strict=True):
                p.copy_(b)


def _gradients(scalar, params, create_graph=False):
    grads = torch.autograd.grad(scalar, params, create_graph=create_graph, materialize_grads=True)
    return [grad.contiguous() for grad in grads]
