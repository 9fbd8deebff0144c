"""Curvature and the loss surface against closed forms and finite differences."""

import importlib
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gcp_mm.models import GlobalCovariancePooling
from gcp_mm.studies.curvature import (
    Hessian,
    filter_normalized_direction,
    gradient,
    loss_surface,
    moved,
    smoothness_along_gradient,
    spectrum_of,
)

SPECTRUM = (-7.0, 4.0, 1.0, 0.5, 0.0)


@pytest.fixture
def quadratic():
    """w^T A w / 2 in two parts and two parameters, with A's eigenvalues and -vectors."""
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    a = torch.tensor(u * np.array(SPECTRUM) @ u.T)
    params = [nn.Parameter(torch.tensor(rng.normal(size=shape))) for shape in ((2, 1), (3,))]
    half = lambda: (w := torch.cat([p.flatten() for p in params])) @ a @ w / 4  # noqa: E731
    return [half, half], params, a, torch.tensor(u)


@pytest.fixture
def net():
    """A covariance network in float64: its loss in two parts, and its weights."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 2),
        nn.Tanh(),
        GlobalCovariancePooling(3, (2,)),
        nn.Linear(3, 2),
    ).double()
    model.eval()
    images = torch.randn(4, 2, 4, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0])
    parts = [
        lambda rows=rows: cross_entropy(model(images[rows]), labels[rows]) * len(rows) / 4
        for rows in ([0, 1, 2], [3])
    ]
    params = list(model.parameters())
    return parts, params


def numpy_hessian(loss, params, step=1e-5):
    """Central differences of the gradient."""
    rows = []
    for e in torch.eye(sum(p.numel() for p in params), dtype=torch.float64) * step:
        with moved(params, e):
            ahead = gradient(loss, params)
        with moved(params, -e):
            rows.append(((ahead - gradient(loss, params)) / (2 * step)).numpy())
    return np.array(rows)


def test_quadratic_has_its_matrix_for_hessian(quadratic):
    loss, params, a, u = quadratic
    w = torch.cat([p.detach().flatten() for p in params])
    torch.testing.assert_close(gradient(loss, params), a @ w)
    product = Hessian(loss, params) @ u
    torch.testing.assert_close(product, u * torch.tensor(SPECTRUM), rtol=0, atol=1e-12)


def test_spectrum_of_a_quadratic(quadratic):
    loss, params, _, _ = quadratic
    torch.manual_seed(0)
    found = spectrum_of(Hessian(loss, params), 4, 1e-6)
    assert found['smallest_eigenvalue'] == pytest.approx(-7, rel=1e-6)
    assert found['largest_eigenvalue'] == pytest.approx(4, rel=1e-6)


def test_density_and_trace():
    """Of 200 known eigenvalues: half of them about -1, half about 2."""
    torch.manual_seed(0)
    values = torch.cat([-1 + 0.05 * torch.randn(100), 2 + 0.05 * torch.randn(100)]).double()
    params = [nn.Parameter(torch.zeros(200, dtype=torch.float64))]
    found = spectrum_of(Hessian([lambda: (values * params[0] ** 2).sum() / 2], params), 60)
    assert found['trace'] == pytest.approx(values.sum().item(), rel=0.02)
    grid, density = map(np.array, found['density'].values())
    width = grid[1] - grid[0]
    assert density.sum() * width == pytest.approx(1, abs=0.05)
    assert density[grid < 0.5].sum() * width == pytest.approx(0.5, abs=0.1)
    assert (density * grid).sum() * width == pytest.approx(values.mean().item(), abs=0.3)


def test_smallest_eigenvalue_near_zero():
    """To which an error cannot be relative."""
    params = [nn.Parameter(torch.zeros(3000))]
    values = torch.rand(3000, generator=torch.Generator().manual_seed(0)) ** 8
    values[:3] = torch.tensor([26.0, 20, 9])
    values[3:1000] = 0
    torch.manual_seed(0)
    found = spectrum_of(Hessian([lambda: (values * params[0] ** 2).sum() / 2], params), 4)
    assert found['largest_eigenvalue'] == pytest.approx(26, rel=0.01)
    assert found['smallest_eigenvalue'] == pytest.approx(0, abs=0.01 * 26)


def test_eigenvalues_that_are_not_found():
    """Many of them close to both ends."""
    params = [nn.Parameter(torch.zeros(400, dtype=torch.float64))]
    values = torch.linspace(0, np.pi, 400, dtype=torch.float64).cos()
    hessian = Hessian([lambda: (values * params[0] ** 2).sum() / 2], params)
    with pytest.raises(ValueError, match=r'tolerance=1e-15: .* give a larger one'):
        spectrum_of(hessian, 4, 1e-15)


def test_smoothness_of_a_quadratic(quadratic):
    """||A g|| / ||g|| at every step."""
    loss, params, a, _ = quadratic
    before = [p.detach().clone() for p in params]
    g = gradient(loss, params)
    expected = ((a @ g).norm() / g.norm()).item()
    assert smoothness_along_gradient(loss, params, (-0.5, 0.01, 2)) == pytest.approx(
        [expected] * 3, rel=1e-10
    )
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_covariance_network_against_finite_differences(net):
    loss, params = net
    h = numpy_hessian(loss, params)
    v = torch.randn(len(h), dtype=torch.float64)
    hessian = Hessian(loss, params)
    np.testing.assert_allclose(hessian @ v, h @ v.numpy(), rtol=0, atol=1e-8)
    found = spectrum_of(hessian, 4, 1e-6)
    ends = np.linalg.eigvalsh(h)[[0, -1]]
    assert [found['smallest_eigenvalue'], found['largest_eigenvalue']] == pytest.approx(
        ends, rel=1e-4, abs=1e-6
    )


def test_directions_have_the_norms_of_the_filters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    params = list(model.parameters())
    generator = torch.Generator().manual_seed(0)
    direction = filter_normalized_direction(params, generator)
    parts = direction.split([p.numel() for p in params])
    for p, part in zip(params, parts, strict=True):
        if p.dim() > 1:
            norms = part.view(len(p), -1).norm(dim=1)
            torch.testing.assert_close(norms, p.flatten(1).norm(dim=1))
        else:
            assert not part.any()
    again = filter_normalized_direction(params, torch.Generator().manual_seed(0))
    assert torch.equal(direction, again)
    assert not torch.equal(direction, filter_normalized_direction(params, generator))


def test_surface_of_a_quadratic(quadratic):
    loss, params, a, u = quadratic
    before = [p.detach().clone() for p in params]
    w = torch.cat([p.flatten() for p in before])
    steps = (-1.0, 0.0, 0.5)
    surface = loss_surface(loss, params, (u[:, 0], u[:, 1]), steps)
    for i, first in enumerate(steps):
        for j, second in enumerate(steps):
            at = w + first * u[:, 0] + second * u[:, 1]
            assert surface[i, j].item() == pytest.approx((at @ a @ at / 2).item(), rel=1e-12)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_weights_are_restored_after_a_failure(quadratic):
    params = quadratic[1]
    before = [p.detach().clone() for p in params]

    def fail():
        with moved(params, torch.ones(5)):
            assert not torch.equal(params[0], before[0])
            raise RuntimeError('within')

    with pytest.raises(RuntimeError, match='within'):
        fail()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_without_curvlinops(monkeypatch):
    monkeypatch.setitem(sys.modules, 'curvlinops', None)
    monkeypatch.delitem(sys.modules, 'gcp_mm.studies.curvature')
    with pytest.raises(ImportError, match=r'needs curvlinops.*gcp_mm\[landscape\]'):
        importlib.import_module('gcp_mm.studies.curvature')
