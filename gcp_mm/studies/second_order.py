"""Table 1 of the paper, measured: gradients of GCP, of GAP, and of GAP with K-FAC.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.3. X is the output of the last convolution,
after its BN and activation, which the pooling layer reads; W is that convolution's weight. The
measurements are in :mod:`.gradients`. Rows of tables are dicts, the keys their column headings.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite, nan
from statistics import fmean, median

import torch
from mmpretrain.models.necks import GlobalAveragePooling
from torch import Tensor, nn
from tqdm import tqdm

from ..models import GlobalCovariancePooling
from ..ops import global_covariance_pooling
from ..ops.psd_eigh import psd_eigh
from .gradients import (
    Gradients,
    cosine,
    fit_head,
    last_conv,
    measure_formulas,
    measure_gradients,
    spectrum,
)
from .kfac import damping_shares

Batches = Sequence[tuple[Tensor, Tensor]]


class PooledClassifier:
    """A classifier of MMPretrain in evaluation mode, split at X, the input of its pooling layer.

    Args:
        model: the classifier.
        neck_type: class that its neck must have.

    Raises:
        ValueError: if the neck is of another class.
    """

    def __init__(self, model: nn.Module, neck_type: type[nn.Module]):
        neck = getattr(model, 'neck', None)
        if not isinstance(neck, neck_type):
            raise ValueError(
                f'model: expected the neck {neck_type.__name__}, got {type(neck).__name__}; '
                'name the classifier with GCP first, and the one with GAP after --gap'
            )
        self.model = model.eval()

    def batch(self, data: dict) -> tuple[Tensor, Tensor]:
        """Images, (B, 3, H, W), and targets, (B,), of a batch of the dataloader."""
        data = self.model.data_preprocessor(data, training=False)
        return data['inputs'], torch.cat([sample.gt_label for sample in data['data_samples']])

    def features(self, images: Tensor) -> Tensor:
        """X, (B, D, H, W)."""
        x = self.model.extract_feat(images, stage='backbone')[-1]
        return getattr(self.model.neck, 'reduction', nn.Identity())(x)

    def classify(self, x: Tensor) -> Tensor:
        """Scores, (B, classes)."""
        neck = self.model.neck
        if isinstance(neck, GlobalCovariancePooling):
            vector = global_covariance_pooling(x, neck.iterations, neck.norm, neck.method)
            return self.model.head((vector,))
        return self.model.head(neck((x,)))

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Mean loss, a scalar."""
        return self.model.head.loss_module(scores, targets)

    def last_conv(self, images: Tensor) -> tuple[str, nn.Module]:
        """Name and module of the convolution with the weight W."""
        return last_conv(self.model, lambda: self.features(images))


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
        gcp_model: classifier of MMPretrain with GCP.
        gap_model: classifier of MMPretrain with GAP.
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
        ValueError: if a model has another neck, or its last convolution is none for K-FAC.
    """
    gcp_network = PooledClassifier(gcp_model, GlobalCovariancePooling)
    gap_network = PooledClassifier(gap_model, GlobalAveragePooling)
    data, vectors, targets = _read(gcp_network, data, images, head_images)
    fitted = fit_head(vectors, targets, gcp_network.loss, gcp_model.head.num_classes, weight_decay)
    batches = [gcp_network.batch(one) for one in data]
    name, conv = gcp_network.last_conv(batches[0][0])
    gcp = measure_gradients(
        *(gcp_network.features, gcp_network.classify, gcp_network.loss, {name: conv}),
        tqdm(batches, desc='GCP', unit='batch'),
    )
    fitted_gap = measure_gradients(
        *(gcp_network.features, lambda x: fitted(x.mean((2, 3))), gcp_network.loss),
        {name: conv, 'classifier': fitted},
        tqdm(batches, desc='GAP on the backbone of GCP', unit='batch'),
    )
    formulas = formula_rows(gcp_network, batches)
    batches = [gap_network.batch(one) for one in data]
    gap_name, gap_conv = gap_network.last_conv(batches[0][0])
    gap = measure_gradients(
        *(gap_network.features, gap_network.classify, gap_network.loss, {gap_name: gap_conv}),
        tqdm(batches, desc='GAP', unit='batch'),
    )
    networks = {'GCP': gcp, 'GAP on the backbone of GCP': fitted_gap, 'GAP': gap}
    references = dict(GCP=gcp.layers[name], GAP=fitted_gap.layers[name])
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
            *weight_rows(fitted_gap, name, dampings, references),
        ],
        classifier=list(weight_rows(fitted_gap, 'classifier', dampings)),
        gap_weight=list(weight_rows(gap, gap_name, dampings)),
    )


@torch.no_grad()
def _read(network, data, images, head_images):
    """Batches to measure on, as they come; mean X and targets for the classifier."""
    chosen, vectors, targets, seen = [], [], [], 0
    with tqdm(total=max(images, head_images), desc='read', unit='image') as bar:
        for one in data:
            if seen < images:
                chosen.append(one)
            inputs, labels = network.batch(one)
            vectors.append(network.features(inputs).mean((2, 3)))
            targets.append(labels)
            seen += len(inputs)
            bar.update(len(inputs))
            if seen >= max(images, head_images):
                break
    return chosen, torch.cat(vectors)[:head_images], torch.cat(targets)[:head_images]


def formula_rows(network: PooledClassifier, batches: Batches) -> list[dict]:
    """Eq. (7), and the layer's own gradient, against eq. (6), over all images."""
    head = copy.deepcopy(network.model.head).double()
    columns = defaultdict(lambda: defaultdict(list))
    for images, targets in tqdm(batches, desc='eq. (6) and (7)', unit='batch'):
        with torch.no_grad():
            x = network.features(images)
        part = measure_formulas(
            x,
            lambda v, targets=targets: head.loss_module(head((v,)), targets),
            network.model.neck.iterations,
        )
        for key, found in part.items():
            for column, values in found.items():
                columns[key][column] += values
    rows = []
    for key, found in columns.items():
        cosines = _finite(found['cosine'])
        rows.append(
            {
                'dL/dX by': key,
                'images': sum(map(isfinite, cosines)),
                'cosine: mean': fmean(cosines),
                'min': min(cosines),
                'max': max(cosines),
                'norm: median': median(_finite(found['norm'])),
            }
        )
        if found['condition']:
            rows[-1]['condition of F^-1: median'] = median(_finite(found['condition']))
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
    # One eigendecomposition serves every damping, and gives the condition numbers.
    (lam_a, u_a), (lam_g, u_g) = map(psd_eigh, factors)
    rotated = u_g.mT @ gradient.double() @ u_a
    for damping in dampings:
        share_a, share_g = damping_shares(*factors, damping)
        of_a, of_g = lam_a.clamp(min=0) + share_a, lam_g.clamp(min=0) + share_g
        natural = (u_g @ (rotated / of_g[:, None] / of_a) @ u_a.mT).to(gradient.dtype)
        yield weight_row('GAP + K-FAC', natural, references) | {
            'damping': damping,
            'condition of H^-1': (of_a.max() / of_a.min() * of_g.max() / of_g.min()).item(),
        }


def _finite(values):
    return [value for value in values if isfinite(value)] or [nan]
