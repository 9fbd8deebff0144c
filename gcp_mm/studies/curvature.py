"""Curvature of a loss in the weights, and the loss on a plane through them.

The loss is given in parts, functions without arguments whose sum it is: one for each batch of a
data set, divided by the size of the set. The graph of one part at a time is held. Gradients and
directions are vectors of all weights, (P,), in the order of the parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from tqdm import tqdm

try:
    from curvlinops import lanczos_approximate_spectrum, xtrace
    from curvlinops._torch_base import PyTorchLinearOperator  # it has no other name
except ImportError as error:
    raise ImportError(
        f'the Hessian of a loss needs curvlinops ({error}): pip install "gcp_mm[landscape]"'
    ) from error

Parts = Sequence[Callable[[], Tensor]]


def gradient(loss: Parts, params: Sequence[Tensor]) -> Tensor:
    """Gradient of the loss in the parameters, (P,)."""
    return sum(_gradient(part(), params) for part in loss)


class Hessian(PyTorchLinearOperator):
    """The Hessian H of the loss, (P, P), as an operator that is never formed.

    ``hessian @ v`` takes two backward passes of each part. The estimators of curvlinops and, by
    ``to_scipy()``, of SciPy take it.

    Args:
        loss: parts of the loss; all their operations have second derivatives.
        params: weights, P numbers in all.
        on_product: called before each product with a vector, for a progress bar.
    """

    SELF_ADJOINT = True

    def __init__(
        self,
        loss: Parts,
        params: Sequence[Tensor],
        on_product: Callable[[], object] = lambda: None,
    ) -> None:
        size = [(sum(p.numel() for p in params),)]
        super().__init__(size, size)
        self.loss, self.params, self.on_product = loss, params, on_product

    device = property(lambda self: self.params[0].device)
    dtype = property(lambda self: self.params[0].dtype)

    def _matmat(self, x: list[Tensor]) -> list[Tensor]:
        return [torch.stack([self._product(vector) for vector in x[0].T], dim=1)]

    def _product(self, vector):
        self.on_product()
        product = torch.zeros_like(vector)
        for part in self.loss:
            slope = _gradient(part(), self.params, create_graph=True) @ vector
            product += _gradient(slope, self.params)
        return product


def spectrum_of(
    hessian: PyTorchLinearOperator, products: int, tolerance: float = 0.01
) -> dict[str, object]:
    """Ends, trace and density of the spectrum of a symmetric operator.

    The ends by ARPACK, the trace by XTrace (Epperly et al., 2024), the density by Lanczos
    quadrature (Papyan, JMLR 2020, algorithm 2). They draw vectors from PyTorch's random numbers.

    Args:
        hessian: P rows.
        products: with a vector, for the trace and for the density each; even and less than P.
        tolerance: of the ends, relative; of a smallest one near zero, to the distance of both.

    Returns:
        ``smallest_eigenvalue``, ``largest_eigenvalue`` and ``trace``; ``density``, a dict of
        ``eigenvalues`` and ``values``, lists of 1024 numbers.

    Raises:
        ValueError: if ARPACK does not reach the tolerance.
    """
    low, high = _ends_of(hessian, tolerance)
    grid, density = lanczos_approximate_spectrum(hessian, products, boundaries=(low, high))
    return dict(
        smallest_eigenvalue=low,
        largest_eigenvalue=high,
        trace=xtrace(hessian, products).item(),
        density=dict(eigenvalues=grid.tolist(), values=density.tolist()),
    )


def _ends_of(hessian, tolerance):
    operator = hessian.to_scipy()
    start = torch.randn(hessian.shape[0], dtype=hessian.dtype).numpy()
    find = partial(
        eigsh, tol=tolerance, maxiter=100, v0=start, k=1, which='LA', return_eigenvectors=False
    )
    try:
        return [*map(float, find(operator, k=2, which='BE'))]
    except ArpackNoConvergence:  # as for a smallest one near zero, to which the error is relative
        pass
    try:
        (high,) = find(operator)
        identity = LinearOperator(operator.shape, matvec=lambda v: v, dtype=operator.dtype)
        (distance,) = find(float(high) * identity - operator)
    except ArpackNoConvergence:
        raise ValueError(
            f'tolerance={tolerance}: the eigenvalues of the Hessian are not found to that; give a '
            'larger one'
        ) from None
    return float(high) - float(distance), float(high)


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
