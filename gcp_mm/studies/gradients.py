"""Gradients of a classifier at the features X and at weights: measurement and comparison.

X is the input of the pooling layer. :mod:`.second_order` makes the comparison of the paper's
section 3.3 (https://arxiv.org/abs/2003.11241) of these.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from tqdm import tqdm

from ..ops import global_covariance_pooling
from ..ops.triangle import triu_vector_adjoint
from .gcp_gradient import FORMS, gcp_gradient, trimmed_preconditioner
from .kfac import Factors, capture_factors, kfac_layers, weight_matrix

Loss = Callable[[Tensor, Tensor], Tensor]


class Gradients(NamedTuple):
    """Gradients of the mean loss of some images.

    Attributes:
        loss: the mean loss.
        accuracy: share of the images that are classified right.
        features: dL/dX of each image's own loss, (B, N, D).
        layers: for each layer dL/dW in its dtype, (m, n), or (m, n + 1) with the bias's at the end.
        factors: K-FAC's factors of the layers, float64.
    """

    loss: float
    accuracy: float
    features: Tensor
    layers: dict[str, Tensor]
    factors: Factors


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


def last_conv(model: nn.Module, run: Callable[[], object]) -> tuple[str, nn.Module]:
    """Name and module of the convolution that runs last.

    Args:
        model: holds the convolutions.
        run: runs a part of the model.

    Raises:
        ValueError: if none runs, or K-FAC does not cover it.
    """
    ran = []
    with torch.no_grad(), register_module_forward_hook(lambda layer, *_: ran.append(layer)):
        run()
    convs = [layer for layer in ran if isinstance(layer, nn.Conv2d)]
    for name, layer in kfac_layers(model).items():
        if layer in convs[-1:]:
            return name, layer
    raise ValueError(f'model: expected a last nn.Conv2d that K-FAC covers, got {convs[-1:]}')


def measure_gradients(
    features: Callable[[Tensor], Tensor],
    classify: Callable[[Tensor], Tensor],
    loss: Loss,
    layers: dict[str, nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
) -> Gradients:
    """Gradients at X and at the weights of some layers, and K-FAC's factors of these.

    The network should be in evaluation mode: where BN normalizes by the statistics of the batch,
    the gradient of one image depends on the others.

    Args:
        features: gives X, (B, D, H, W), for images.
        classify: gives the scores, (B, classes), for X.
        loss: the mean loss for scores and targets.
        layers: those that `features` and `classify` run, by name; see
            :func:`gcp_mm.studies.kfac.kfac_layers`.
        batches: images, and targets, (B,), class indices.

    Returns:
        Averages over all images. Nothing is left in any `.grad`.
    """
    count, right, total_loss, at_features = 0, 0, 0.0, []
    sums = {}
    parameters = [p for layer in layers.values() for p in layer.parameters()]
    for images, targets in tqdm(batches, desc='gradients', unit='batch'):
        with capture_factors(layers) as factors:
            x = features(images)
            scores = classify(x)
            value = loss(scores, targets)
        at_x, *grads = torch.autograd.grad(value, (x, *parameters))
        grads = dict(zip(parameters, grads, strict=True))
        size = len(images)
        count += size
        right += int((scores.argmax(1) == targets).sum())
        total_loss += size * value.item()
        at_features.append(size * at_x.flatten(2).mT)
        for name, layer in layers.items():
            new = weight_matrix(grads[layer.weight], grads.get(layer.bias)), *factors[name]
            old = sums.get(name, (0, 0, 0))
            sums[name] = [a + size * b.double() for a, b in zip(old, new, strict=True)]
    means = {name: [total / count for total in triple] for name, triple in sums.items()}
    return Gradients(
        loss=total_loss / count,
        accuracy=right / count,
        features=torch.cat(at_features),
        layers={name: means[name][0].to(layer.weight.dtype) for name, layer in layers.items()},
        factors={name: (a, g) for name, (_, a, g) in means.items()},
    )


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
