"""The layer against numpy, against finite differences, and at the edges of its domain."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from gcp_mm.ops import (
    MATRIX_NORMS,
    covariance,
    dropcov_probability,
    global_covariance_pooling,
    log_cholesky,
    matrix_log,
    matrix_power,
    matrix_sqrt_eigh,
    matrix_sqrt_newton_schulz,
    svpn,
    triu_vector,
    triu_vector_inverse,
)
from gcp_mm.ops.eigenvalues import Log, Power
from gcp_mm.ops.spectral import pool_by_spectrum
from tests.helpers.reference import (
    numpy_log,
    numpy_log_cholesky,
    numpy_newton_schulz,
    numpy_signed_sqrt,
)

F64 = torch.float64


def features(*shape, seed=0, dtype=F64, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(*shape, generator=generator, dtype=F64).to(dtype).requires_grad_(requires_grad)
    )


def numpy_root(sigma):
    lam, u = np.linalg.eigh(sigma)
    return u * np.sqrt(lam.clip(0))[..., None, :] @ u.swapaxes(-1, -2)


SHAPES = [(3, 6, 4, 5), (2, 8, 2, 2), (1, 5, 3, 3), (2, 4, 7)]  # N > D, N < D, batch 1, 3-D


@pytest.mark.parametrize('shape', SHAPES)
def test_covariance_is_numpys(shape):
    x = features(*shape)
    expected = [np.cov(sample.flatten(1).numpy(), bias=True) for sample in x]
    torch.testing.assert_close(covariance(x), torch.tensor(np.array(expected)))


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('iterations', [1, 2, 5])
def test_newton_schulz_on_the_spectrum(shape, iterations):
    sigma = covariance(features(*shape))
    expected = torch.tensor(numpy_newton_schulz(sigma.numpy(), iterations))
    torch.testing.assert_close(matrix_sqrt_newton_schulz(sigma, iterations), expected)


@pytest.mark.parametrize('shape', SHAPES)
def test_eigh_is_numpys_root(shape):
    sigma = covariance(features(*shape))
    root = matrix_sqrt_eigh(sigma)
    torch.testing.assert_close(root, torch.tensor(numpy_root(sigma.numpy())))
    torch.testing.assert_close(root @ root, sigma)


def test_newton_schulz_converges_to_the_root():
    sigma = covariance(features(2, 6, 10, 10))
    torch.testing.assert_close(matrix_sqrt_newton_schulz(sigma, 12), matrix_sqrt_eigh(sigma))


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('norm', MATRIX_NORMS)
def test_pooling_composes_its_parts(shape, norm):
    x = features(*shape)
    sigma = covariance(x).numpy()
    moment = np.array([m @ m.T / m.shape[1] for m in x.flatten(2).numpy()])
    normalized = dict(
        newton_schulz=lambda: numpy_newton_schulz(sigma, 5),
        eigh=lambda: numpy_root(sigma),
        power=lambda: numpy_root(sigma),
        log=lambda: numpy_log(sigma),
        cholesky=lambda: numpy_log_cholesky(sigma),
        signed_sqrt_l2=lambda: numpy_signed_sqrt(moment),
        none=lambda: sigma,
    )[norm]()
    row, col = np.triu_indices(shape[1])
    expected = torch.tensor(normalized[:, row, col])
    torch.testing.assert_close(global_covariance_pooling(x, norm=norm), expected)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('norm', sorted({*MATRIX_NORMS} - {'log', 'cholesky'}))
def test_gradients(shape, norm):
    x = features(*shape, requires_grad=True)
    assert gradcheck(lambda x: global_covariance_pooling(x, norm=norm), x)


@pytest.mark.parametrize('shape', SHAPES)
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


@pytest.mark.parametrize('shape', SHAPES)
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
    with pytest.raises(torch.linalg.LinAlgError):
        log_cholesky(torch.diag(torch.tensor([1.0, -0.1])))


def test_signed_sqrt_of_zeros():
    x = torch.zeros(1, 3, 4, requires_grad=True)
    out = global_covariance_pooling(x, norm='signed_sqrt_l2')
    out.sum().backward()
    assert out.eq(0).all()
    assert x.grad.eq(0).all()


def test_svpn_shrinks_the_largest_singular_value_alone():
    """From the largest singular vector: s to s^a, the others by the factor s^(a - 1)."""
    x = features(2, 4, 6)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    for exponent in (0.5, 0.3, 1):
        for i in range(2):
            y = svpn(x[i : i + 1], vh[i, 0], exponent)[0]
            largest = s[i, 0]
            others = s[i, 1:] / (largest ** (1 - exponent) + 1e-5)
            expected = u[i] * torch.cat([largest[None] ** exponent, others]) @ vh[i]
            torch.testing.assert_close(y, expected)


def test_svpn_from_any_start():
    x, v = features(2, 4, 6), features(6, seed=1)
    for found, m in zip(svpn(x, v, 0.3).numpy(), x.numpy(), strict=True):
        left = m @ v.numpy()
        left /= np.linalg.norm(left)
        right = m.T @ left
        right /= np.linalg.norm(right)
        s = left @ m @ right
        largest = np.outer(left, right)
        expected = s**0.3 * largest + (m - s * largest) / (s**0.7 + 1e-5)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_gradients_of_svpn():
    x, v = features(2, 3, 4, requires_grad=True), features(4, seed=1, requires_grad=True)
    assert gradcheck(svpn, (x, v))
    zeros = torch.zeros(1, 3, 4, requires_grad=True)
    svpn(zeros, torch.ones(4)).sum().backward()
    assert zeros.grad.isfinite().all()


@pytest.mark.parametrize('norm', ['newton_schulz', 'eigh', 'cholesky', 'signed_sqrt_l2', 'none'])
def test_second_derivatives(norm):
    x = features(2, 3, 5, requires_grad=True)
    assert gradgradcheck(lambda x: global_covariance_pooling(x, norm=norm), x)


@pytest.mark.parametrize('norm', ['newton_schulz', 'eigh', 'power'])
def test_gradient_is_finite_at_equal_eigenvalues(norm):
    """At Sigma = I / 8 the root's derivative is d(Sigma) / (2 / sqrt(8)), in closed form."""
    x = torch.eye(8, dtype=F64)[:4].unsqueeze(0)  # (1, 4, 8)
    x = torch.cat([x, -x], dim=2).requires_grad_()
    sigma = covariance(x)
    torch.testing.assert_close(sigma[0], torch.eye(4, dtype=F64) / 8)
    grad = torch.autograd.grad(global_covariance_pooling(x, 12, norm).sum(), x)[0]
    direct = torch.autograd.grad(triu_vector(covariance(x)).sum() * (8**0.5 / 2), x)[0]
    torch.testing.assert_close(grad, direct)


@pytest.mark.parametrize('scale', [1e-30, 1e-20, 1e-10, 1e4])
@pytest.mark.parametrize('norm', ['newton_schulz', 'eigh', 'power'])
def test_gradient_is_finite_at_any_scale(scale, norm):
    x = (features(2, 8, 5, 5, dtype=torch.float32) * scale).requires_grad_()
    out = global_covariance_pooling(x, norm=norm)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    if scale > 1e-12:  # the pooling is homogeneous, so its gradient is that of the unit scale
        one = (x.detach() / scale).requires_grad_()
        global_covariance_pooling(one, norm=norm).sum().backward()
        torch.testing.assert_close(x.grad, one.grad, rtol=1e-3, atol=1e-4)


def test_one_constant_sample_leaves_the_others_alone():
    x = features(2, 4, 6)
    both = torch.stack([x[0], torch.ones_like(x[1])]).requires_grad_()
    out = global_covariance_pooling(both)
    out.square().sum().backward()
    torch.testing.assert_close(out[0], global_covariance_pooling(x)[0])
    assert both.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('norm', MATRIX_NORMS)
def test_half_precision_is_computed_in_float32(dtype, norm):
    x = features(2, 8, 5, 5, dtype=dtype, requires_grad=True)
    out = global_covariance_pooling(x, norm=norm)
    torch.testing.assert_close(out, global_covariance_pooling(x.float(), norm=norm))
    assert out.dtype == torch.float32
    out.sum().backward()
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('norm', MATRIX_NORMS)
def test_autocast_changes_nothing(norm):
    x = features(2, 8, 5, 5, dtype=torch.float32)
    expected = global_covariance_pooling(x, norm=norm)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(
            global_covariance_pooling(x, norm=norm), expected, rtol=0, atol=0
        )


def test_triangle_layout_is_row_major():
    m = torch.arange(9.0).view(3, 3)
    assert triu_vector(m).tolist() == [0, 1, 2, 4, 5, 8]


@pytest.mark.parametrize('d', [1, 2, 7])
def test_triangle_round_trip(d):
    v = features(2, 3, d * (d + 1) // 2)
    m = triu_vector_inverse(v)
    assert m.shape == (2, 3, d, d)
    assert torch.equal(m, m.mT)
    assert torch.equal(triu_vector(m), v)


def test_indices_first_made_under_inference_mode_serve_training():
    d = 23  # a size no other test uses, so that this call is the one that makes them
    with torch.inference_mode():
        triu_vector_inverse(triu_vector(torch.eye(d)))
    m = torch.eye(d, requires_grad=True)
    triu_vector_inverse(triu_vector(m)).sum().backward()
    assert m.grad.isfinite().all()


def pool(*args, **kwargs):
    return global_covariance_pooling(torch.ones(1, 2, 3), *args, **kwargs)


@pytest.mark.parametrize(
    ('call', 'error', 'words'),
    [
        (lambda: global_covariance_pooling(torch.ones(2, 3)), ValueError, r'\(2, 3\)'),
        (lambda: covariance(torch.ones(1, 2, 3, 4, 5)), ValueError, 'shape'),
        (lambda: covariance(torch.ones(1, 2, 0)), ValueError, 'at least one'),
        (lambda: covariance(torch.ones(1, 2, 3).int()), TypeError, 'int32'),
        (lambda: covariance([1.0]), TypeError, 'list'),
        (lambda: pool(0), ValueError, 'iterations.*got 0'),
        (lambda: pool(2.5), TypeError, 'iterations.*got 2.5'),
        (lambda: pool(13), ValueError, 'iterations.*12, got 13.*eigh'),
        (lambda: matrix_sqrt_newton_schulz(torch.eye(2), 30), ValueError, 'iterations.*got 30'),
        (lambda: pool(norm='sqrt'), ValueError, "norm.*'newton_schulz', 'eigh', .*'sqrt'"),
        (lambda: pool(norm='power', exponent=0), ValueError, 'exponent.*got 0'),
        (lambda: pool(norm='power', exponent='1'), TypeError, "exponent.*got '1'"),
        (lambda: pool(norm='eigh', exponent=0.3), ValueError, "exponent=0.3.*'power'.*'eigh'"),
        (lambda: matrix_power(torch.eye(2), -1), ValueError, 'exponent.*got -1'),
        (lambda: matrix_power(torch.ones(2, 3), 0.5), ValueError, 'square'),
        (lambda: matrix_log(torch.eye(2), 0), ValueError, 'eps.*got 0'),
        (lambda: log_cholesky(torch.eye(2), -1.0), ValueError, 'eps.*got -1'),
        (lambda: svpn(torch.ones(1, 2, 3), torch.ones(2)), ValueError, r'\(1, 2, 3\) and \(2,\)'),
        (lambda: svpn(torch.ones(1, 2, 3), torch.ones(3), 2), ValueError, 'exponent.*got 2'),
        (lambda: dropcov_probability(torch.ones(1, 1, 3), torch.ones(1, 1)), ValueError, '2 or'),
        (lambda: dropcov_probability(torch.ones(2, 4, 3), torch.ones(4)), ValueError, r'\(4,\)'),
        (lambda: pool(method='fast'), ValueError, "method.*'circuit'.*got 'fast'"),
        (lambda: pool(save='nothing'), ValueError, "save.*'input'.*got 'nothing'"),
        (lambda: pool(backend='cuda'), ValueError, "backend.*'triton', 'cpp'.*got 'cuda'"),
        (lambda: pool(7, method='circuit'), ValueError, "circuit.*iterations=7.*method='auto'"),
        (lambda: matrix_sqrt_newton_schulz(torch.ones(2, 3)), ValueError, 'square'),
        (lambda: matrix_sqrt_eigh(torch.ones(3)), ValueError, 'square'),
        (lambda: triu_vector(torch.ones(2, 3)), ValueError, 'square'),
        (lambda: triu_vector_inverse(torch.ones(2, 4)), ValueError, r'\(2, 4\)'),
        (lambda: triu_vector_inverse(torch.tensor(1.0)), ValueError, 'shape'),
    ],
)
def test_wrong_arguments(call, error, words):
    with pytest.raises(error, match=words):
        call()
