"""The pairs of channels that decide the class of an image, with global covariance pooling.

The classifier behind the pooling layer is linear. A logit is a sum over pairs of channels, without
any approximation:

    logit_c = b_c + sum over i <= j of w_c[k(i, j)] Z_ij,

with Z the square root of the covariance and k the index of (i, j) in the vector of its upper
triangle (row-major). The layer is that of Wang et al., What Deep CNNs Benefit from Global
Covariance Pooling: An Optimization Perspective, CVPR 2020, https://arxiv.org/abs/2003.11241.
"""

from textwrap import fill

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn.functional import linear

from ..ops.triangle import triu_vector_inverse

PANELS = 9  # maps in a picture


def channel_order(root: Tensor) -> np.ndarray:
    """Order the channels by average-linkage clustering of their cosines Z_ij / sqrt(Z_ii Z_jj).

    Args:
        root: (D, D), symmetric and positive semidefinite. A channel of zeros has the cosine 0 with
            all others.

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
) -> dict:
    """Split a prediction into the contributions of pairs of channels.

    Args:
        vector: (D(D+1)/2,), the output of the neck for one image.
        weight: (C, D(D+1)/2), of the linear classifier, C >= 2.
        bias: (C,), of the classifier; None: zero.
        count: number of pairs to list.

    Returns:
        - 'root': Z, (D, D) float64, symmetric.
        - 'order': the D channels ordered so that similar ones are neighbors.
        - 'label', 'runner_up': the classes with the largest and the second largest logit.
        - 'logit', 'bias': of 'label'. The bias is the logit less all contributions.
        - 'positive', 'negative': sums of the contributions above and below zero.
        - 'pairs': those with the largest contributions to the logit, in descending order, each a
          dict: 'i' <= 'j', the channels, counted from 0; 'value', Z_ij; 'weight', w_c[k(i, j)] of
          the class; 'contribution', weight * value; 'lead', the contribution to the difference
          of the logits of the class and the runner-up. What all logits have in common decides
          nothing.

    Raises:
        ValueError: if the vector is not that of one image.
    """
    if vector.dim() != 1:
        raise ValueError(f'vector: expected (D(D+1)/2,), one image, got {tuple(vector.shape)}')
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    label, runner_up = linear(vector, weight, bias).topk(2).indices.tolist()
    adds, of_runner_up = weight[[label, runner_up]].double() * vector.double()
    lead = adds - of_runner_up
    root = triu_vector_inverse(vector.double())
    i, j = np.triu_indices(len(root))
    pairs = [
        dict(
            i=int(i[k]),
            j=int(j[k]),
            value=vector[k].item(),
            weight=weight[label, k].item(),
            contribution=adds[k].item(),
            lead=lead[k].item(),
        )
        for k in adds.topk(min(count, len(adds))).indices.tolist()
    ]
    return dict(
        root=root,
        order=channel_order(root).tolist(),
        label=label,
        runner_up=runner_up,
        logit=adds.sum().item() + bias[label].item(),
        bias=bias[label].item(),
        positive=adds.clamp(min=0).sum().item(),
        negative=adds.clamp(max=0).sum().item(),
        pairs=pairs,
    )


def draw_covariance(
    view: dict,
    picture: np.ndarray,
    maps: Tensor,
    names: tuple[str, str],
    score: float,
) -> Figure:
    """Draw the matrix, the pairs with the largest contributions, and where those are active.

    Args:
        view: of one image, by :func:`view_covariance`.
        picture: the input of the network, (H, W, 3) uint8 RGB, resized and cropped.
        maps: (D, h, w), the features that were pooled; they cover the picture.
        names: of the class and of the runner-up.
        score: of the class, its probability.
    """
    figure = Figure(figsize=(13, 7.6), layout='constrained')
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.6, 1))
    shown, matrix, table = upper.subplots(1, 3, width_ratios=(1, 1.5, 1.6))
    for axes in (shown, matrix, table):
        axes.set(xticks=[], yticks=[])
    shown.imshow(picture)
    shown.set_title(fill(f'{names[0]}: {score:.1%}', 30), fontsize=13, parse_math=False)
    shown.set_xlabel(
        'logit {logit:.2f}\n= {positive:.2f} of pairs above zero\n'
        '{negative:+.2f} of pairs below zero\n{bias:+.2f} bias'.format(**view),
        fontsize=11,
    )
    _draw_root(matrix, view)
    upper.colorbar(matrix.images[0], ax=matrix, shrink=0.7, extend='both')
    _draw_table(table, view, names[1])
    _draw_maps(lower, view['pairs'], picture, maps.detach().double().cpu().numpy())
    return figure


def _draw_root(axes, view):
    """The matrix with its channels in order, the pairs of the table numbered in it."""
    root = view['root'].cpu().numpy()[np.ix_(view['order'], view['order'])]
    # A few variances are far above the rest, which would be white beside them.
    limit = np.quantile(np.abs(root), 0.99) or 1
    axes.imshow(root, cmap='RdBu_r', vmin=-limit, vmax=limit, interpolation='nearest')
    rank = np.argsort(view['order'])
    outline = [withStroke(linewidth=2.5, foreground='white')]
    offset = dict(xytext=(5, 3), textcoords='offset points')
    for number, pair in enumerate(view['pairs'], 1):
        row, column = sorted((rank[pair['i']], rank[pair['j']]))
        axes.plot(column, row, 'ko', ms=6, mfc='none', path_effects=outline)
        axes.annotate(str(number), (column, row), path_effects=outline, **offset)
    axes.set_title('normalized covariance $Z$', fontsize=13)
    axes.set_xlabel(f'{len(root)} channels, similar ones together', fontsize=11)


def _draw_table(axes, view, runner_up):
    formats = dict(i='d', j='d', value='.3g', weight='.3g', contribution='+.3g', lead='+.3g')
    rows = [
        (number, *(format(pair[key], spec) for key, spec in formats.items()))
        for number, pair in enumerate(view['pairs'], 1)
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
    axes.set_title('pairs of channels that add most to the logit', fontsize=13)
    note = fill(f'lead: over the runner-up, {runner_up}', 50)
    axes.set_xlabel(note, fontsize=11, parse_math=False)
    axes.set_frame_on(False)


def _draw_maps(figure, pairs, picture, maps):
    """The channels of the first pairs, and the products whose means are their covariances."""
    row = list(figure.subplots(1, PANELS))
    for axes in row:
        axes.axis('off')
    for number, pair in enumerate(pairs, 1):
        channels = sorted({pair['i'], pair['j']})
        if len(row) <= len(channels):
            break
        for channel in channels:
            title = f'{number}: channel {channel}'
            _draw_map(row.pop(0), title, maps[channel], picture, 'inferno', 0)
        i, j = maps[pair['i']], maps[pair['j']]
        title = f'{number}: {"variance" if len(channels) == 1 else "covariance"}'
        product = (i - i.mean()) * (j - j.mean())
        _draw_map(row.pop(0), title, product, picture, 'RdBu_r', -1)


def _draw_map(axes, title, values, picture, colors, least):
    limit = np.abs(values).max() or 1
    height, width = picture.shape[:2]
    axes.imshow(picture.mean(2), cmap='gray', vmin=0, vmax=255)
    axes.imshow(
        values,
        cmap=colors,
        vmin=least * limit,
        vmax=limit,
        alpha=0.6,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation='bilinear',
    )
    axes.set_title(title, fontsize=10)
