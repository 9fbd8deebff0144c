"""Mixtures of packages are named, and what the supported versions stumble over is mended."""

import inspect
import sys
from collections import OrderedDict

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS, Registry
from mmpretrain.evaluation.metrics import retrieval
from mmpretrain.models.utils import ShiftWindowMSA

from gcp_mm.compat.lazy import register_lazily
from gcp_mm.compat.packages import FAMILIES, check_families, distributions, installed_family
from gcp_mm.compat.window_attention import windows_of_any_batch


@pytest.mark.parametrize('family', FAMILIES)
def test_one_family_passes(family):
    check_families(dict.fromkeys(distributions(family), '1.0'))
    check_families()  # this environment


def test_mixture_is_named():
    installed = {'mmcv-lite': '2.1.0', 'onedl-mmcv': '2.3.6', 'onedl-mmengine': '0.10.12'}
    with pytest.raises(ImportError, match='another: mmcv-lite and onedl-mmcv, onedl-mmengine'):
        check_families(installed)


def test_two_builds_of_mmcv():
    """mmcv-lite over mmcv leaves the compiled part, which fits if it is of the same version."""
    check_families({'mmcv-lite': '2.1.0', 'mmcv': '2.1.0'})
    with pytest.raises(ImportError, match=r'mmcv-lite 2.1.0 and mmcv 2.0.1 .* pip uninstall'):
        check_families({'mmcv-lite': '2.1.0', 'mmcv': '2.0.1'})


def test_in1d():
    """MMPretrain's retrieval metrics call it, which NumPy 2.4 has removed."""
    found = np.in1d([[3, 1], [4, 1]], [1, 5])
    assert found.tolist() == [False, True, False, True]


@pytest.mark.skipif(installed_family() == 'onedl', reason='their fork may call isin')
def test_in1d_is_still_needed():
    assert 'np.in1d(' in inspect.getsource(retrieval)


@pytest.mark.parametrize('factor', [-0.5, -0.2, -0.001, 0.0, 0.2, 0.5])
def test_hue_shifts_either_way(factor):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL))
    hue = ((hue.astype(int) + int(factor * 255)) % 256).astype(np.uint8)
    expected = cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2BGR_FULL)
    assert np.array_equal(mmcv.adjust_hue(image, factor, backend='cv2'), expected)


@pytest.mark.skipif(
    int(np.__version__.split('.')[0]) < 2 or not mmcv.__version__.startswith('2.1'),
    reason='NumPy 1 converts negative numbers, and the fork does not ask it to',
)
def test_negative_hue_is_still_needed():
    with pytest.raises(OverflowError):
        mmcv.adjust_hue.__wrapped__(np.zeros((4, 4, 3), np.uint8), -0.2, backend='cv2')


def test_color_jitter_shifts_hues():
    jitter = TRANSFORMS.build(dict(type='mmpretrain.ColorJitter', hue=0.5))
    image = np.full((4, 4, 3), (10, 100, 200), np.uint8)
    assert len({jitter(dict(img=image))['img'].tobytes() for _ in range(20)}) > 1


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


def test_class_is_imported_when_it_is_built(tmp_path, monkeypatch):
    (tmp_path / 'lazy_module.py').write_text('from collections import OrderedDict')
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry('things')
    register_lazily(registry, 'OrderedDict', 'lazy_module')
    assert 'lazy_module' not in sys.modules
    assert registry.get('OrderedDict').load_lazily() is OrderedDict
    assert registry.build(dict(type='OrderedDict', a=1)) == {'a': 1}
    assert sys.modules.pop('lazy_module')
