"""Products are computed in float32, whatever the network around the layer may use."""

import pytest
import torch
from torch.func import grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from gcp_mm.ops import GlobalCovariancePool2d, global_covariance_pooling
from gcp_mm.ops.pooling import MATRIX_NORMS
from gcp_mm.ops.precision import full_float32

PRODUCTS = ('bmm', 'baddbmm', 'mm', 'addmm')
NEWER = hasattr(torch.backends.cuda.matmul, 'fp32_precision')


class Products(TorchDispatchMode):
    """Notes the precision that every product of float32 matrices may be computed in."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in PRODUCTS and args[0].dtype == torch.float32:
            self.found.append(precision())
        return func(*args, **(kwargs or {}))


def precision():
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # of names that do not go together
        return torch.backends.cuda.matmul.fp32_precision


@pytest.fixture(params=['older', 'newer'] if NEWER else ['older'])
def tf32(request):
    """TF32 as a user allows it, by the older or the newer names."""
    matmul = torch.backends.cuda.matmul
    if request.param == 'older':
        torch.set_float32_matmul_precision('high')
    else:
        matmul.fp32_precision = 'tf32'
    yield precision()
    if request.param == 'newer':
        matmul.fp32_precision = 'ieee'
    torch.set_float32_matmul_precision('highest')


@pytest.mark.parametrize('positions', [9, 100])
@pytest.mark.parametrize('norm', MATRIX_NORMS)
def test_tf32_is_off(norm, positions, tf32):
    x = torch.randn(2, 16, positions, requires_grad=True)
    with Products() as forward:
        out = global_covariance_pooling(x, norm=norm).sum()
    assert set(forward.found) <= {'highest', 'ieee'}
    assert forward.found or norm in ('power', 'log', 'cholesky')  # in float64
    with Products() as backward:
        out.backward()
    if norm == 'newton_schulz':  # the products of others are in part autograd's
        assert backward.found
        assert set(backward.found) <= {'highest', 'ieee'}
    assert precision() == tf32


def test_full_float32(tf32):
    cudnn = torch.backends.cudnn
    with full_float32():
        assert precision() in ('highest', 'ieee')
        assert (cudnn.conv.fp32_precision if NEWER else cudnn.allow_tf32) in ('none', 'ieee', False)
    assert precision() == tf32


@pytest.mark.parametrize('positions', [9, 100])
def test_gradients_of_single_samples(positions):
    """torch.func over the layer, which checks its input and has a backward written by hand."""
    layer = GlobalCovariancePool2d(16, ()).eval()
    x, v = torch.randn(3, 1, 16, positions, 1), torch.randn(136)
    found = vmap(grad(lambda each: (layer(each) @ v).sum()))(x)
    x.requires_grad_()
    expected = torch.autograd.grad(sum(layer(each) @ v for each in x), x)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
