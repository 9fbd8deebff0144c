"""Products are computed in float32, whatever the network around the layer may use."""

import pytest
import torch
from torch.func import grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from gcp_mm.ops import GlobalCovariancePool2d, global_covariance_pooling
from gcp_mm.ops.pooling import MATRIX_NORMS
from gcp_mm.ops.precision import full_float32

PRODUCTS = ('bmm', 'baddbmm', 'mm', 'addmm')
BACKENDS = torch.backends
NEWER = hasattr(BACKENDS.cuda.matmul, 'fp32_precision')  # PyTorch 2.9
FULL = {'none', 'ieee', False}


class Products(TorchDispatchMode):
    """Notes the precision that every product of float32 matrices may be computed in."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in PRODUCTS and args[0].dtype == torch.float32:
            self.found |= {*settings()[:2]}
        return func(*args, **(kwargs or {}))


def settings():
    """Of products on GPUs and CPUs, and of all; those of older versions for GPUs alone."""
    if not NEWER:
        return BACKENDS.cuda.matmul.allow_tf32, False, torch.get_float32_matmul_precision()
    nodes = BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul, BACKENDS
    return tuple(node.fp32_precision for node in nodes)


def allow_by_function():
    torch.set_float32_matmul_precision('high')


def allow_by_flag():
    BACKENDS.cuda.matmul.allow_tf32 = True


def allow_on_gpus():
    BACKENDS.cuda.matmul.fp32_precision = 'tf32'


def allow_everywhere():
    BACKENDS.fp32_precision = 'tf32'


@pytest.fixture(
    params=[allow_by_function, allow_by_flag, *((allow_on_gpus, allow_everywhere) if NEWER else ())]
)
def tf32(request):
    """TF32 as a user allows it; gives the settings."""
    if NEWER:  # which a function or flag used earlier has set
        for node in (BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul):
            node.fp32_precision = 'none'
    request.param()
    assert not FULL.issuperset(settings()[:2])
    yield settings()
    if NEWER:
        for node in (BACKENDS, BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul):
            node.fp32_precision = 'none'
    torch.set_float32_matmul_precision('highest')


@pytest.mark.parametrize('positions', [9, 100])
@pytest.mark.parametrize('norm', MATRIX_NORMS)
def test_tf32_is_off(norm, positions, tf32):
    x = torch.randn(2, 16, positions, requires_grad=True)
    with Products() as forward:
        out = global_covariance_pooling(x, norm=norm).sum()
    assert forward.found <= FULL
    assert forward.found or norm in ('power', 'log', 'cholesky')  # in float64
    with Products() as backward:
        out.backward()
    if norm == 'newton_schulz':  # the products of others are in part autograd's
        assert backward.found
        assert backward.found <= FULL
    assert settings() == tf32


def test_full_float32(tf32):
    cudnn = BACKENDS.cudnn
    before = cudnn.conv.fp32_precision if NEWER else cudnn.allow_tf32
    with full_float32():
        assert FULL.issuperset(settings()[:2])
        assert (cudnn.conv.fp32_precision if NEWER else cudnn.allow_tf32) in FULL
    assert settings() == tf32
    assert (cudnn.conv.fp32_precision if NEWER else cudnn.allow_tf32) == before


@pytest.mark.skipif(not NEWER, reason='PyTorch 2.9')
def test_a_setting_of_all_still_counts_afterwards():
    BACKENDS.fp32_precision = 'tf32'
    global_covariance_pooling(torch.randn(2, 16, 9))
    BACKENDS.fp32_precision = 'none'
    assert FULL.issuperset(settings())


@pytest.mark.parametrize('positions', [9, 100])
def test_gradients_of_single_samples(positions):
    """torch.func over the layer, which checks its input and has a backward written by hand."""
    layer = GlobalCovariancePool2d(16, ()).eval()
    x, v = torch.randn(3, 1, 16, positions, 1), torch.randn(136)
    found = vmap(grad(lambda each: (layer(each) @ v).sum()))(x)
    x.requires_grad_()
    expected = torch.autograd.grad(sum(layer(each) @ v for each in x), x)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
