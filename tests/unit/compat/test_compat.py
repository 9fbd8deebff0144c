"""Mixtures of packages are named, and what the supported versions stumble over is mended."""

import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.evaluation.metrics import retrieval

from gcp_mm.compat.families import FAMILIES, check_families, distributions
from gcp_mm.compat.requirements import installed_family


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
