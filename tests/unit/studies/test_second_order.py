"""Measured gradients against closed forms and autograd."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from gcp_mm.ops import matrix_sqrt_eigh, triu_vector
from gcp_mm.ops.covariance import covariance
from gcp_mm.ops.triangle import triu_vector_adjoint
from gcp_mm.studies.gcp_gradient import trimmed_preconditioner
from gcp_mm.studies.second_order import (
    cosine,
    fit_head,
    measure_formulas,
    measure_gradients,
    spectrum,
)
from tests.helpers.features import features


def test_spectrum_of_a_known_matrix():
    u = torch.linalg.qr(torch.randn(6, 4)).Q
    v = torch.linalg.qr(torch.randn(5, 5)).Q[:, :4]
    found = spectrum(u @ torch.diag(torch.tensor([4.0, 2, 1, 0])) @ v.T)
    assert found['norm'] == pytest.approx(21**0.5, rel=1e-5)
    assert found['rank'] == 3
    assert found['condition'] == pytest.approx(4, rel=1e-5)
    assert found['stable rank'] == pytest.approx(21 / 16, rel=1e-5)
    zero = spectrum(torch.zeros(3, 2))
    assert (zero['norm'], zero['rank']) == (0, 0)


def small_network():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 2))
    return backbone.double(), nn.Linear(5, 3).double()


def test_gradients_of_gap_are_those_of_the_whole_set():
    backbone, fc = small_network()
    images = torch.randn(5, 3, 7, 7, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 1, 0])

    def classify(x):
        return fc(x.mean((2, 3)))

    batches = [(images[:3], targets[:3]), (images[3:], targets[3:])]
    found = measure_gradients(backbone, classify, F.cross_entropy, backbone[2], batches)
    F.cross_entropy(classify(backbone(images)), targets).backward()
    assert found.loss == pytest.approx(F.cross_entropy(classify(backbone(images)), targets).item())
    assert found.accuracy == (classify(backbone(images)).argmax(1) == targets).double().mean()
    conv = backbone[2]
    expected = torch.cat((conv.weight.grad.flatten(1), conv.bias.grad[:, None]), 1)
    torch.testing.assert_close(found.weight, expected)
    # Of the factors too the average over images counts, not over batches
    assert found.factors[0][-1, -1].item() == pytest.approx(16)


def test_formulas_on_features():
    x = features((3, 6, 5, 8))
    head = nn.Linear(21, 4).double()
    targets = torch.tensor([0, 1, 3])
    found = measure_formulas(x, lambda v: F.cross_entropy(head(v), targets), iterations=12)
    exact = found.pop('autograd, exact square root')
    assert exact['cosine'] == pytest.approx([1] * 3)
    assert exact['norm'] == pytest.approx([1] * 3)
    # So many iterations have nearly converged.
    iterated = found.pop('autograd, 12 Newton-Schulz iterations')
    assert iterated['norm'] == pytest.approx([1] * 3, rel=1e-4)
    assert len(found) == 2
    # eq. (7) from its parts, against the gradient of the whole
    leaf = x.clone().requires_grad_()
    vector = triu_vector(matrix_sqrt_eigh(covariance(leaf)))
    (expected,) = torch.autograd.grad(F.cross_entropy(head(vector), targets), leaf)
    vector = vector.detach().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(head(vector), targets), vector)
    trimmed = trimmed_preconditioner(x, 'printed') @ triu_vector_adjoint(grad) / 2
    assert found['eq. (7), printed']['cosine'] == pytest.approx(
        [cosine(a, b) for a, b in zip(trimmed, expected.flatten(2).mT, strict=True)]
    )


def test_fitted_head_is_the_minimum():
    torch.manual_seed(0)
    vectors = 3 + 0.1 * torch.randn(40, 5, dtype=torch.float64)
    targets = torch.arange(40) % 3
    head = fit_head(vectors, targets, F.cross_entropy, 3, weight_decay=1e-3)
    loss = F.cross_entropy(head(vectors), targets) + 1e-3 / 2 * head.weight.square().sum()
    for grad in torch.autograd.grad(loss, tuple(head.parameters())):
        assert grad.abs().max() < 1e-5
    assert loss < torch.log(torch.tensor(3.0))
