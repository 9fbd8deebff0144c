"""The ways to compute the Newton-Schulz pooling against each other and against float64."""

import itertools

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from gcp_mm.ops import circuit_pooling, extension, global_covariance_pooling
from gcp_mm.ops.circuit import CIRCUITS
from gcp_mm.ops.newton_schulz import MAX_ITERATIONS
from tests.helpers.reference import (
    FEATURES,
    allowed_errors,
    features,
    reference,
    relative_error,
    scalar_newton_schulz,
)

F64 = torch.float64
SHAPES = [(2, 6, 4), (2, 16, 16), (3, 5, 3, 4), (1, 32, 3, 3)]  # N < D, N = D, N > D, N << D


@pytest.mark.parametrize('key', CIRCUITS, ids=str)
def test_error_on_the_unit_interval(key):
    """On scalars, through the code that runs on matrices."""
    (kind, iterations), circuit = key, CIRCUITS[key]
    x = np.linspace(0, 1, 12345)
    value = circuit.forward(torch.from_numpy(x)[:, None, None])[0].flatten().numpy()
    p = x * value**2 if kind == 'gram' else value
    error = np.abs(p - scalar_newton_schulz(x, iterations)).max()
    assert error < 6e-7
    assert error <= 1.01 * circuit.max_error


def check(x, iterations=5, method='auto'):
    """Relative Frobenius errors of output and gradient in float32."""
    expected, grad, expected_dx = reference(x, iterations)
    x = x.clone().requires_grad_()
    out = global_covariance_pooling(x, iterations, method=method)
    dx = torch.autograd.grad(out, x, grad.to(out.dtype))[0]
    allowed, gradient_allowed = allowed_errors(x.detach(), iterations, method)
    assert relative_error(out.detach(), expected) <= allowed
    assert relative_error(dx, expected_dx) <= gradient_allowed


@pytest.mark.parametrize('method', ['circuit', 'newton_schulz'])
@pytest.mark.parametrize('n', [49, 196, 300])
@pytest.mark.parametrize('kind', FEATURES)
def test_float32_error_in_networks(kind, n, method):
    check(FEATURES[kind](features(2, 256, n)), method=method)


@pytest.mark.parametrize('method', ['auto', 'newton_schulz'])
@pytest.mark.parametrize('iterations', [1, 2, 3, 4, 5, 7, MAX_ITERATIONS])
@pytest.mark.parametrize('shape', SHAPES)
def test_any_number_of_iterations(shape, iterations, method):
    check(features(*shape), iterations, method)


@pytest.mark.parametrize('method', ['circuit', 'newton_schulz'])
@pytest.mark.parametrize('iterations', [3, 5])
@pytest.mark.parametrize('shape', [(2, 4, 3), (1, 4, 4), (1, 3, 2, 3), (1, 4, 1, 2)])
def test_derivatives(shape, iterations, method):
    x = torch.randn(shape, dtype=F64, requires_grad=True)

    def pool(x):
        return global_covariance_pooling(x, iterations, method=method)

    assert gradcheck(pool, x)
    assert gradgradcheck(pool, x)


def test_memory_kept_for_the_backward():
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        global_covariance_pooling(torch.randn(4, 256, 14, 14, requires_grad=True))
    assert sum(storages.values()) / 4 <= 1.3 * 2**20


@pytest.mark.parametrize('n', [5, 40])
@pytest.mark.parametrize(('before', 'after'), [(2, 2), (1, 5), (5, 1)])
def test_chunks_change_nothing(n, before, after, monkeypatch):
    """Of as many samples as there are threads, whose number changes before the backward."""
    x = features(5, 24, n).requires_grad_()
    expected = global_covariance_pooling(x)
    grad = torch.randn_like(expected)
    expected_dx = torch.autograd.grad(expected, x, grad)[0]
    monkeypatch.setattr(circuit_pooling, 'CHUNK_BYTES', 1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: before)
    out = global_covariance_pooling(x)
    torch.testing.assert_close(out, expected)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: after)
    dx = torch.autograd.grad(out, x, grad)[0]
    torch.testing.assert_close(dx, expected_dx, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('method', ['circuit', 'newton_schulz'])
def test_empty_batch(method):
    x = torch.randn(0, 6, 4, requires_grad=True)
    out = global_covariance_pooling(x, method=method)
    out.sum().backward()
    assert out.shape == (0, 21)
    assert x.grad.shape == x.shape


@pytest.mark.parametrize('method', ['circuit', 'newton_schulz'])
@pytest.mark.parametrize('shape', [(2, 6, 4), (2, 5, 12)])
def test_constant_features_and_nan(shape, method):
    x = features(*shape)
    x[0] = 0.1
    x.requires_grad_()
    out = global_covariance_pooling(x, method=method)
    dx = torch.autograd.grad(out.sum(), x)[0]
    assert not out[0].any()
    assert not dx[0].any()
    assert dx[1].isfinite().all()
    torch.testing.assert_close(out[1:], global_covariance_pooling(x[1:], method=method))
    with torch.no_grad():
        x[0, 0, 0] = float('nan')
        assert global_covariance_pooling(x, method=method)[0].isnan().all()


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
    assert torch.equal(grad, expected)


@pytest.mark.parametrize(
    ('method', 'x'),
    [
        *itertools.product(
            ('triton', 'cpp'),
            (torch.ones(1, 4, 3).double(), torch.ones(0, 4, 3), torch.ones(1, 4, 3, device='meta')),
        ),
        ('triton', torch.ones(1, 4, 3)),
    ],
)
def test_method_that_cannot_run(method, x):
    with pytest.raises(ValueError, match=f"method='{method}'.*{x.dtype}.*on {x.device}"):
        global_covariance_pooling(x, method=method)


@pytest.mark.parametrize('shape', [(2, 8, 5), (2, 5, 8)])
@pytest.mark.parametrize('method', ['cpp', 'auto'])
def test_named_or_wanted_extension_is_taken(shape, method, monkeypatch):
    class CompiledError(Exception):
        pass

    def load():
        raise CompiledError

    x = features(*shape)
    expected = global_covariance_pooling(x)
    monkeypatch.setattr(extension, 'load', load)
    monkeypatch.setenv('GCP_MM_EXTENSION', '1')
    out = global_covariance_pooling(x, method='circuit')
    assert torch.equal(out, expected)
    with pytest.raises(CompiledError):
        global_covariance_pooling(x, method=method)
