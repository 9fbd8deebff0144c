"""The layer against numpy, against finite differences, and at the edges of its domain."""

import itertools
from functools import partial

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
    signed_sqrt_l2,
    svpn,
    triu_vector,
    triu_vector_inverse,
)
from gcp_mm.ops.arguments import check_integer, check_number
from tests.helpers.reference import (
    SHAPES,
    numpy_log,
    numpy_log_cholesky,
    numpy_newton_schulz,
    numpy_signed_sqrt,
)
from tests.helpers.reference import (
    random_features as features,
)

F64 = torch.float64
ROOTS = ('newton_schulz', 'eigh', 'power')
SCALED = (4, 64, 5, 5), (4, 64), (4, 1)  # the last of these is wrong


def numpy_root(sigma):
    lam, u = np.linalg.eigh(sigma)
    return u * np.sqrt(lam.clip(0))[..., None, :] @ u.swapaxes(-1, -2)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(
    ('root', 'numpys'),
    [
        (matrix_sqrt_eigh, numpy_root),
        *(
            [partial(f, iterations=k) for f in (matrix_sqrt_newton_schulz, numpy_newton_schulz)]
            for k in (1, 2, 5)
        ),
    ],
)
def test_covariance_and_its_root_are_numpys(shape, root, numpys):
    x = features(*shape)
    sigma = np.array([np.cov(sample.flatten(1).numpy(), bias=True) for sample in x])
    cov = covariance(x)
    torch.testing.assert_close(cov, torch.tensor(sigma))
    torch.testing.assert_close(root(cov), torch.tensor(numpys(sigma)))


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


@pytest.mark.parametrize('norm', ['newton_schulz', 'eigh', 'cholesky', 'signed_sqrt_l2', 'none'])
def test_second_derivatives(norm):
    x = features(2, 3, 5, requires_grad=True)
    assert gradgradcheck(lambda x: global_covariance_pooling(x, norm=norm), x)


@pytest.mark.parametrize('norm', ROOTS)
def test_gradient_is_finite_at_equal_eigenvalues(norm):
    """At Sigma = I / 8 the root's derivative is d(Sigma) / (2 / sqrt(8)), in closed form."""
    x = torch.eye(8, dtype=F64)[:4].unsqueeze(0)  # (1, 4, 8)
    x = torch.cat([x, -x], dim=2).requires_grad_()
    sigma = covariance(x)
    torch.testing.assert_close(sigma[0], torch.eye(4, dtype=F64) / 8)
    grad = torch.autograd.grad(global_covariance_pooling(x, 12, norm).sum(), x)[0]
    direct = torch.autograd.grad(triu_vector(covariance(x)).sum() * (8**0.5 / 2), x)[0]
    torch.testing.assert_close(grad, direct)


@pytest.mark.parametrize(
    ('norm', 'scale'),
    [
        *itertools.product(ROOTS, (1e-30, 1e-20, 1e-10, 1e4)),
        *itertools.product(sorted({*MATRIX_NORMS} - {*ROOTS}), (1, 1e3, 1e5)),
    ],
)
@pytest.mark.parametrize('positions', [(5,), (5, 5)])
def test_gradient_is_finite_at_any_scale(norm, scale, positions):
    x = (features(2, 8, *positions, dtype=torch.float32) * scale).requires_grad_()
    out = global_covariance_pooling(x, norm=norm)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    if norm in ROOTS and scale > 1e-12:  # homogeneous, so the gradient is that of the unit scale
        one = (x.detach() / scale).requires_grad_()
        global_covariance_pooling(one, norm=norm).sum().backward()
        torch.testing.assert_close(x.grad, one.grad, rtol=1e-3, atol=1e-4)


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
        assert torch.equal(global_covariance_pooling(x, norm=norm), expected)


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
        *((partial(check_integer, 'k', k), ValueError, f'k: .*got {k}') for k in (-1, 0)),
        *((partial(check_integer, 'k', k), TypeError, f'k: .*{k}') for k in (2.5, '8', True)),
        (partial(check_integer, 'k', 3, 4), ValueError, 'k: .*at least 4, got 3'),
        (lambda: pool(13), ValueError, 'iterations.*12, got 13'),
        (lambda: matrix_sqrt_newton_schulz(torch.eye(2), 30), ValueError, 'iterations.*got 30'),
        (lambda: pool(norm='sqrt'), ValueError, "norm.*'newton_schulz', 'eigh', .*'sqrt'"),
        *((partial(check_number, 'a', a), ValueError, f'a: .*{a}') for a in (0, np.inf, np.nan)),
        *((partial(check_number, 'a', a), TypeError, f'a: .*{a}') for a in ('1', True)),
        (lambda: pool(norm='power', exponent=0), ValueError, 'exponent.*got 0'),
        (lambda: pool(norm='eigh', exponent=0.3), ValueError, "exponent=0.3.*'power'.*'eigh'"),
        (lambda: matrix_power(torch.eye(2), -1), ValueError, 'exponent.*got -1'),
        (lambda: matrix_power(torch.ones(2, 3), 0.5), ValueError, 'square'),
        (lambda: matrix_log(torch.eye(2), 0), ValueError, 'eps.*got 0'),
        (lambda: signed_sqrt_l2(torch.ones(3)), ValueError, 'square'),
        (lambda: log_cholesky(torch.eye(2), -1.0), ValueError, 'eps.*got -1'),
        (lambda: svpn(torch.ones(1, 2, 3), torch.ones(2)), ValueError, r'\(1, 2, 3\) and \(2,\)'),
        (lambda: svpn(torch.ones(1, 2, 3), torch.ones(3), 2), ValueError, 'exponent.*got 2'),
        (lambda: dropcov_probability(torch.ones(1, 1, 3), torch.ones(1, 1)), ValueError, '2 or'),
        (lambda: dropcov_probability(torch.ones(2, 4, 3), torch.ones(4)), ValueError, r'\(4,\)'),
        (lambda: dropcov_probability(*map(torch.ones, SCALED)), ValueError, r'scale.*\(4, 1\)'),
        (lambda: pool(method='fast'), ValueError, "method.*'circuit'.*'cpp'.*got 'fast'"),
        (lambda: pool(norm='eigh', method='circuit'), ValueError, "method='circuit'.*norm='eigh'"),
        (lambda: pool(7, method='cpp'), ValueError, "'cpp'.*iterations=7.*method='auto'"),
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
