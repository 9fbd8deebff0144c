"""Eq. (6) and (7) of the paper against autograd, finite differences and NumPy."""

import numpy as np
import pytest
import torch

from gcp_mm.ops import global_covariance_pooling, matrix_sqrt_eigh
from gcp_mm.ops.covariance import covariance
from gcp_mm.ops.triangle import triu_vector_adjoint
from gcp_mm.studies.gcp_gradient import gcp_gradient, trimmed_preconditioner
from tests.helpers.features import features

# Fewer positions than channels make the covariance singular, as that of real features is.
SHAPES = [(2, 6, 5, 8), (2, 9, 2, 3)]


@pytest.mark.parametrize('shape', SHAPES)
def test_equation_6_is_what_autograd_finds(shape):
    x = features(shape).requires_grad_()
    vector = global_covariance_pooling(x, norm='eigh')
    grad = torch.randn_like(vector)
    (expected,) = torch.autograd.grad(vector, x, grad)
    found = gcp_gradient(x.detach(), triu_vector_adjoint(grad) / 2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_equation_6_is_what_finite_differences_find():
    """The square root by SciPy's general matrix function, dL/dZ not symmetric."""
    from scipy.linalg import sqrtm

    x = features((1, 4, 3, 3))
    grad = torch.randn(1, 4, 4, dtype=torch.float64)

    def loss(x):
        flat = x[0].reshape(4, -1)
        return float((grad[0].numpy() * sqrtm(np.cov(flat, bias=True)).real).sum())

    found = gcp_gradient(x, grad).numpy()
    for index in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[index] = 1e-5
        difference = (loss(x.numpy() + step) - loss(x.numpy() - step)) / 2e-5
        assert found[index] == pytest.approx(difference, rel=1e-6, abs=1e-8)


def test_equation_6_refuses_a_repeated_eigenvalue():
    x = torch.tensor([[[1.0, -1, 0, 0], [0, 0, 1, -1]]])  # covariance I / 2
    with pytest.raises(ValueError, match='repeated positive eigenvalue'):
        gcp_gradient(x, torch.eye(2)[None])
    assert matrix_sqrt_eigh(covariance(x)).isfinite().all()
    with pytest.raises(ValueError, match=r'grad: expected dL/dZ of shape .* \(1, 2, 2\)'):
        gcp_gradient(x, torch.zeros(1, 2, 3))
    with pytest.raises(TypeError, match='floating-point'):
        gcp_gradient(x.int(), torch.eye(2)[None])
    assert gcp_gradient(features(SHAPES[0]).float(), torch.zeros(2, 6, 6)).dtype == torch.float32


def test_equation_7_term_by_term():
    """As printed, in NumPy and with J built."""
    x = features((1, 4, 3, 3))
    flat = x[0].flatten(1).numpy().T
    n = len(flat)
    j = (np.eye(n) - np.ones((n, n)) / n) / n
    lam, u = np.linalg.eigh(flat.T @ j @ flat)
    lam, u = lam[::-1], u[:, ::-1]
    k = np.array([[0 if a == b else 1 / (a - b) for b in lam] for a in lam])
    root, inverse_root = np.diag(lam**0.5), np.diag(lam**-0.5)
    for form, middle in dict(
        printed=2 * k.T * root + inverse_root / 2,
        eigenbasis=u @ (2 * k.T * root + inverse_root / 2) @ u.T,
    ).items():
        expected = 2 * j @ flat @ middle
        found = trimmed_preconditioner(x, form)[0]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_equation_7_is_exact_where_channels_are_uncorrelated_and_grad_diagonal():
    """There the commutations of the paper's appendix II hold."""
    x = torch.zeros(1, 3, 6, dtype=torch.float64)
    for channel, scale in enumerate((3.0, 2, 1)):
        x[0, channel, 2 * channel : 2 * channel + 2] = torch.tensor([scale, -scale])
    grad = torch.diag_embed(torch.tensor([[0.3, -2, 5]], dtype=torch.float64))
    for form in ('printed', 'eigenbasis'):
        found = trimmed_preconditioner(x, form) @ grad
        torch.testing.assert_close(found, gcp_gradient(x, grad).mT)


@pytest.mark.parametrize('shape', SHAPES)
def test_trimmed_preconditioner_in_the_eigenbasis_whitens(shape):
    n, rank = shape[2] * shape[3], min(shape[1], shape[2] * shape[3] - 1)
    s = torch.linalg.svdvals(trimmed_preconditioner(features(shape), 'eigenbasis'))
    expected = torch.zeros_like(s)
    expected[:, :rank] = n**-0.5
    torch.testing.assert_close(s, expected)


def test_trimmed_preconditioner_names_its_forms():
    with pytest.raises(ValueError, match=r"form: expected one of .*'printed'.*, got 'x'"):
        trimmed_preconditioner(features(SHAPES[0]), 'x')
