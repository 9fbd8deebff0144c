"""The circuits against the iteration they stand in for."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from gcp_mm.ops import global_covariance_pooling
from gcp_mm.ops.circuit import CIRCUITS

F64 = torch.float64
SHAPES = [(2, 6, 4), (2, 16, 16), (3, 5, 3, 4), (1, 32, 3, 3)]  # N < D, N = D, N > D, N << D


def scalar_newton_schulz(x, iterations):
    y, z = x, np.ones_like(x)
    for _ in range(iterations):
        t = (3 - z * y) / 2
        y, z = y * t, t * z
    return y


@pytest.mark.parametrize('key', CIRCUITS, ids=str)
def test_error_on_the_unit_interval(key):
    """On scalars, through the code that runs on matrices."""
    (kind, iterations), circuit = key, CIRCUITS[key]
    x = np.linspace(0, 1, 12345)
    value = circuit.forward(torch.from_numpy(x)[:, None, None])[0].flatten().numpy()
    p = x * value**2 if kind == 'gram' else value
    error = np.abs(p - scalar_newton_schulz(x, iterations)).max()
    assert error < 5e-7
    assert error <= 1.01 * circuit.max_error


def compare(x, iterations=5, **kwargs):
    """Relative errors of output and gradient in float32 against the iteration in float64."""
    exact = x.double().requires_grad_()
    expected = global_covariance_pooling(exact, iterations, method='newton_schulz')
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    expected.backward(grad)
    x = x.clone().requires_grad_()
    out = global_covariance_pooling(x, iterations, **kwargs)
    out.backward(grad.to(out.dtype))
    return (
        ((out - expected).norm() / expected.norm()).item(),
        ((x.grad - exact.grad).norm() / exact.grad.norm()).item(),
    )


FEATURES = dict(
    gaussian=lambda x: x,
    relu_sparse=lambda x: (x - 1).relu(),
    rank_1=lambda x: x[:, :, :1] @ x[:, :1],
    mean_100=lambda x: x + 100,
    small=lambda x: x * 1e-4,
    large=lambda x: x * 1e4,
    dead_channels=lambda x: x * (torch.arange(x.shape[1])[:, None] % 10 == 0),
)


@pytest.mark.parametrize('n', [49, 196, 300])
@pytest.mark.parametrize('kind', FEATURES)
def test_float32_error_in_networks(kind, n):
    x = torch.randn(2, 256, n, generator=torch.Generator().manual_seed(0))
    error, gradient_error = compare(FEATURES[kind](x))
    assert error < 2e-6
    assert gradient_error < 5e-6


@pytest.mark.parametrize('iterations', [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize('shape', SHAPES)
def test_auto_takes_any_number_of_iterations(shape, iterations):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    error, gradient_error = compare(x, iterations)
    assert error < 2e-6
    assert gradient_error < 2e-5


@pytest.mark.parametrize('iterations', [3, 5])
@pytest.mark.parametrize('shape', SHAPES)
def test_derivatives(shape, iterations):
    x = torch.randn(*shape[:1], *(min(n, 5) for n in shape[1:]), dtype=F64, requires_grad=True)

    def pool(x):
        return global_covariance_pooling(x, iterations, method='circuit')

    assert gradcheck(pool, x)
    assert gradgradcheck(pool, x)


def test_gradient_for_repeated_use_of_the_input():
    """Nothing saved is changed in place: two backward passes give the same."""
    x = torch.randn(2, 8, 5, requires_grad=True)
    out = global_covariance_pooling(x).square().sum()
    first = torch.autograd.grad(out, x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(out, x)[0])


def test_backward_under_autocast_stays_in_float32():
    x = torch.randn(2, 16, 5, 5, requires_grad=True)
    expected = torch.autograd.grad(global_covariance_pooling(x).sum(), x)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        grad = torch.autograd.grad(global_covariance_pooling(x).sum(), x)[0]
    torch.testing.assert_close(grad, expected, rtol=0, atol=0)


def test_no_circuit_for_that_many_iterations():
    with pytest.raises(ValueError, match=r"iterations=7 has no circuit.*method='newton_schulz'"):
        global_covariance_pooling(torch.ones(1, 2, 3), 7, method='circuit')


def test_unknown_method():
    with pytest.raises(ValueError, match=r"method.*'circuit'.*got 'fast'"):
        global_covariance_pooling(torch.ones(1, 2, 3), method='fast')
