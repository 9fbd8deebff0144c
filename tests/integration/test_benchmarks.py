"""The benchmarks compare what they say they compare, and write what they say they write."""

import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gcp_mm.ops import covariance, global_covariance_pooling, triu_vector
from tests.helpers.runs import ROOT

TOOLS = ROOT / 'tools/benchmarks'


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def assert_same(found, expected, *shape):
    """Two functions of the features have the same value and gradient, in float64."""
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    outs = found(x), expected(x)
    grad = torch.randn_like(outs[0])
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, grad)[0] for out in outs))


@pytest.mark.parametrize('shape', [(2, 8, 20), (3, 12, 5)])
@pytest.mark.parametrize('iterations', [2, 3, 5])
def test_textbook_layer_is_the_same_function(shape, iterations):
    from isqrt_cov import isqrt_cov

    ours = functools.partial(global_covariance_pooling, iterations=iterations)
    assert_same(lambda x: isqrt_cov(x, iterations), ours, *shape)


def numpy_root(x, root=np.sqrt):
    """A function of the covariances' eigenvalues over ||A||_F, (B, D(D+1)/2); in NumPy."""
    rows = []
    for sample in x.double().numpy():
        a = np.cov(sample, bias=True)
        norm = np.linalg.norm(a)
        lam, u = np.linalg.eigh(a / norm)
        matrix = u * root(lam.clip(0)) @ u.T * norm**0.5
        rows.append(matrix[np.triu_indices(len(a))])
    return torch.from_numpy(np.stack(rows))


@pytest.mark.parametrize(
    ('name', 'dtype', 'error'),
    [
        ('mpn_cov', torch.float64, 1e-12),
        ('mpn_cov', torch.float32, 1e-6),
        ('mpa_lya', torch.float64, 1e-7),
        ('mpa_lya', torch.float32, 1e-6),
    ],
)
def test_peers_give_the_exact_root(name, dtype, error):
    """Of covariances near the identity, where the Pade approximant is accurate to 1e-7."""
    import peers

    pool = getattr(peers, name)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 900, dtype=dtype, generator=generator, requires_grad=True)
    out = pool(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.detach().double(), numpy_root(x.detach()), atol=error, rtol=0)
    weight = torch.randn(out.shape, dtype=dtype, generator=generator)
    found = torch.autograd.grad(out, x, weight)[0]
    y = x.detach().double().requires_grad_()
    expected = torch.autograd.grad(matrix_root(y), y, weight.double())[0]
    # 10: the approximant's derivative is that of the root at its own value
    allowed = 10 * error * expected.abs().max().item()
    torch.testing.assert_close(found.double(), expected, atol=allowed, rtol=0)


def matrix_root(x):
    """The root with autograd's own derivative of the eigendecomposition."""
    lam, u = torch.linalg.eigh(covariance(x))
    return triu_vector(u * lam.sqrt()[:, None] @ u.mT)


def test_peers_of_rank_deficient_covariances():
    """MPN-COV remains exact; the Pade approximant turns an eigenvalue 0 into 1/11."""
    import peers

    assert_same(peers.mpn_cov, lambda x: global_covariance_pooling(x, norm='eigh'), 2, 8, 5)

    def approximant(lam):
        plus, minus = (1 + lam**0.5) ** 11, (1 - lam**0.5) ** 11
        return np.divide(
            lam**0.5 * (plus + minus), plus - minus, np.full_like(lam, 1 / 11), where=lam > 1e-12
        )

    x = torch.randn(2, 8, 5, dtype=torch.float64)
    torch.testing.assert_close(peers.mpa_lya(x), numpy_root(x, approximant))


def test_bilinear_peer_is_the_same_function():
    from peers import bilinear

    assert_same(bilinear, lambda x: global_covariance_pooling(x, norm='signed_sqrt_l2'), 2, 8, 20)


def test_saved_memory_is_counted():
    from measure import saved_bytes

    x = torch.randn(1000, requires_grad=True)
    assert saved_bytes(lambda: x.exp(), x) == 4000  # the result
    assert saved_bytes(lambda: x.square(), x) == 0  # the input alone


def test_rows_of_the_layer():
    """Errors against the reference a row names, times over the floor of its kind."""
    import benchmark_gcp as benchmark

    candidates = benchmark.CANDIDATES | benchmark.METHODS
    del candidates[benchmark.EXTENSION]
    args = SimpleNamespace(device=torch.device('cpu'), repeats=1, seconds=0)
    rows = {row['candidate']: row for row in benchmark.measure(candidates, 16, 40, 2, args)}
    assert rows.keys() == candidates.keys()
    for name, row in rows.items():
        if name == 'DropCov, training':  # draws channels
            assert row['reference'] is row['output error'] is row['gradient error'] is None
        elif name != 'MPA-Lya, Pade and Lyapunov':
            assert row['output error'] < 5e-6
            assert row['gradient error'] < 5e-6
    assert 1e-5 < rows['MPA-Lya, Pade and Lyapunov']['output error'] < 0.1
    assert rows['auto']['reference'] == '5 iterations'
    assert rows['auto']['output error'] < 1e-3 * rows['auto']['to exact root']
    for name in ('MPN-COV, eigh in float64', 'eigh', 'power'):
        assert rows[name]['reference'] == 'exact root'
        assert rows[name]['to exact root'] == rows[name]['output error']
    assert rows['log']['to exact root'] is None

    def ratio(name, floor):
        return rows[name]['forward + backward ms'] / rows[floor]['forward + backward ms']

    for name in ('auto', 'GAP', 'DropCov, training', 'plain covariance'):
        assert rows[name]['x covariance'] == pytest.approx(ratio(name, 'plain covariance'))
    assert rows['SoT, svPN']['x covariance'] == pytest.approx(ratio('SoT, svPN', 'SoT, no norm'))


def test_sot_candidates_are_the_head():
    import benchmark_gcp as benchmark

    from gcp_mm.models.sot_head import SoTHead

    tokens = torch.randn(2, 9, 288)
    for name, norm in (('SoT, no norm', 'none'), ('SoT, svPN', 'svpn')):
        head = SoTHead(3, 288, num_heads=6, width=24, class_tokens=0, norm=norm).eval()
        head.project = torch.nn.Identity()
        if norm == 'svpn':
            torch.nn.init.ones_(head.start)
        _, expected = head.pre_logits((tokens,))
        found = benchmark.METHODS[name].pool(tokens)
        torch.testing.assert_close(found.flatten(1), expected)


@pytest.mark.slow
def test_layer(run_tool, tmp_path):
    sizes = ('--channels', '16', '--positions', '9', '25', '--batch', '2')
    short = ('--repeats', '1', '--seconds', '0', '--methods', '--profile', '--out', tmp_path)
    result = run_tool(TOOLS / 'benchmark_gcp.py', *sizes, *short)
    assert result.returncode == 0, result.stdout
    rows = json.loads((tmp_path / 'gcp.json').read_text())['rows']
    assert {(row['D'], row['N'], row['B']) for row in rows} == {(16, 9, 2), (16, 25, 2)}
    saved = {row['candidate']: row['saved MiB/image'] for row in rows}
    assert 0 < saved['auto'] < saved['textbook iSQRT-COV']
    assert {'GAP', 'MPA-Lya, Pade and Lyapunov', 'SoT, svPN'} <= set(saved)
    assert '| 16 | 25 | 2 | auto | ' in result.stdout
    for name in ('D = 16, N = 9, B = 2', 'D = 16, N = 25, B = 2', 'aten::bmm'):
        assert name in result.stdout


@pytest.mark.slow
def test_training_step(run_tool, tmp_path):
    options = ('--depth', '18', '--batch', '2', '3', '--precision', 'fp32', 'bf16', '--size', '32')
    result = run_tool(TOOLS / 'benchmark_train.py', *options, '--repeats', '1', '--out', tmp_path)
    assert result.returncode == 0, result.stdout
    rows = json.loads((tmp_path / 'train.json').read_text())['rows']
    found = {(row['network'], row['batch'], row['precision']) for row in rows}
    assert len(found) == len(rows) == 2 * 2 * 5
    row = next(row for row in rows if row['network'] == 'ResNet-18, GAP, no down-sampling')
    assert row['ratio to GAP of the same backbone'] == 1
    assert row['images/s'] == pytest.approx(1000 / row['training ms/image'])


@pytest.mark.slow
def test_evaluation_beside_the_official_loop(run_tool, tmp_path):
    """The tool itself compares what the two loops give to the network."""
    arguments = ['--images', 40, '--corrupt', 1, '--repeats', 1, '--workers', 0, '--out', tmp_path]
    done = run_tool(TOOLS / 'benchmark_robustness.py', *map(str, arguments))
    assert done.returncode == 0, done.stdout
    rows = json.loads((tmp_path / 'evaluation.json').read_text())['rows']
    assert all(row['images a second'] > 0 for row in rows)
    rows = json.loads((tmp_path / 'making.json').read_text())['rows']
    assert rows[0]['processes'] == 1
