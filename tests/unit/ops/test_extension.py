"""The compiled pooling against the iteration in float64. Compiling takes half a minute."""

import pytest
import torch

from gcp_mm.ops import extension
from gcp_mm.ops.circuit import find_circuit
from tests.helpers.reference import FEATURES, allowed_errors, features, reference, relative_error

# whole and cut blocks of 8, N < D and N >= D
SHAPES = [(2, 256, 196), (3, 256, 49), (2, 40, 17), (1, 5, 4), (2, 128, 196), (1, 21, 131)]


def run(x, iterations=5):
    """Result, gradient with respect to the features, and bytes saved; and the same in float64."""
    circuit = find_circuit('gram' if x.shape[2] < x.shape[1] else 'covariance', iterations)
    expected, grad, expected_dx = reference(x, iterations)
    out, saved = extension.pool_forward(x, circuit)
    dx = extension.pool_backward(circuit, grad.float(), x, saved)
    return out, dx, sum(tensor.nbytes for tensor in saved), expected, expected_dx


def check(x, iterations=5):
    out, dx, _, expected, expected_dx = run(x, iterations)
    allowed, gradient_allowed = allowed_errors(x, iterations)
    assert relative_error(out, expected) <= allowed
    assert relative_error(dx, expected_dx) <= gradient_allowed


@pytest.mark.slow
@pytest.mark.parametrize('iterations', [3, 5])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('kind', FEATURES)
def test_float32_error(kind, shape, iterations):
    check(FEATURES[kind](features(*shape)), iterations)


@pytest.mark.slow
@pytest.mark.parametrize('n', [1, 2, 7, 8, 9, 16, 23, 24, 25, 33, 40, 63, 64, 65])
@pytest.mark.parametrize('d', [34, 40, 57])
def test_every_remainder_of_the_blocks(d, n):
    check(features(2, d, n))


@pytest.mark.slow
@pytest.mark.parametrize('n', [11, 30])
@pytest.mark.parametrize('value', [0.0, float('nan'), float('inf')])
def test_constant_sample_gives_exact_zeros_others_nan_and_leave_the_rest(value, n):
    x = features(3, 24, n)
    alone, alone_dx, *_ = run(x)
    x[1] = torch.linspace(0.1, 30, 24)[:, None]
    x[1, 23, 10] += value
    out, dx, *_ = run(x)
    for result, without in ((out, alone), (dx, alone_dx)):
        expected = torch.full_like(result[1], 0.0 if value == 0 else float('nan'))
        torch.testing.assert_close(result[1], expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(result[::2], without[::2])


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(5, 256, 49), (3, 40, 17), (3, 32, 50)], ids=str)
def test_threads_do_not_change_a_bit(shape):
    x, threads = features(*shape), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        out, dx, *_ = run(x)
        torch.set_num_threads(2)
        again, dx_again, *_ = run(x)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(out, again)
    assert torch.equal(dx, dx_again)


@pytest.mark.slow
def test_any_memory_layout():
    x = features(2, 24, 11)
    out, dx, *_ = run(x)
    again, dx_again, *_ = run(x.mT.contiguous().mT)
    assert torch.equal(out, again)
    assert torch.equal(dx, dx_again)


@pytest.mark.slow
def test_saved_bytes():
    """With the features themselves at most 1.3 MiB per image."""
    x = features(2, 256, 196)
    assert (run(x)[2] + x.nbytes) / 2 <= 1.3 * 2**20


@pytest.mark.parametrize('missing', ['compiler', 'ninja'])
def test_missing_tools_are_named(monkeypatch, missing):
    found = {'compiler': ('ninja',), 'ninja': ('c++',)}[missing]
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setattr('shutil.which', lambda name, **_: name if name in found else None)
    with pytest.raises(RuntimeError, match={'compiler': 'g\\+\\+', 'ninja': 'ninja'}[missing]):
        extension.load.__wrapped__()
