"""The pooling as compilers take it, and the neck as the older ONNX exporter does.

test_export_networks.py has the other exporters.
"""

import inspect

import numpy as np
import pytest
import torch

from gcp_mm.export import check_target
from gcp_mm.models import GlobalCovariancePooling
from gcp_mm.ops import global_covariance_pooling, triangle
from tests.helpers.reference import features

SHAPES = [(2, 6, 4), (2, 5, 12)]  # the Gram matrix and the covariance
METHODS = ['auto', 'newton_schulz']


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

    x = features(*shape).requires_grad_()
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
    x = features(2, 6, 4)
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
    for shape in [(2, 6, 4), (3, 8, 4), (2, 5, 12), (4, 7, 20)]:
        x = features(*shape)
        expected = global_covariance_pooling(x)
        torch.testing.assert_close(pool(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('size', [(12, 2, 3), (12, 9, 9)], ids=['gram', 'covariance'])
def test_older_onnx_exporter(size, tmp_path):
    """The one that torch.onnx.export has without dynamo, and alone before PyTorch 2.5."""
    onnxruntime = pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    module = GlobalCovariancePooling(12, reduction=(8,)).eval()
    x, path = features(2, *size), tmp_path / 'network.onnx'
    options = dict(input_names=['x'], dynamic_axes=dict(x={0: 'batch'}))
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        options['dynamo'] = False
    torch.onnx.export(module, (x,), str(path), **options)
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    for batch in (x, features(5, *size)):
        (out,) = session.run(None, dict(x=batch.numpy()))
        np.testing.assert_allclose(out, module(batch).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_shapes_without_data():
    x = torch.empty(2, 12, 4, 4, device='meta')
    assert global_covariance_pooling(x).shape == (2, 78)
    with torch._subclasses.FakeTensorMode():
        assert global_covariance_pooling(torch.empty(2, 12, 4, 4)).shape == (2, 78)
    assert global_covariance_pooling(torch.ones(2, 12, 4, 4)).shape == (2, 78)


def test_programs_need_a_version_that_has_them(monkeypatch, tmp_path):
    """As before PyTorch 2.2; the other formats do not."""
    monkeypatch.delattr(torch.export, 'Dim', raising=False)
    with pytest.raises(ValueError, match=r"x\.pt2': PyTorch .* take \.onnx or \.pt"):
        check_target(tmp_path / 'x.pt2')
    check_target(tmp_path / 'x.pt')
