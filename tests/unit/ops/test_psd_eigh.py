"""Eigendecompositions that do not fail on singular matrices, whatever the processor."""

import pytest
import torch

from gcp_mm.ops import global_covariance_pooling
from gcp_mm.ops.psd_eigh import psd_spectrum

DTYPES = [torch.float32, torch.float64]


def mostly_zero(seed, dtype):
    """(n, 60), seven rows of eight are zero, at random places; any scale."""
    generator = torch.Generator().manual_seed(seed)
    n = int(torch.randint(100, 400, (), generator=generator))
    x = torch.randn(n, 60, generator=generator, dtype=dtype).relu()
    x[torch.randperm(n, generator=generator)[n // 8 :]] = 0
    return x * 10 ** float(torch.empty(()).uniform_(-6, 6, generator=generator))


def assert_decomposes(a):
    lam, u = psd_spectrum(a)
    tolerance = len(a) * torch.finfo(a.dtype).eps  # of a backward stable algorithm
    a, lam, u = a.double(), lam.double(), u.double()
    assert ((u * lam) @ u.mT - a).norm() <= tolerance * a.norm()
    assert (u.mT @ u - torch.eye(len(a))).abs().max() <= tolerance
    assert (lam.diff() >= 0).all()


@pytest.mark.parametrize('dtype', DTYPES)
def test_mostly_zero_matrices(dtype):
    """torch.linalg.eigh fails on most of these in float32, the processor decides which ones."""
    for seed in range(20):
        x = mostly_zero(seed, dtype)
        assert_decomposes(x @ x.mT)


@pytest.mark.parametrize('dtype', DTYPES)
def test_equal_eigenvalues_and_zero(dtype):
    for a in (torch.eye(40), torch.ones(40, 40), torch.zeros(40, 40), torch.eye(1)):
        assert_decomposes(a.to(dtype))
    assert not psd_spectrum(torch.zeros(2, 40, 40, dtype=dtype))[0].any()


@pytest.mark.parametrize('dtype', DTYPES)
def test_graded_matrices_at_any_scale(dtype):
    """Squares of the entries leave the dtype's range, and entries are denormal numbers."""
    tiny, largest = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    x = torch.randn(150, 150, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x *= torch.logspace(0, -15, 150, dtype=torch.float64)[:, None]
    a = x @ x.mT / (x @ x.mT).max()
    for scale in (tiny, 1, largest / 1e3):
        assert_decomposes((a * scale).to(dtype))


def test_only_the_lower_triangle_is_read():
    x = mostly_zero(0, torch.float64)
    a = x @ x.mT
    for found, expected in zip(psd_spectrum(a.tril()), psd_spectrum(a), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_not_finite_is_refused(value):
    for n, i, j in ((6, 3, 3), (6, 5, 2), (40, 3, 3), (40, 5, 2)):
        a = torch.eye(n)
        a[i, j] = value
        with pytest.raises(torch.linalg.LinAlgError):
            psd_spectrum(a)


@pytest.mark.parametrize('dtype', DTYPES)
def test_pooling_of_mostly_dead_channels(dtype):
    for seed in range(8):
        x = mostly_zero(seed, dtype)[None].requires_grad_()
        out = global_covariance_pooling(x, norm='eigh')
        out.sum().backward()
        assert out.isfinite().all()
        assert x.grad.isfinite().all()
