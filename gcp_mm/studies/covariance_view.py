"""What a classifier with global covariance pooling saw in a picture, and what decided its class.

The classifier behind the pooling layer is linear, so that a logit is a sum over pairs of channels,

    logit_c = b_c + sum over i <= j of w_c[k(i, j)] Z_ij,

with Z the square root of the covariance and k the place of (i, j) in the vector of its upper
triangle (row-major). Nothing is approximated: the layer of Wang et al., What Deep CNNs Benefit from
Global Covariance Pooling: An Optimization Perspective, CVPR 2020, https://arxiv.org/abs/2003.11241,
is read as it is.
"""

import textwrap
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn.functional import linear

from ..ops.triangle import triu_vector_inverse

PANELS = 9  # activations in a picture


@dataclass
class Pair:
    """Two channels and what they do to the logit of a class.

    Attributes:
        i, j: the channels, i <= j, counted from 0.
        value: Z_ij.
        weight: w_c[k(i, j)], the classifier's for the class.
        contribution: weight * value, what the pair adds to the logit.
        lead: what it adds to the logit's lead over that of the runner-up. All logits may share an
            amount, which decides nothing.
    """

    i: int
    j: int
    value: float
    weight: float
    contribution: float
    lead: float


@dataclass
class CovarianceView:
    """A prediction taken apart into pairs of channels.

    Attributes:
        root: Z, (D, D) float64, symmetric.
        order: (D,) int64, the channels in an order in which alike ones are neighbours.
        label: the class with the largest logit.
        runner_up: that with the second.
        logit: of `label`.
        bias: b of `label`: the logit less all contributions.
        positive, negative: sums of the contributions above and below zero.
        pairs: those that add most to the logit, in descending order.
    """

    root: Tensor
    order: np.ndarray
    label: int
    runner_up: int
    logit: float
    bias: float
    positive: float
    negative: float
    pairs: list[Pair]


def pair_contributions(vector: Tensor, weight: Tensor) -> Tensor:
    """What each pair of channels adds to logits, w_c[k] z[k].

    Args:
        vector: z, (D(D+1)/2,), the upper triangle of Z.
        weight: w, (C, D(D+1)/2), of the linear classifier, or some rows of it.

    Returns:
        (C, D(D+1)/2) float64. A row's sum and the class's bias are its logit.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    _check_shapes(vector, weight)
    return weight.double() * vector.double()


def channel_order(root: Tensor) -> np.ndarray:
    """The channels in an order that shows groups of them: leaves of a hierarchical clustering.

    Channels are near each other where their cosine Z_ij / sqrt(Z_ii Z_jj) is large; distances of
    groups are averages, and of the orders a tree allows the one with the nearest neighbours is
    taken.

    Args:
        root: (D, D), symmetric and positive semidefinite. Channels that are zero are far from all.

    Returns:
        (D,) int64, a permutation.
    """
    root = root.double().cpu().numpy()
    if len(root) < 3:
        return np.arange(len(root))
    scale = np.sqrt(root.diagonal().clip(min=0))
    cosine = root / np.maximum(np.outer(scale, scale), np.finfo(np.float64).tiny)
    distance = 1 - cosine.clip(-1, 1)
    tree = linkage(squareform(distance, checks=False), 'average', optimal_ordering=True)
    return leaves_list(tree).astype(np.int64)


@torch.no_grad()
def view_covariance(
    vector: Tensor, weight: Tensor, bias: Tensor | None = None, count: int = 10
) -> CovarianceView:
    """Take a prediction apart into the pairs of channels that make it.

    Args:
        vector: (D(D+1)/2,), what the neck gives for one picture.
        weight: (C, D(D+1)/2), of the linear classifier, at least two classes.
        bias: (C,), of the classifier; None: zero.
        count: number of pairs to name.

    Returns:
        The view.

    Raises:
        ValueError: if the shapes do not fit each other, or there is one class only.
    """
    _check_shapes(vector, weight)
    if len(weight) < 2:
        raise ValueError('weight: expected at least two classes, got one')
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    label, runner_up = linear(vector, weight, bias).topk(2).indices.tolist()
    adds, of_runner_up = pair_contributions(vector, weight[[label, runner_up]])
    lead = adds - of_runner_up
    root = triu_vector_inverse(vector.double())
    i, j = np.triu_indices(len(root))
    pairs = [
        Pair(
            *(int(i[k]), int(j[k]), vector[k].item(), weight[label, k].item()),
            *(adds[k].item(), lead[k].item()),
        )
        for k in adds.topk(min(count, len(adds))).indices.tolist()
    ]
    return CovarianceView(
        root=root,
        order=channel_order(root),
        label=label,
        runner_up=runner_up,
        logit=adds.sum().item() + bias[label].item(),
        bias=bias[label].item(),
        positive=adds.clamp(min=0).sum().item(),
        negative=adds.clamp(max=0).sum().item(),
        pairs=pairs,
    )


def draw_covariance(
    view: CovarianceView,
    picture: np.ndarray,
    maps: Tensor,
    names: tuple[str, str],
    score: float,
) -> Figure:
    """Draw a view: the matrix, the pairs that add most to the logit, and where those are active.

    Args:
        view: of one picture.
        picture: what the network was given, (H, W, 3) uint8 RGB, resized and cropped.
        maps: (D, h, w), the features that were pooled; they cover the picture.
        names: of the class and of the runner-up.
        score: of the class, its probability.

    Returns:
        The figure, to be saved.
    """
    figure = Figure(figsize=(13, 7.6), layout='constrained')
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.6, 1))
    shown, matrix, table = upper.subplots(1, 3, width_ratios=(1, 1.5, 1.6))
    shown.imshow(picture)
    shown.set_title(_fold(f'{names[0]}: {score:.1%}'), fontsize=13, parse_math=False)
    shown.set_xlabel(
        f'logit {view.logit:.2f}\n= {view.positive:.2f} of pairs above zero\n'
        f'{view.negative:+.2f} of pairs below zero\n{view.bias:+.2f} bias',
        fontsize=11,
    )
    shown.set(xticks=[], yticks=[])
    _draw_root(matrix, view)
    upper.colorbar(matrix.images[0], ax=matrix, shrink=0.7, extend='both')
    _draw_table(table, view, names[1])
    _draw_maps(lower, view.pairs, picture, maps.detach().double().cpu().numpy())
    return figure


def _check_shapes(vector, weight):
    if vector.dim() != 1 or weight.dim() != 2 or len(vector) != weight.shape[1]:
        raise ValueError(
            'vector, weight: expected shapes (D(D+1)/2,) and (C, D(D+1)/2), got '
            f'{tuple(vector.shape)} and {tuple(weight.shape)}'
        )


def _draw_root(axes, view):
    """The matrix with its channels in order, the pairs of the table numbered in it."""
    root = view.root.cpu().numpy()[np.ix_(view.order, view.order)]
    # A few variances are far above the rest, which would be white beside them.
    limit = np.quantile(np.abs(root), 0.99) or 1
    axes.imshow(root, cmap='RdBu_r', vmin=-limit, vmax=limit, interpolation='nearest')
    place = np.argsort(view.order)
    outline = [withStroke(linewidth=2.5, foreground='white')]
    for number, pair in enumerate(view.pairs, 1):
        row, column = sorted((place[pair.i], place[pair.j]))
        axes.plot(column, row, 'ko', ms=6, mfc='none', path_effects=outline)
        axes.annotate(
            *(str(number), (column, row), (5, 3)),
            textcoords='offset points',
            path_effects=outline,
        )
    axes.set_title('normalised covariance $Z$', fontsize=13)
    axes.set_xlabel(f'{len(root)} channels, alike ones together', fontsize=11)
    axes.set(xticks=[], yticks=[])


def _draw_table(axes, view, runner_up):
    rows = [
        (
            *(number, pair.i, pair.j, f'{pair.value:.3g}', f'{pair.weight:.3g}'),
            *(f'{pair.contribution:+.3g}', f'{pair.lead:+.3g}'),
        )
        for number, pair in enumerate(view.pairs, 1)
    ]
    table = axes.table(
        cellText=rows,
        colLabels=('', 'i', 'j', '$Z_{ij}$', 'weight', 'adds', 'to the lead'),
        colWidths=(0.08, 0.1, 0.1, 0.16, 0.18, 0.18, 0.2),
        cellLoc='right',
        edges='B',
        bbox=(0, 0, 1, 1),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    for cell in table.get_celld().values():
        cell.set_linewidth(0.3)
    axes.set_title('pairs of channels that add most to the logit', fontsize=13)
    note = _fold(f'lead: over the runner-up, {runner_up}', 50)
    axes.set_xlabel(note, fontsize=11, parse_math=False)
    axes.set(xticks=[], yticks=[], frame_on=False)


def _draw_maps(figure, pairs, picture, maps):
    """Of as many pairs as there is room for: the channels, and what their covariance is made of."""
    panels = []
    for number, pair in enumerate(pairs, 1):
        i, j = maps[pair.i], maps[pair.j]
        # The mean of this product over the picture is the covariance.
        product = (i - i.mean()) * (j - j.mean())
        of_pair = [(f'{number}: channel {pair.i}', i, 'inferno', 0)]
        if pair.i != pair.j:
            of_pair.append((f'{number}: channel {pair.j}', j, 'inferno', 0))
        of_pair.append((f'{number}: {"co" * (pair.i != pair.j)}variance', product, 'RdBu_r', -1))
        if len(panels) + len(of_pair) > PANELS:
            break
        panels += of_pair
    height, width = picture.shape[:2]
    for axes in figure.subplots(1, PANELS, squeeze=False)[0]:
        axes.axis('off')
        if not panels:
            continue
        title, values, colours, least = panels.pop(0)
        limit = np.abs(values).max() or 1
        axes.imshow(picture.mean(2), cmap='gray', vmin=0, vmax=255)
        axes.imshow(
            values,
            cmap=colours,
            vmin=least * limit,
            vmax=limit,
            alpha=0.6,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation='bilinear',
        )
        axes.set_title(title, fontsize=10)


def _fold(text, width=30):
    return textwrap.fill(text, width)
