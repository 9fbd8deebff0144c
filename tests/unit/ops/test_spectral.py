"""Spectral functions, log-Cholesky, signed square roots and svPN: definitions and edges."""

import mpmath
import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from gcp_mm.ops import (
    covariance,
    global_covariance_pooling,
    log_cholesky,
    matrix_log,
    matrix_power,
    matrix_sqrt_eigh,
    svpn,
    triu_vector,
)
from gcp_mm.ops.eigenvalues import Log, Power
from gcp_mm.ops.spectral import pool_by_spectrum
from tests.helpers.reference import SHAPES
from tests.helpers.reference import random_features as features

F64 = torch.float64
SMALL = [(2, 4, 2, 3), *SHAPES[1:]]  # finite differences take a while


@pytest.mark.parametrize('shape', SMALL)
@pytest.mark.parametrize(
    'function',
    [
        *(Power(exponent) for exponent in (0.3, 1.0, 2.5)),
        Log(eps=0.01),  # finite differences cannot follow a logarithm near zero
    ],
)
def test_gradients_of_spectral_functions(shape, function):
    x = features(*shape, requires_grad=True)
    assert gradcheck(lambda x: pool_by_spectrum(x, function), x)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(
    ('of_features', 'of_matrix'),
    [
        (dict(norm='power', exponent=0.3), lambda cov: matrix_power(cov, 0.3)),
        (dict(norm='log'), matrix_log),
    ],
)
def test_pooling_is_the_function_of_the_covariance(shape, of_features, of_matrix):
    """Value and gradient, where the features take the way through the Gram matrix too."""
    x = features(*shape, requires_grad=True)
    factor = features(shape[0], shape[1] * (shape[1] + 1) // 2, seed=1)
    pooled = global_covariance_pooling(x, **of_features)
    plain = triu_vector(of_matrix(covariance(x)))
    torch.testing.assert_close(pooled, plain)
    gradients = [torch.autograd.grad((out * factor).sum(), x)[0] for out in (pooled, plain)]
    scale = gradients[1].abs().max()
    torch.testing.assert_close(gradients[0] / scale, gradients[1] / scale, rtol=0, atol=1e-8)


@pytest.mark.parametrize('scale', [1, 30])
@pytest.mark.parametrize(
    ('norm', 'of_matrix'), [('power', lambda cov: matrix_power(cov, 0.5)), ('log', matrix_log)]
)
def test_functions_of_a_float32_covariance(norm, of_matrix, scale):
    """Of 10 positions: the null space is zero up to float32's rounding, not float64's."""
    x = features(2, 32, 10, dtype=torch.float32) * scale
    plain, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    out = triu_vector(of_matrix(covariance(plain)))
    expected = global_covariance_pooling(exact, norm=norm)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-4 * scale)
    if norm == 'power':
        out.sum().backward()
        expected.sum().backward()
        assert (plain.grad - exact.grad).norm() <= 1e-3 * exact.grad.norm()


@pytest.mark.parametrize('function', [Log(), Log(1e-13), Power(0.5), Power(2.5)])
def test_divided_differences_of_far_eigenvalues(function):
    """Against 50 digits; eigenvalues of any size, and zero."""
    values = [0.0, 1e-12, 1e-3, 1.0, 1e6, 1e12]
    a, b = torch.meshgrid(*[torch.tensor(values, dtype=F64)] * 2, indexing='ij')
    found = function.differences(a, b)
    with mpmath.workdps(50):
        for i, p in enumerate(map(mpmath.mpf, values)):
            for j, q in enumerate(map(mpmath.mpf, values)):
                if i == j:
                    continue
                if isinstance(function, Log):
                    eps = mpmath.mpf(function.eps)
                    expected = (mpmath.log(p + eps) - mpmath.log(q + eps)) / (p - q)
                else:
                    e = mpmath.mpf(function.exponent)
                    expected = (p**e - q**e) / (p - q)
                assert found[i, j].item() == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    'function', [matrix_sqrt_eigh, lambda cov: matrix_power(cov, 0.3), matrix_log]
)
@pytest.mark.parametrize('matrix', [[[1.0, 0], [0, -1]], [[0.0, 1], [1, 0]], [[-1.0, 0], [0, -2]]])
def test_indefinite_matrices(function, matrix):
    with pytest.raises(ValueError, match=r'cov: expected positive semi-definite.*eigenvalue -'):
        function(torch.tensor(matrix))
    rounding = torch.diag(torch.tensor([1.0, -1e-7]))
    assert function(rounding).isfinite().all()


@pytest.mark.parametrize('shape', SMALL)
def test_gradients_of_log_cholesky(shape):
    x = features(*shape, requires_grad=True)
    assert gradcheck(lambda x: log_cholesky(covariance(x), eps=0.01), x)


@pytest.mark.parametrize('exponent', [0.5, 0.25, 2.0])
def test_powers_of_powers(exponent):
    sigma = covariance(features(2, 5, 9))
    back = matrix_power(matrix_power(sigma, exponent), 1 / exponent)
    torch.testing.assert_close(back, sigma)


def test_log_cholesky_takes_eigenvalues_below_zero_from_rounding():
    sigma = torch.diag(torch.tensor([1e12, 1e12, -1e-4], dtype=F64))
    assert log_cholesky(sigma).isfinite().all()
    for scale in (1, 1e2, 1e4):
        x = features(4, 64, 20, dtype=torch.float32) * scale
        assert log_cholesky(covariance(x)).isfinite().all()
    with pytest.raises(torch.linalg.LinAlgError):
        log_cholesky(torch.diag(torch.tensor([1.0, -0.1])))


def test_signed_sqrt_of_zeros():
    x = torch.zeros(1, 3, 4, requires_grad=True)
    out = global_covariance_pooling(x, norm='signed_sqrt_l2')
    out.sum().backward()
    assert out.eq(0).all()
    assert x.grad.eq(0).all()


@pytest.mark.parametrize('exponent', [0.3, 0.5, 1])
def test_svpn(exponent):
    x, v = features(2, 4, 6), features(6, seed=1)
    for found, m in zip(svpn(x, v, exponent).numpy(), x.numpy(), strict=True):
        left = m @ v.numpy()
        left /= np.linalg.norm(left)
        right = m.T @ left
        right /= np.linalg.norm(right)
        s = left @ m @ right
        largest = np.outer(left, right)
        expected = s**exponent * largest + (m - s * largest) / (s ** (1 - exponent) + 1e-5)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_svpn_of_small_matrices():
    """s^a is cut off below 1e-10, and goes to zero with the matrix."""
    x = features(1, 4, 6)
    x /= torch.linalg.matrix_norm(x, 2)
    v = torch.linalg.svd(x)[2][0, 0]
    for size in (1e-9, 1e-12, 1e-20):
        y = svpn(x * size, v)
        assert y.norm() <= 2 * size**0.5
        assert svpn(x * size / 10, v).norm() < y.norm()


def test_gradients_of_svpn():
    x, v = features(2, 3, 4, requires_grad=True), features(4, seed=1, requires_grad=True)
    assert gradcheck(svpn, (x, v))
    zeros = torch.zeros(1, 3, 4, requires_grad=True)
    svpn(zeros, torch.ones(4)).sum().backward()
    assert zeros.grad.isfinite().all()
