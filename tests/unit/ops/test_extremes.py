"""The layer at the ends of what tensors can be: ranges, shapes and layouts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS

from gcp_mm.ops import global_covariance_pooling
from tests.helpers.reference import (
    allowed_errors,
    features,
    numpy_newton_schulz,
    reference,
    relative_error,
)

HALF = (torch.float16, torch.bfloat16)
# Decades in which features N(0, 1) times a scale neither leave their dtype nor, squared and summed
# in float32 (float64 in double precision), what that computes in.
DECADES = {
    torch.float16: (-4, 4),
    torch.bfloat16: (-17, 16),
    torch.float32: (-17, 16),
    torch.float64: (-17, 16),
}


def errors(x, method='auto'):
    """Largest errors of output and gradient relative to float64's.

    A gradient is rounded to the features' dtype, with at most half its eps.
    """
    if x.dtype == torch.float64:
        return 1e-12, 1e-12
    error, gradient_error = allowed_errors(x, method=method)
    return error, gradient_error + (torch.finfo(x.dtype).eps / 2 if x.dtype in HALF else 0)


def pool_and_grad(x, grad, **options):
    """Output, and gradient of the features, of a leaf with the strides of `x`."""
    x = x.detach().requires_grad_()
    out = global_covariance_pooling(x, **options)
    return out.detach(), torch.autograd.grad(out, x, grad.to(out.dtype))[0]


def assert_near_reference(x, **options):
    expected, grad, expected_dx = reference(x)
    out, dx = pool_and_grad(x, grad, **options)
    error, gradient_error = errors(x, options.get('method', 'auto'))
    assert dx.dtype == x.dtype
    assert dx.shape == x.shape
    assert out.isfinite().all()
    assert dx.isfinite().all()
    assert relative_error(out.double(), expected) < error
    assert relative_error(dx.double(), expected_dx) < gradient_error
    return out


def by_numpy(x):
    """The iteration on the covariance matrix of each map, as the paper has it."""
    maps = x.detach().double().flatten(2).numpy()
    sigma = np.stack([np.cov(m, bias=True).reshape(len(m), len(m)) for m in maps])
    row, col = np.triu_indices(sigma.shape[-1])
    return torch.from_numpy(numpy_newton_schulz(sigma, 5)[:, row, col])


def lay_out(x, layout):
    """The same numbers (of one map, if expanded) in other strides."""
    if layout == 'channels_last':
        return x.contiguous(memory_format=torch.channels_last)
    if layout == 'expanded':
        return x[:1].expand(x.shape)
    if layout == 'sliced':
        wide = torch.full((*x.shape[:3], 2 * x.shape[3] + 1), float('nan'), dtype=x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    if layout == 'permuted':
        return x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    if layout == 'flat':
        return x.flatten(2)
    return x


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_shape_dtype_layout_and_scale(data):
    size = st.integers(1, 8)
    b, h, w = data.draw(st.integers(1, 4)), data.draw(size), data.draw(size)
    d = data.draw(st.integers(1, 40))
    dtype = data.draw(st.sampled_from(list(DECADES)))
    layout = data.draw(
        st.sampled_from(['plain', 'channels_last', 'expanded', 'sliced', 'permuted', 'flat'])
    )
    scale = 10 ** data.draw(st.floats(*DECADES[dtype]))
    seed = data.draw(st.integers(0, 2**16))
    x = torch.randn(b, d, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x * scale
    if dtype == torch.float16:
        x = x.clamp(-6e4, 6e4)
    x = lay_out(x.to(dtype), layout)
    out = assert_near_reference(x)
    assert relative_error(out.double(), by_numpy(x)) < errors(x)[0]


@pytest.mark.parametrize('scale', [3e4, 300.0])
def test_half_precision_whose_squares_overflow_it(scale):
    x = (features(2, 32, 7, 7).sign() * scale).half()
    assert x.square().isinf().all()
    assert_near_reference(x)


@pytest.mark.parametrize('n', [9, 40])
@pytest.mark.parametrize('method', ['auto', 'newton_schulz'])
@pytest.mark.parametrize('scale', [1e-18, 1e-12, 1e10, 1e17])
def test_huge_and_tiny_features(scale, method, n):
    """The gradient does not change with the scale, and does not get lost in the squares.

    But for the iteration's in float32, which autograd derives: right from 1e-12 to 1e10.
    """
    x = features(2, 16, n) * scale
    if method == 'newton_schulz' and scale in (1e-18, 1e17):
        expected, grad, _ = reference(x)
        out, _ = pool_and_grad(x, grad, method=method)
        assert relative_error(out, expected) < errors(x, method)[0]
        return
    assert_near_reference(x, method=method)
    assert_near_reference(x.double(), method='newton_schulz')


@pytest.mark.parametrize('method', ['auto', 'newton_schulz'])
@pytest.mark.parametrize('n', [9, 400])
def test_squares_beyond_float32_give_nan_and_never_numbers(n, method):
    """1e18 in float32: N D squares of 1e36 fit for few positions, and overflow for many."""
    x = features(2, 16, n) * 1e18
    overflows = bool((x - x.mean(2, keepdim=True)).square().sum((1, 2)).isinf().all())
    assert overflows == (n == 400)
    expected, grad, expected_dx = reference(x)
    out, dx = pool_and_grad(x, grad, method=method)
    if overflows:
        assert out.isnan().all()
        assert dx.isnan().all()
    else:
        error, gradient_error = errors(x, method)
        assert relative_error(out, expected) < error
        if method != 'newton_schulz':
            assert relative_error(dx, expected_dx) < gradient_error
    assert_near_reference(x.double())


def test_features_too_small_to_square_count_as_constant():
    x = features(2, 16, 9) * 1e-21
    out, dx = pool_and_grad(x, torch.ones(2, 136))
    assert not out.any()
    assert not dx.any()
    assert_near_reference(x.double())


@pytest.mark.parametrize('norm', ['newton_schulz', 'eigh', 'none'])
@pytest.mark.parametrize(('dtype', 'value'), zip(DECADES, [-3e4, 0, 0.1, -3e4], strict=True))
@pytest.mark.parametrize('shape', [(2, 6, 3, 3), (1, 1, 1, 1)])
def test_constant_maps_and_single_positions(shape, value, dtype, norm):
    """Zeros and zero gradients, whatever the mean."""
    x = torch.full(shape, value, dtype=dtype) + torch.arange(shape[1])[:, None, None].to(dtype)
    out = global_covariance_pooling(x, norm=norm)
    out, dx = pool_and_grad(x, torch.ones_like(out), norm=norm)
    assert not out.any()
    assert not dx.any()


def make_neck(reduction=(16,)):
    torch.manual_seed(0)
    neck = MODELS.build(dict(type='GlobalCovariancePooling', in_channels=24, reduction=reduction))
    neck.init_weights()
    return neck


@pytest.mark.parametrize(
    'x',
    [
        pytest.param(torch.zeros(2, 24, 5, 5), id='zeros'),
        pytest.param(torch.full((2, 24, 5, 5), 7.0), id='constant'),
        pytest.param(features(2, 24, 1, 1), id='one position'),
        pytest.param(features(1, 24, 5, 5), id='batch of one'),
        pytest.param(features(2, 24, 5, 5) * 1e15, id='huge'),
        pytest.param(features(2, 24, 5, 5) * 1e-18, id='tiny'),
    ],
)
def test_neck_in_training(x):
    neck = make_neck().train()
    x = x.clone().requires_grad_()
    out = neck(x)
    out.square().sum().backward()
    assert out.shape == (len(x), 136)
    for value in (out, x.grad, *(p.grad for p in neck.parameters()), *neck.buffers()):
        assert value.isfinite().all()


def test_a_single_position_of_a_single_image():
    """Batch normalization has no variance to train with; without it, and later, there is none."""
    x = features(1, 24, 1, 1)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        make_neck().train()(x)
    assert not make_neck().eval()(x).any()
    assert not make_neck(()).train()(x).any()
