"""Mixtures of packages are named, and what the supported versions stumble over is mended."""

import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.evaluation.metrics import retrieval
from mmpretrain.models.utils import ShiftWindowMSA

from gcp_mm.compat.families import FAMILIES, check_families, distributions
from gcp_mm.compat.requirements import installed_family
from gcp_mm.compat.window_attention import windows_of_any_batch


@pytest.mark.parametrize('family', FAMILIES)
def test_one_family_passes(family):
    check_families(dict.fromkeys(distributions(family), '1.0'))


def test_this_environment_passes():
    check_families()


def test_mixture_is_named():
    installed = {'mmcv-lite': '2.1.0', 'onedl-mmcv': '2.3.6', 'onedl-mmengine': '0.10.12'}
    with pytest.raises(ImportError, match='another: mmcv-lite and onedl-mmcv, onedl-mmengine'):
        check_families(installed)


def test_two_builds_of_mmcv():
    """mmcv-lite over mmcv leaves the compiled part, which fits if it is of the same version."""
    check_families({'mmcv-lite': '2.1.0', 'mmcv': '2.1.0'})
    with pytest.raises(ImportError, match=r'mmcv-lite 2.1.0 and mmcv 2.0.1 .* pip uninstall'):
        check_families({'mmcv-lite': '2.1.0', 'mmcv': '2.0.1'})


def test_nothing_else_is_read(tmp_path):
    torch.save(dict(a=Path('x')), tmp_path / 'a.pth')
    with pytest.raises(pickle.UnpicklingError, match='weights_only'):
        torch.load(tmp_path / 'a.pth', weights_only=True)


def test_in1d():
    """MMPretrain's retrieval metrics call it, which NumPy 2.4 has removed."""
    found = np.in1d([[3, 1], [4, 1]], [1, 5])
    assert found.tolist() == [False, True, False, True]


@pytest.mark.skipif(installed_family() == 'onedl', reason='their fork may call isin')
def test_in1d_is_still_needed():
    assert 'np.in1d(' in inspect.getsource(retrieval)


@pytest.mark.parametrize('images', [1, 3])
@pytest.mark.parametrize('size', [(4, 6), (2, 2)])
def test_windows_are_put_together_as_mmpretrain_does(images, size):
    original = ShiftWindowMSA.window_reverse
    windows = torch.randn(images * size[0] * size[1] // 4, 2, 2, 5)
    with windows_of_any_batch():
        assert ShiftWindowMSA.window_reverse is not original
        found = ShiftWindowMSA.window_reverse(windows, *size, 2)
    assert ShiftWindowMSA.window_reverse is original
    assert torch.equal(found, original(windows, *size, 2))
    trace = torch.jit.trace(lambda x: original(x, *size, 2), windows)
    assert len(trace(torch.cat([windows] * 2))) == images  # else this would be superfluous
