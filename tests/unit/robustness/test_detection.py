"""mPC and rPC of detectors, their tables, and the parts of an evaluation."""

import re

import pytest
from mmengine.config import ConfigDict

from gcp_mm.robustness.detection import (
    main_metrics,
    performance,
    report_detector,
)
from gcp_mm.robustness.detectors import corrupt_images
from gcp_mm.robustness.errors import CORRUPTIONS
from gcp_mm.robustness.results import robustness_of

BOX, MASK = 'coco/bbox_mAP', 'coco/segm_mAP'


def results(name='A', factor=1.0, **changes):
    """Of all parts: the AP of boxes falls by a tenth with each severity, that of masks is half."""
    parts = {'clean': {BOX: 0.4 * factor, MASK: 0.2 * factor, 'coco/bbox_mAP_s': -1.0}}
    for number, corruption in enumerate(CORRUPTIONS):
        for severity in range(1, 6):
            ap = factor * (0.4 - 0.04 * severity - 0.001 * number)
            parts[f'{corruption}/{severity}'] = {BOX: ap, MASK: ap / 2, 'coco/bbox_mAP_s': -1.0}
    content = dict(name=name, checkpoint='a.pth', identity={}, roots={}, regenerated=[])
    content |= dict(images=5, skipped=[], parts=parts)
    return content | changes


def test_performance_is_a_mean_over_corruptions_and_severities():
    found = performance(results()['parts'])
    mean = 0.4 - 0.04 * 3 - 0.001 * 7
    assert found[BOX] == pytest.approx(dict(P=0.4, mPC=mean, rPC=mean / 0.4))
    assert found[MASK] == pytest.approx(dict(P=0.2, mPC=mean / 2, rPC=mean / 0.4))
    assert found['coco/bbox_mAP_s'] == pytest.approx(
        dict(P=-1, mPC=float('nan'), rPC=float('nan')), nan_ok=True
    )


def test_rpc_is_that_of_mmdetections_documentation():
    """Faster R-CNN with ResNet-50: AP 36.3, mPC 18.2, rPC 50.2 % by numbers of more digits."""
    parts = {key: {BOX: 0.182} for key in results()['parts']} | {'clean': {BOX: 0.363}}
    assert performance(parts)[BOX]['rPC'] == pytest.approx(0.502, abs=0.002)


def test_no_mean_without_all_parts():
    part = results()
    del part['parts']['fog/2']
    found = performance(part['parts'])[BOX]
    assert found['P'] == 0.4
    assert found == pytest.approx(dict(P=0.4, mPC=float('nan'), rPC=float('nan')), nan_ok=True)
    page = report_detector(part)
    assert '1 of 75 parts missing: fog/2' in page
    assert f'| {BOX} | 0.400 | - | - |' in page
    assert re.search(r'^\| fog \| 0\.351 \| - \| 0\.271 \| .* \| - \|$', page, re.M)


def test_detector_that_finds_nothing_on_clean_images_has_no_rpc():
    found = performance({key: {BOX: 0.0} for key in results()['parts']})[BOX]
    assert found == pytest.approx(dict(P=0, mPC=0, rPC=float('nan')), nan_ok=True)


def test_report():
    skipped = [dict(file='a.png', reason='a.png: truncated')]
    page = report_detector(results(skipped=skipped))
    assert f'| {BOX} | 0.400 | 0.273 | 68.2 |' in page
    assert '| coco/bbox_mAP_s | -1.000 | - | - |' in page
    assert '| gaussian_noise | 0.360 | 0.320 | 0.280 | 0.240 | 0.200 | 0.280 |' in page
    assert page.count('| gaussian_noise |') == 2  # of boxes and of masks
    assert 'no mPC' not in page
    assert '## 1 images left out\n\n- a.png: truncated' in page


def test_main_metrics():
    assert main_metrics([BOX, 'coco/bbox_mAP_50', MASK]) == [BOX, MASK]
    assert main_metrics(['recall', 'precision']) == ['recall', 'precision']


def test_results_of_a_detector_are_no_baseline():
    with pytest.raises(ValueError, match="'A' is a detector"):
        robustness_of(results())


LOAD = dict(type='mmdet.LoadImageFromFile')
REST = [dict(type='Resize'), dict(type='PackDetInputs')]


def loader(*pipelines):
    parts = [dict(type='CocoDataset', ann_file='a.json', pipeline=steps) for steps in pipelines]
    several = dict(type='ConcatDataset', datasets=parts)
    return ConfigDict(batch_size=1, dataset=parts[0] if len(parts) == 1 else several)


def test_images_are_corrupted_right_after_their_loading():
    before = loader([LOAD, *REST], [dict(type='LoadCheckedImage'), *REST])
    changed = corrupt_images(before, 'fog', 2)
    for dataset in changed.dataset.datasets:
        assert dataset.pipeline[1] == dict(type='CorruptImage', corruption='fog', severity=2)
        assert dataset.pipeline[2:] == REST
    assert before == loader([LOAD, *REST], [dict(type='LoadCheckedImage'), *REST])


@pytest.mark.parametrize(
    'config',
    [
        loader(REST),
        loader([LOAD, *REST], REST),
        loader([dict(type='LoadMultiChannelImageFromFiles'), *REST]),
        ConfigDict(dataset=dict(type='CocoDataset')),
    ],
    ids=['none', 'one of two', 'another', 'no files'],
)
def test_images_that_would_stay_clean_are_an_error(config):
    with pytest.raises(ValueError, match=r'test_dataloader: .* CocoDataset loads no image'):
        corrupt_images(config, 'fog', 2)


@pytest.mark.parametrize(('name', 'severity'), [('rain', 1), ('fog', 0), ('saturate', 1)])
def test_wrong_parts(name, severity):
    with pytest.raises(ValueError, match=f"'{name}'" if severity else 'got 0'):
        corrupt_images(loader([LOAD]), name, severity)
