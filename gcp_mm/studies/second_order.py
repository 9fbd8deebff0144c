"""Table 1 of the paper, measured: gradients of GCP, of GAP, and of GAP with K-FAC.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.3. X is the output of the last convolution,
after its BN and activation, which the pooling layer reads; W is that convolution's weight. Rows of
tables are dicts, the keys their column headings.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import isfinite, nan, prod
from statistics import fmean, median
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..models import GlobalCovariancePooling
from ..ops import global_covariance_pooling
from ..ops.triangle import triu_vector_adjoint
from .gcp_gradient import FORMS, gcp_gradient, trimmed_preconditioner
from .kfac import capture_factors, inverse_factors, kfac_layers, weight_matrix

Loss = Callable[[Tensor, Tensor], Tensor]


class Gradients(NamedTuple):
    """Gradients of the mean loss of some images.

    Attributes:
        loss: the mean loss.
        accuracy: share of the images that are classified right.
        weight: dL/dW in its dtype, (m, n), or (m, n + 1) with the bias's at the end.
        factors: K-FAC's A and G of the layer, float64.
    """

    loss: float
    accuracy: float
    weight: Tensor
    factors: tuple[Tensor, Tensor]


def compare_gradients(
    model: nn.Module,
    data: Iterable[dict],
    images: int,
    head_images: int,
    dampings: Sequence[float],
    weight_decay: float = 0.0,
) -> dict:
    """Compare the gradients of GCP, GAP and GAP with K-FAC on the same images, at the same W.

    GAP gets the backbone of the GCP network, and a classifier fitted to the mean of X.

    Args:
        model: classifier of MMPretrain with GCP; is put in evaluation mode.
        data: batches of a dataloader.
        images: to measure on; rounded up to whole batches.
        head_images: to fit the classifier to, at most.
        dampings: K-FAC's lambda, positive.
        weight_decay: of the fitted classifier.

    Returns:
        'images', 'positions' and 'channels' (of X) and 'head_images', integers; 'layer', the name
        of W; and tables: 'networks', 'formulas' (dL/dX against eq. (6), image by image) and
        'weight' (dL/dW). An image whose gradient is zero has no cosine and is left out.

    Raises:
        ValueError: if the model has another neck, one without a reduction that K-FAC covers, or
            one of tokens or without a square root.
    """
    neck = getattr(model, 'neck', None)
    layers = kfac_layers(neck) if isinstance(neck, GlobalCovariancePooling) else {}
    if not layers:
        raise ValueError(
            'model: expected the neck GlobalCovariancePooling with a reduction that is trained, '
            f'got {type(neck).__name__}'
        )
    if neck.norm not in ('newton_schulz', 'eigh') or neck.class_tokens is not None:
        raise ValueError(
            "model.neck: expected norm='newton_schulz' or 'eigh' and no class_tokens, got "
            f'norm={neck.norm!r} and class_tokens={neck.class_tokens}'
        )
    name, conv = list(layers.items())[-1]
    model.eval()
    data, vectors, targets, (channels, *size) = _read(model, data, images, head_images)
    batches = [_batch(model, one) for one in data]
    loss = model.head.loss_module
    fitted = fit_head(vectors, targets, loss, model.head.num_classes, weight_decay)
    features = partial(_features, model)
    gcp = measure_gradients(features, partial(_classify, model), loss, conv, batches)
    gap = measure_gradients(features, lambda x: fitted(x.mean((2, 3))), loss, conv, batches)
    networks = dict(GCP=gcp, GAP=gap)
    references = {key: found.weight for key, found in networks.items()}
    return dict(
        images=sum(len(targets) for _, targets in batches),
        positions=prod(size),
        channels=channels,
        head_images=len(vectors),
        layer=f'neck.{name}',
        networks=[
            {'network': key, 'loss': found.loss, 'accuracy (%)': f'{100 * found.accuracy:.2f}'}
            for key, found in networks.items()
        ],
        formulas=formula_rows(model, batches),
        weight=[
            weight_row('GCP', gcp.weight, references),
            weight_row('GAP', gap.weight, references),
            *kfac_rows(gap, dampings, references),
        ],
    )


def measure_gradients(
    features: Callable[[Tensor], Tensor],
    classify: Callable[[Tensor], Tensor],
    loss: Loss,
    layer: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
) -> Gradients:
    """Gradient at the weight of a layer, and K-FAC's factors of it.

    The network should be in evaluation mode: where BN normalizes by the statistics of the batch,
    the gradient of one image depends on the others.

    Args:
        features: gives X, (B, D, H, W), for images.
        classify: gives the scores, (B, classes), for X.
        loss: the mean loss for scores and targets.
        layer: of those that `features` and `classify` run, see
            :func:`gcp_mm.studies.kfac.kfac_layers`.
        batches: images, and targets, (B,), class indices.

    Returns:
        Averages over all images. Nothing is left in any `.grad`.
    """
    count, right, total_loss, sums = 0, 0, 0.0, (0, 0, 0)
    parameters = list(layer.parameters())
    for images, targets in tqdm(batches, desc='gradients', unit='batch'):
        with capture_factors(dict(layer=layer)) as factors:
            scores = classify(features(images))
            value = loss(scores, targets)
        grads = dict(zip(parameters, torch.autograd.grad(value, parameters), strict=True))
        size = len(images)
        count += size
        right += int((scores.argmax(1) == targets).sum())
        total_loss += size * value.item()
        new = weight_matrix(grads[layer.weight], grads.get(layer.bias)), *factors['layer']
        sums = [a + size * b.double() for a, b in zip(sums, new, strict=True)]
    weight, *factors = (total / count for total in sums)
    return Gradients(
        loss=total_loss / count,
        accuracy=right / count,
        weight=weight.to(layer.weight.dtype),
        factors=tuple(factors),
    )


def spectrum(matrix: Tensor) -> dict[str, float]:
    """Size and shape of a matrix by its singular values.

    Args:
        matrix: (m, n).

    Returns:
        'norm', the Frobenius norm; 'rank', the number of singular values above the rounding error
        of the matrix's dtype; 'condition', the largest over the smallest of those; 'stable rank',
        the sum of the squares over the square of the largest: from 1, a single direction, to the
        rank, all alike. Of a zero matrix 'condition' and 'stable rank' are NaN.
    """
    s = torch.linalg.svdvals(matrix.double())
    s = s[s > torch.finfo(matrix.dtype).eps * max(matrix.shape) * s[0]]
    condition, stable_rank = float('nan'), float('nan')
    if len(s):
        condition, stable_rank = float(s[0] / s[-1]), float(s.square().sum() / s[0] ** 2)
    return {
        'norm': float(s.norm()),
        'rank': len(s),
        'condition': condition,
        'stable rank': stable_rank,
    }


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two tensors of the same shape, NaN if one is zero."""
    a, b = a.double().flatten(), b.double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def fit_head(
    vectors: Tensor, targets: Tensor, loss: Loss, num_classes: int, weight_decay: float
) -> nn.Linear:
    """The linear classifier of least loss on fixed vectors, by L-BFGS.

    Args:
        vectors: (B, D).
        targets: (B,), class indices.
        loss: the mean loss for scores, (B, num_classes), and targets.
        num_classes: number of classes.
        weight_decay: times half the weights' squared norm, added to the loss.

    Returns:
        The classifier, in the vectors' dtype and on their device.
    """
    # In units of the vectors' own spread the problem is conditioned as well as a scale can make it.
    mean, scale = vectors.double().mean(0), vectors.double().std()
    inputs = (vectors.double() - mean) / scale
    head = nn.Linear(vectors.shape[1], num_classes).to(inputs)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=1000, tolerance_grad=1e-8, line_search_fn='strong_wolfe'
    )

    def closure():
        optimizer.zero_grad()
        penalty = weight_decay / 2 * (head.weight / scale).square().sum()
        value = loss(head(inputs), targets) + penalty
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        head.weight.div_(scale)
        head.bias.sub_(head.weight @ mean)
    return head.to(vectors.dtype)


def measure_formulas(
    x: Tensor, loss: Callable[[Tensor], Tensor], iterations: int = 5
) -> dict[str, dict[str, list[float]]]:
    """Hold eq. (7), and the layer's own gradient, against eq. (6), image by image.

    Each gets the same dL/dZ, which is that of the loss at the exact square root.

    Args:
        x: X, (B, D, H, W).
        loss: the mean loss for float64 vectors (B, D(D+1)/2) of the pooling layer.
        iterations: of the layer's Newton-Schulz square root.

    Returns:
        For each way to compute dL/dX a dict of lists, a number for each image: 'cosine' with eq.
        (6), 'norm' in units of eq. (6)'s and, for eq. (7), 'condition' of its F^-1.
    """
    x = x.detach().double()
    vector = global_covariance_pooling(x, norm='eigh').requires_grad_()
    (grad,) = torch.autograd.grad(loss(vector), vector)
    matrix = triu_vector_adjoint(grad) / 2
    exact = gcp_gradient(x, matrix)

    def compare(gradient):
        pairs = list(zip(gradient, exact, strict=True))
        return dict(
            cosine=[cosine(a, b) for a, b in pairs],
            norm=[float(a.norm() / b.norm()) for a, b in pairs],
        )

    result = {}
    for name, options in {
        'autograd, exact square root': dict(norm='eigh'),
        f'autograd, {iterations} Newton-Schulz iterations': dict(iterations=iterations),
    }.items():
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(global_covariance_pooling(leaf, **options), leaf, grad)
        result[name] = compare(gradient)
    for form in FORMS:
        preconditioner = trimmed_preconditioner(x, form)
        result[f'eq. (7), {form}'] = dict(
            **compare((preconditioner @ matrix).mT.reshape(x.shape)),
            condition=[spectrum(f)['condition'] for f in preconditioner],
        )
    return result


def formula_rows(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> list[dict]:
    """Eq. (7), and the layer's own gradient, against eq. (6), over all images."""
    head = copy.deepcopy(model.head).double()
    columns = defaultdict(lambda: defaultdict(list))
    for images, targets in tqdm(batches, desc='eq. (6) and (7)', unit='batch'):
        with torch.no_grad():
            x = _features(model, images)
        found = measure_formulas(
            x,
            lambda v, targets=targets: head.loss_module(head((v,)), targets),
            model.neck.iterations,
        )
        for key, lists in found.items():
            for column, values in lists.items():
                columns[key][column] += [value for value in values if isfinite(value)]
    rows = []
    for key, found in columns.items():
        cosines = found['cosine'] or [nan]
        rows.append(
            {
                'dL/dX by': key,
                'images': len(found['cosine']),
                'cosine: mean': fmean(cosines),
                'min': min(cosines),
                'max': max(cosines),
                'norm: median': median(found['norm'] or [nan]),
            }
        )
        if found['condition']:
            rows[-1]['condition of F^-1: median'] = median(found['condition'])
    return rows


def weight_row(name: str, gradient: Tensor, references: dict[str, Tensor]) -> dict:
    """Spectrum of a gradient at W, (m, n), and its cosines with others."""
    cosines = {f'cosine with {key}': cosine(gradient, other) for key, other in references.items()}
    return dict(gradient=name) | spectrum(gradient) | cosines


def kfac_rows(
    found: Gradients, dampings: Sequence[float], references: dict[str, Tensor]
) -> Iterator[dict]:
    """What K-FAC makes of a gradient at W, for each damping."""
    for damping in dampings:
        a_inverse, g_inverse = inverse_factors(*found.factors, damping)
        natural = (g_inverse @ found.weight.double() @ a_inverse).to(found.weight.dtype)
        condition = torch.linalg.cond(a_inverse) * torch.linalg.cond(g_inverse)
        yield weight_row('GAP + K-FAC', natural, references) | {
            'damping': damping,
            'condition of H^-1': condition.item(),
        }


def _batch(model, data):
    """Images and targets, (B,), of a batch of the dataloader."""
    data = model.data_preprocessor(data, training=False)
    return data['inputs'], torch.cat([sample.gt_label for sample in data['data_samples']])


def _features(model, images):
    """X, (B, D, H, W)."""
    x = model.extract_feat(images, stage='backbone')[-1]
    return model.neck.reduction(x)


def _classify(model, x):
    """Scores, (B, classes), for X."""
    neck = model.neck
    return model.head((global_covariance_pooling(x, neck.iterations, neck.norm, neck.method),))


@torch.no_grad()
def _read(model, data, images, head_images):
    """Batches to measure on, as they come; mean X and targets for the classifier; X's (D, H, W)."""
    chosen, vectors, targets, seen = [], [], [], 0
    for one in tqdm(data, desc='read', unit='batch'):
        if seen < images:
            chosen.append(one)
        inputs, labels = _batch(model, one)
        x = _features(model, inputs)
        vectors.append(x.mean((2, 3)))
        targets.append(labels)
        seen += len(inputs)
        if seen >= max(images, head_images):
            break
    fit = torch.cat(vectors)[:head_images], torch.cat(targets)[:head_images]
    return chosen, *fit, x.shape[1:]
