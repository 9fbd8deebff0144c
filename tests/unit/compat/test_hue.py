"""The hue of images shifts either way, by the definition."""

import cv2
import mmcv
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

import gcp_mm  # noqa: F401


@pytest.mark.parametrize('factor', [-0.5, -0.2, -0.001, 0.0, 0.2, 0.5])
def test_shift(factor):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL))
    hue = ((hue.astype(int) + int(factor * 255)) % 256).astype(np.uint8)
    expected = cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2BGR_FULL)
    assert np.array_equal(mmcv.adjust_hue(image, factor, backend='cv2'), expected)


@pytest.mark.skipif(
    int(np.__version__.split('.')[0]) < 2 or not mmcv.__version__.startswith('2.1'),
    reason='NumPy 1 converts negative numbers, and the fork does not ask it to',
)
def test_mmcv_still_needs_it():
    with pytest.raises(OverflowError):
        mmcv.adjust_hue.__wrapped__(np.zeros((4, 4, 3), np.uint8), -0.2, backend='cv2')


def test_color_jitter():
    import mmpretrain.datasets  # noqa: F401  registers it

    jitter = TRANSFORMS.build(dict(type='mmpretrain.ColorJitter', hue=0.5))
    image = np.full((4, 4, 3), (10, 100, 200), np.uint8)
    results = {jitter(dict(img=image))['img'].tobytes() for _ in range(20)}
    assert len(results) > 1
