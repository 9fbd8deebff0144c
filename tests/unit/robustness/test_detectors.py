"""The corruption of the images of a detector's dataset."""

import pytest
from mmdet.datasets import CocoDataset
from mmengine.dataset import ConcatDataset, RepeatDataset

from gcp_mm.robustness.corruptions import CorruptImage
from gcp_mm.robustness.detectors import corrupt_images
from gcp_mm.robustness.errors import CORRUPTIONS

LOAD = dict(type='mmdet.LoadImageFromFile')
REST = [dict(type='mmdet.LoadAnnotations'), dict(type='mmdet.PackDetInputs')]


def dataset(*pipelines):
    parts = [CocoDataset(pipeline=steps, lazy_init=True) for steps in pipelines]
    return parts[0] if len(parts) == 1 else ConcatDataset(parts, lazy_init=True)


def test_images_are_corrupted_right_after_their_loading():
    before = dataset([LOAD, *REST], [dict(type='LoadCheckedImage'), *REST])
    changed = corrupt_images(before, 'fog', 2)
    for one, old in zip(changed.datasets, before.datasets, strict=True):
        load, step, *rest = one.pipeline.transforms
        assert isinstance(step, CorruptImage)
        assert (step.corruption, step.severity) == ('fog', 2)
        assert [load, *rest] == old.pipeline.transforms


@pytest.mark.parametrize(
    'clean',
    [
        dataset(REST),
        dataset([LOAD, *REST], REST),
        dataset([dict(type='mmdet.LoadMultiChannelImageFromFiles'), *REST]),
        RepeatDataset(dataset([LOAD, *REST]), 2, lazy_init=True),
    ],
    ids=['none', 'one of two', 'another', 'wrapped'],
)
def test_images_that_would_stay_clean_are_an_error(clean):
    with pytest.raises(ValueError, match=r'test_dataloader: .*Dataset loads no image'):
        corrupt_images(clean, CORRUPTIONS[-1], 2)
