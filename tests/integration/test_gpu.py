"""The pooling on a GPU, as a network calls it."""

import pytest
import torch

from gcp_mm.ops import global_covariance_pooling

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
SHAPES = [(3, 64, 7, 7), (2, 256, 14, 14), (2, 32, 6, 6)]  # small and large Gram, covariance


def features(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).cuda()


def run(x, grad, **kwargs):
    x = x.clone().requires_grad_()
    out = global_covariance_pooling(x, **kwargs)
    return out.detach(), torch.autograd.grad(out, x, grad.to(out.dtype))[0]


@pytest.mark.parametrize('method', ['auto', 'circuit', 'newton_schulz'])
@pytest.mark.parametrize('shape', SHAPES)
def test_error(shape, method):
    x = features(shape)
    grad = torch.randn(x.shape[0], x.shape[1] * (x.shape[1] + 1) // 2, device='cuda')
    expected = run(x.double(), grad, method='newton_schulz')
    for value, reference, tolerance in zip(
        run(x, grad, method=method), expected, (2e-6, 4e-6), strict=True
    ):
        assert (value - reference).norm() <= tolerance * reference.norm()


def test_second_derivative():
    x = features((2, 16, 3, 3)).requires_grad_()
    reference = x.detach().double().requires_grad_()
    for method, at in (('auto', x), ('newton_schulz', reference)):
        out = global_covariance_pooling(at, method=method)
        grad = torch.autograd.grad(out.square().sum(), at, create_graph=True)[0]
        grad.square().sum().backward()
    assert (x.grad - reference.grad).norm() <= 2e-5 * reference.grad.norm()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_and_half_precision(dtype):
    x = features((2, 64, 7, 7)).to(dtype)
    grad = torch.randn(2, 64 * 65 // 2, device='cuda')
    out, dx = run(x.float(), grad)
    with torch.autocast('cuda', dtype):
        half_out, half_dx = run(x, grad)
    assert half_out.dtype == torch.float32
    assert half_dx.dtype == dtype
    torch.testing.assert_close(half_out, out, rtol=0, atol=0)
    torch.testing.assert_close(half_dx, dx.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize('shape', SHAPES)
def test_no_synchronization_and_cuda_graph(shape):
    x = features(shape).requires_grad_()
    stream = torch.cuda.Stream()  # a capture needs a warm-up beside it
    with torch.cuda.stream(stream):
        grad = torch.randn_like(global_covariance_pooling(x))
        torch.autograd.grad(global_covariance_pooling(x), x, grad)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode('error')
        try:
            torch.autograd.grad(global_covariance_pooling(x), x, grad)
        finally:
            torch.cuda.set_sync_debug_mode('default')
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            out = global_covariance_pooling(x)
            dx = torch.autograd.grad(out, x, grad)[0]
        with torch.no_grad():
            x.copy_(features(shape).flip(0) * 3)
        graph.replay()
        torch.cuda.synchronize()
    expected, expected_dx = run(x.detach(), grad)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(dx, expected_dx)


def test_compiled():
    x = features((2, 64, 7, 7)).requires_grad_()
    out = torch.compile(global_covariance_pooling, fullgraph=True)(x)
    expected = global_covariance_pooling(x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, x, grad)[0],
        torch.autograd.grad(expected, x, grad)[0],
        rtol=1e-3,
        atol=1e-4,
    )
