"""The Triton kernels against the iteration in float64: on a GPU, else in Triton's interpreter."""

import os
import sys

import pytest
import torch

from gcp_mm.ops.circuit import find_circuit

pytest.importorskip('triton', minversion='3.0')
from gcp_mm.ops import triton_circuit
from gcp_mm.ops.triton_circuit import pool_backward, pool_forward
from tests.helpers.reference import allowed_errors, features, reference, relative_error

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cuda' if torch.cuda.is_available() and not INTERPRETED else 'cpu'
needs_device = pytest.mark.skipif(
    DEVICE == 'cpu' and not INTERPRETED, reason='no GPU: test_in_the_interpreter runs it'
)

SHAPES = [(1, 96, 49), (2, 40, 17), (1, 65, 64), (1, 33, 7), (1, 9, 1)]


def device_features(shape):
    return features(*shape).to(DEVICE)


def pool(x, grad, iterations=5):
    """Output, gradient of the features and what was saved, by the kernels."""
    circuit = find_circuit('gram', iterations)
    out, saved = pool_forward(x, circuit)
    dx = pool_backward(circuit, grad.float(), x, saved)
    return out, dx, saved


def check(x, iterations=5):
    expected, grad, expected_dx = reference(x, iterations)
    out, dx, saved = pool(x, grad, iterations)
    assert out.dtype == dx.dtype == torch.float32
    allowed, gradient_allowed = allowed_errors(x, iterations)
    assert relative_error(out, expected) <= allowed
    assert relative_error(dx, expected_dx) <= gradient_allowed
    return saved


@pytest.fixture(params=['registers', 'tiles'])
def path(request, monkeypatch):
    """Both ways to compute; the tiles so small that there are several, the last ones partial."""
    if request.param == 'tiles':
        monkeypatch.setattr(triton_circuit, 'SMALL', 0)
        for name, options in triton_circuit.TUNED.items():
            sizes = {key: 16 if key == 'block_k' else 32 for key in options if 'block' in key}
            monkeypatch.setitem(triton_circuit.TUNED, name, {**options, **sizes})


@pytest.mark.slow
@pytest.mark.skipif(DEVICE == 'cuda' or INTERPRETED, reason='the tests run directly')
def test_in_the_interpreter(run_tool):
    # In a process of its own: Triton asks for the interpreter while it is imported.
    result = run_tool(sys.executable, '-m', 'pytest', '-q', __file__, TRITON_INTERPRET='1')
    assert result.returncode == 0, result.stdout


@needs_device
@pytest.mark.parametrize(('shape', 'iterations'), [(SHAPES[1], 3), *((s, 5) for s in SHAPES)])
def test_error(shape, iterations, path):
    check(device_features(shape), iterations)


@needs_device
@pytest.mark.parametrize('shape', [(1, 256, 196), (1, 71, 70)])
def test_tiles_of_the_tuned_sizes(shape):
    x = device_features(shape)
    saved = check(x)
    assert sum(m.numel() * m.element_size() for m in (x, *saved)) <= 1.3 * 2**20


@needs_device
def test_large_mean_and_sparse_features_in_any_layout(path):
    check(device_features((1, 64, 20)) + 100)
    x = (device_features((2, 20, 48)) - 1).relu().mT
    x[:, 3] = 0
    check(x * 1e-4)


@needs_device
def test_images_without_variance_give_zeros(path):
    x = device_features((3, 40, 20))
    expected, grad, expected_dx = reference(x, 3)
    allowed, gradient_allowed = allowed_errors(x[::2], 3)
    x[1] = 0.1 + torch.arange(40, device=DEVICE)[:, None]
    out, dx, _ = pool(x, grad, 3)
    assert out[1].eq(0).all()
    assert dx[1].eq(0).all()
    assert relative_error(out[::2], expected[::2]) <= allowed
    assert relative_error(dx[::2], expected_dx[::2]) <= gradient_allowed


@needs_device
def test_nan_stays_nan_and_in_its_image(path):
    x = device_features((2, 40, 20))
    grad = reference(x, 3)[1]
    x[1, 5, 3] = float('nan')
    for result in pool(x, grad, 3)[:2]:
        assert result[0].isfinite().all()
        assert result[1].isnan().all()
