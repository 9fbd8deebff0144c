"""Table 1 of the paper, measured: gradients of GCP, of GAP, and of GAP with K-FAC.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.3. X is the output of the last convolution,
after its BN and activation, which the pooling layer reads; W is that convolution's weight. The
measurements are in :mod:`.gradients`. Rows of tables are dicts, the keys their column headings.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import isfinite, nan
from statistics import fmean, median

import torch
from mmpretrain.models.necks import GlobalAveragePooling
from torch import Tensor, nn
from tqdm import tqdm

from ..models import GlobalCovariancePooling
from ..ops import global_covariance_pooling
from .gradients import (
    Gradients,
    cosine,
    fit_head,
    last_conv,
    measure_formulas,
    measure_gradients,
    spectrum,
)
from .kfac import inverse_factors


def compare_gradients(
    gcp_model: nn.Module,
    gap_model: nn.Module,
    data: Iterable[dict],
    images: int,
    head_images: int,
    dampings: Sequence[float],
    weight_decay: float = 0.0,
) -> dict:
    """Compare the gradients of GCP, GAP and GAP with K-FAC on the same images.

    GAP is measured with the backbone of the GCP network, where gradients at the same W have a
    cosine, and with its own backbone. On the former it gets a classifier fitted to the mean of X.

    Args:
        gcp_model: classifier of MMPretrain with GCP; is put in evaluation mode.
        gap_model: classifier of MMPretrain with GAP; likewise.
        data: batches of a dataloader.
        images: to measure on; rounded up to whole batches.
        head_images: to fit the classifier to, at most.
        dampings: K-FAC's lambda, positive.
        weight_decay: of the fitted classifier.

    Returns:
        'images', 'positions' and 'channels' (of the GCP network's X) and 'head_images', integers;
        'layers', the names of W; and tables: 'networks', 'formulas' (dL/dX against eq. (6)),
        'features' (dL/dX of single images), 'weight' (dL/dW), 'classifier' (gradient at the fitted
        classifier) and 'gap_weight' (dL/dW of the GAP network). Norms, condition numbers and ranks
        of images are medians. An image whose gradient is zero has no cosine and is left out.

    Raises:
        ValueError: if a model has another neck, or K-FAC does not cover its last convolution.
    """
    for model, kind in ((gcp_model, GlobalCovariancePooling), (gap_model, GlobalAveragePooling)):
        neck = getattr(model, 'neck', None)
        if not isinstance(neck, kind):
            raise ValueError(
                f'model: expected the neck {kind.__name__}, got {type(neck).__name__}; '
                'name the classifier with GCP first, and the one with GAP after --gap'
            )
        model.eval()
    data, vectors, targets = _read(gcp_model, data, images, head_images)
    loss = gcp_model.head.loss_module
    fitted = fit_head(vectors, targets, loss, gcp_model.head.num_classes, weight_decay)

    batches = [_batch(gcp_model, one) for one in data]
    features = partial(_features, gcp_model)
    name, conv = last_conv(gcp_model, lambda: features(batches[0][0]))
    gcp = measure_gradients(features, partial(_classify, gcp_model), loss, {name: conv}, batches)
    gap_on_gcp = measure_gradients(
        *(features, lambda x: fitted(x.mean((2, 3))), loss, {name: conv, 'classifier': fitted}),
        batches,
    )
    formulas = formula_rows(gcp_model, batches)

    batches = [_batch(gap_model, one) for one in data]
    features = partial(_features, gap_model)
    gap_name, conv = last_conv(gap_model, lambda: features(batches[0][0]))
    gap = measure_gradients(
        *(features, partial(_classify, gap_model), gap_model.head.loss_module, {gap_name: conv}),
        batches,
    )
    networks = {'GCP': gcp, 'GAP on the backbone of GCP': gap_on_gcp, 'GAP': gap}
    references = dict(GCP=gcp.layers[name], GAP=gap_on_gcp.layers[name])
    return dict(
        images=len(gcp.features),
        positions=gcp.features.shape[1],
        channels=gcp.features.shape[2],
        head_images=len(vectors),
        layers=dict(GCP=name, GAP=gap_name),
        networks=[
            {'network': key, 'loss': found.loss, 'accuracy (%)': f'{100 * found.accuracy:.2f}'}
            for key, found in networks.items()
        ],
        formulas=formulas,
        features=[
            feature_row(key, found, gcp if found is not gap else None)
            for key, found in networks.items()
        ],
        weight=[
            weight_row('GCP', gcp.layers[name], references),
            *weight_rows(gap_on_gcp, name, dampings, references),
        ],
        classifier=list(weight_rows(gap_on_gcp, 'classifier', dampings)),
        gap_weight=list(weight_rows(gap, gap_name, dampings)),
    )


def _batch(model, data):
    """Images and targets, (B,), of a batch of the dataloader."""
    data = model.data_preprocessor(data, training=False)
    return data['inputs'], torch.cat([sample.gt_label for sample in data['data_samples']])


def _features(model, images):
    """X, (B, D, H, W)."""
    x = model.extract_feat(images, stage='backbone')[-1]
    return getattr(model.neck, 'reduction', nn.Identity())(x)


def _classify(model, x):
    """Scores, (B, classes), for X."""
    neck = model.neck
    if isinstance(neck, GlobalCovariancePooling):
        return model.head((global_covariance_pooling(x, neck.iterations, neck.norm, neck.method),))
    return model.head(neck((x,)))


@torch.no_grad()
def _read(model, data, images, head_images):
    """Batches to measure on, as they come; mean X and targets for the classifier."""
    chosen, vectors, targets, seen = [], [], [], 0
    for one in tqdm(data, desc='read', unit='batch'):
        if seen < images:
            chosen.append(one)
        inputs, labels = _batch(model, one)
        vectors.append(_features(model, inputs).mean((2, 3)))
        targets.append(labels)
        seen += len(inputs)
        if seen >= max(images, head_images):
            break
    return chosen, torch.cat(vectors)[:head_images], torch.cat(targets)[:head_images]


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


def feature_row(name: str, found: Gradients, reference: Gradients | None) -> dict:
    """Medians over the images of the spectrum of dL/dX; mean cosine with a reference."""
    spectra = list(map(spectrum, found.features))
    row = {key: median(_finite([one[key] for one in spectra])) for key in spectra[0]}
    if reference is not None:
        cosines = list(map(cosine, found.features, reference.features))
        row['cosine with GCP: mean'] = fmean(_finite(cosines))
    return dict(network=name) | row


def weight_row(name: str, gradient: Tensor, references: dict[str, Tensor]) -> dict:
    """Spectrum of a gradient at W, (m, n), and its cosines with others."""
    cosines = {f'cosine with {key}': cosine(gradient, other) for key, other in references.items()}
    return dict(gradient=name) | spectrum(gradient) | cosines


def weight_rows(
    found: Gradients,
    layer: str,
    dampings: Sequence[float],
    references: dict[str, Tensor] | None = None,
) -> Iterator[dict]:
    """The gradient of a layer with GAP, and what K-FAC makes of it for each damping."""
    gradient, factors = found.layers[layer], found.factors[layer]
    references = references or dict(GAP=gradient)
    yield weight_row('GAP', gradient, references)
    for damping in dampings:
        a_inverse, g_inverse = inverse_factors(*factors, damping)
        natural = (g_inverse @ gradient.double() @ a_inverse).to(gradient.dtype)
        condition = torch.linalg.cond(a_inverse) * torch.linalg.cond(g_inverse)
        yield weight_row('GAP + K-FAC', natural, references) | {
            'damping': damping,
            'condition of H^-1': condition.item(),
        }


def _finite(values):
    return [value for value in values if isfinite(value)] or [nan]
