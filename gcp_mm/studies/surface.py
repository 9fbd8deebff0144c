"""The loss on a plane through the weights, in directions that all networks share a scale in.

Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018, section 4.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .hessian import Parts, moved


def filter_normalised_direction(
    params: Sequence[Tensor], generator: torch.Generator | None = None
) -> Tensor:
    """A random direction, each filter of which has the norm of the filter it is added to.

    A filter is the weights of one output: w[i] of a convolution's or a linear layer's w. Biases and
    the weights of batch normalisation, which have one dimension, stay where they are, as in the
    authors' code.

    Args:
        params: weights, P numbers in all.
        generator: of random numbers, on the CPU.

    Returns:
        (P,), Gaussian but for its scale.
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
    progress: Callable[[Iterable], Iterable] = iter,
) -> Tensor:
    """Loss at w + a d_1 + b d_2 for all a and b in `steps`.

    Args:
        loss: parts of the loss, see :mod:`.hessian`.
        params: weights w; restored bit for bit.
        directions: d_1 and d_2, each (P,).
        steps: a, and b.
        progress: wraps the iterator over the rows, ``tqdm`` for example.

    Returns:
        (len(steps), len(steps)): row by a, column by b.
    """
    rows = []
    for a in progress(steps):
        row = []
        for b in steps:
            with moved(params, a * directions[0] + b * directions[1]):
                row.append(sum(part() for part in loss))
        rows.append(torch.stack(row))
    return torch.stack(rows)
