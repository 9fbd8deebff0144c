"""The pooling and the neck as compilers and exporters take them."""

import inspect

import numpy as np
import pytest
import torch

from gcp_mm.models import GlobalCovariancePooling, MomentProbingHead, SoTHead
from gcp_mm.ops import global_covariance_pooling, triangle

SHAPES = [(2, 6, 4), (2, 5, 12)]  # the Gram matrix and the covariance
METHODS = ['auto', 'newton_schulz']


def features(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _fresh():
    """No index made before."""
    triangle._cached.cache_clear()
    torch._dynamo.reset()


@pytest.mark.parametrize(
    'backend', ['eager', 'aot_eager', pytest.param('inductor', marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('shape', SHAPES)
def test_compiled(shape, method, backend):
    if backend == 'inductor' and not hasattr(torch.compiler, 'is_compiling'):
        pytest.skip('before PyTorch 2.3 inductor stumbles over a sum beside a mean')

    def pool(x):
        return global_covariance_pooling(x, method=method)

    x = features(shape).requires_grad_()
    out = torch.compile(pool, fullgraph=True, backend=backend)(x)
    expected = pool(x)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, x, grad)[0],
        torch.autograd.grad(expected, x, grad)[0],
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_compiled_with_a_default_device(backend):
    """A mode that PyTorch's functions run under, and NumPy's do not."""
    x = features((2, 6, 4))
    expected = global_covariance_pooling(x)
    torch.set_default_device('cpu')
    try:
        out = torch.compile(global_covariance_pooling, fullgraph=True, backend=backend)(x)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(
    not hasattr(torch.compiler, 'is_compiling'), reason='before PyTorch 2.3 sizes are no constants'
)
def test_compiled_once_for_all_sizes():
    pool = torch.compile(global_covariance_pooling, fullgraph=True, backend='eager', dynamic=True)
    for x in map(features, [(2, 6, 4), (3, 8, 4), (2, 5, 12), (4, 7, 20)]):
        expected = global_covariance_pooling(x)
        torch.testing.assert_close(pool(x), expected, rtol=1e-5, atol=1e-6)


def neck():
    torch.manual_seed(0)
    return GlobalCovariancePooling(12, reduction=(8,)).eval()


@pytest.mark.parametrize('strict', [True, False])
def test_exported(strict):
    module, x = neck(), features((2, 12, 2, 3))
    options = {}
    if 'strict' in inspect.signature(torch.export.export).parameters:
        options = dict(strict=strict, dynamic_shapes=[{0: torch.export.Dim('batch')}])
    elif not strict:
        pytest.skip('this PyTorch exports in one way only')
    program = torch.export.export(module, (x,), **options)
    run = program.module() if hasattr(program, 'module') else program
    torch.testing.assert_close(run(x), module(x))
    if options:
        more = features((5, 12, 2, 3))
        torch.testing.assert_close(run(more), module(more))


class OfTokens(torch.nn.Module):
    """A head as a function of the tokens, not of a tuple of stages."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head((x,))


@pytest.mark.parametrize(
    ('make', 'size'),
    [
        (neck, (12, 2, 3)),
        (neck, (12, 9, 9)),
        (lambda: OfTokens(SoTHead(5, 12, num_heads=2, width=6)), (9, 12)),
        (lambda: OfTokens(MomentProbingHead(5, 12, 28, 4)), (9, 12)),
    ],
    ids=['gram', 'covariance', 'sot', 'moment_probing'],
)
@pytest.mark.parametrize('dynamo', [True, False])
def test_onnx(dynamo, make, size, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    module, x, path = make().eval(), features((2, *size)), tmp_path / 'network.onnx'
    if 'dynamo' not in inspect.signature(torch.onnx.export).parameters:
        if dynamo:
            pytest.skip('this PyTorch has the older exporter only')
        options = {}
    elif dynamo:
        pytest.importorskip('onnxscript')
        options = dict(dynamo=True, dynamic_shapes=[{0: torch.export.Dim('batch')}])
    else:
        options = dict(dynamo=False)
    if not dynamo:
        options |= dict(dynamic_axes=dict(x={0: 'batch'}))
    torch.onnx.export(module, (x,), str(path), input_names=['x'], **options)
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    for batch in (x, features((5, *size))):
        (out,) = session.run(None, dict(x=batch.numpy()))
        np.testing.assert_allclose(out, module(batch).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_traced():
    module, x = neck(), features((2, 12, 2, 3))
    traced = torch.jit.trace(module, x)
    more = features((5, 12, 2, 3))
    torch.testing.assert_close(traced(more), module(more))


def test_shapes_without_data():
    x = torch.empty(2, 12, 4, 4, device='meta')
    assert global_covariance_pooling(x).shape == (2, 78)
    with torch._subclasses.FakeTensorMode():
        assert global_covariance_pooling(torch.empty(2, 12, 4, 4)).shape == (2, 78)
    assert global_covariance_pooling(torch.ones(2, 12, 4, 4)).shape == (2, 78)
