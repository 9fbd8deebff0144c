"""Means of networks, tables and pictures."""

import re
from dataclasses import replace

import numpy as np
import pytest

from gcp_mm.robustness.baseline import Robustness, load_baseline, mean_of
from gcp_mm.robustness.errors import CORRUPTIONS, SCENE_PARTS
from gcp_mm.robustness.report import compare, plot, report, report_detector, summarize
from gcp_mm.robustness.stability import PERTURBATIONS
from tests.helpers.published_errors import ALEXNET_MEANS, RESNET50


@pytest.fixture(scope='module')
def alexnet():
    return load_baseline()


def test_mean_of_networks(alexnet):
    stability = (alexnet.flip_probability, alexnet.top5_distance)
    alexnet15 = {name: alexnet.corruption_error[name] for name in CORRUPTIONS}
    resnet50 = {name: [error] * 5 for name, error in RESNET50.items()}
    one = Robustness('a', 0.4, alexnet15, *stability)
    mean = mean_of('m', [one, Robustness('o', 0.2, resnet50, *stability)])
    assert mean.clean_error == pytest.approx(0.3)
    for name in CORRUPTIONS:
        expected = (np.array(alexnet15[name]) + RESNET50[name]) / 2
        np.testing.assert_allclose(mean.corruption_error[name], expected)
    assert mean.flip_probability == pytest.approx(alexnet.flip_probability)
    assert mean_of('m', [one, Robustness('x', None, alexnet15, *stability)]).clean_error is None
    with pytest.raises(ValueError, match=r'm: .* corruption_error'):
        mean_of('m', [alexnet, one])


def test_summary_of_alexnet(alexnet):
    summary, notes = summarize(alexnet, alexnet)
    assert [summary[key] for key in ('mCE', 'Rel. mCE', 'mFR', 'mT5D')] == [100] * 4
    assert summary['clean error'] == pytest.approx(43.478)
    assert summary['error'] == pytest.approx(100 * np.mean([ALEXNET_MEANS[c] for c in CORRUPTIONS]))
    assert summary['flip probability'] == pytest.approx(14.046)
    assert not notes


def test_report_of_a_part(alexnet):
    errors = {name: e for name, e in alexnet.corruption_error.items() if name != 'fog'}
    part = Robustness('part', None, errors, {'snow': 0.1}, {'snow': 2})
    page = report(part, alexnet)
    assert '| part | - | - | - | - |' in page
    assert 'no mCE: corruption error: fog missing' in page
    assert 'no Rel. mCE: the network has no clean error' in page
    assert 'no mFR: flip probability: gaussian_noise, shot_noise' in page
    assert 'no mT5D: top-5 distance: gaussian_noise, shot_noise' in page
    assert re.search(r'^\| frost \| 61.39 \|.*\| 82.66 \| 100.00 \| - \|$', page, re.M)
    assert '| snow | 10.00 | 2.000 | 83.82 | 82.30 |' in page
    other = Robustness('other', None, alexnet.corruption_error)
    page = report(alexnet, other)
    assert 'no Rel. mCE: the baseline other has no clean error' in page
    assert 'no mFR: flip probability: the baseline has none above 0 for gaussian_noise' in page


@pytest.mark.parametrize('shared', [True, False])
def test_intervals_over_the_sequences(alexnet, shared):
    """Two groups a hundredth below and above AlexNet's numbers, in step or taking turns."""
    part = Robustness('p', None, {}, alexnet.flip_probability, alexnet.top5_distance)
    parts = {}
    for k, name in enumerate(PERTURBATIONS):
        signs = (1, -1) if shared or k % 2 else (-1, 1)
        parts[f'imagenet-p/{name}'] = dict(
            groups={
                key: [getattr(part, key)[name] * (1 + sign / 100) for sign in signs]
                for key in ('flip_probability', 'top5_distance')
            },
            files=9,
            skipped=[],
        )
    page = report(part, alexnet, parts)
    half = 12.706  # percent: the quantile of t with one degree of freedom, times an error of 1
    assert f'| scale | 23.53 ± {23.53 * half / 100:.2f} | 4.510 ± {4.51 * half / 100:.3f} |' in page
    whole = f'{half:.2f}' if shared else '0.00'  # turns cancel over the ten perturbations
    assert f'That of mFR is {whole}, that of mT5D {whole}.' in page
    without = {name: flips for name, flips in alexnet.flip_probability.items() if name != 'snow'}
    assert 'That of mFR is -, that' in report(
        part, replace(alexnet, flip_probability=without), parts
    )
    parts['imagenet-p/snow']['files'] = 8  # others are then in its groups
    assert 'That of' not in report(part, alexnet, parts)
    parts['imagenet-p/snow'] = dict(files=9, skipped=[])  # of an earlier version
    page = report(part, alexnet, parts)
    assert '| snow | 11.93 | 2.430 |' in page
    assert 'That of' not in page


def test_tables_and_picture_of_several_networks(alexnet, tmp_path):
    half = {name: [e / 2 for e in error] for name, error in alexnet.corruption_error.items()}
    groups = {'whole': [alexnet], 'both': [alexnet, Robustness('half', 0.1, half)]}
    page = compare(groups, alexnet)
    assert '| whole | 100.0 | 100.0 | 100.0 | 100.0 |' in page
    assert '| both | 75.0 ± 35.4 |' in page
    assert 'deviation of 1-2 runs' in page
    plot(groups, alexnet, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').read_bytes()[:4] == b'\x89PNG'
    with pytest.raises(ValueError, match='nothing to draw'):
        plot({'x': [Robustness('x')]}, alexnet, tmp_path / 'none.png')


def test_report_of_a_detector():
    """The AP of boxes falls by a tenth with each severity, that of masks is half."""
    box, mask, small = 'coco/bbox_mAP', 'coco/segm_mAP', 'coco/bbox_mAP_s'
    parts = {'clean': {box: 0.4, mask: 0.2, small: -1.0}}
    for key in SCENE_PARTS:
        ap = 0.4 - 0.04 * int(key[-1])
        parts[key] = {box: ap, mask: ap / 2, small: -1.0}
    results = dict(name='A', images=5, skipped=[dict(reason='a.png: truncated')], parts=parts)
    page = report_detector(results)
    assert '# Robustness of A\n\n5 images.' in page
    assert f'| {box} | 0.400 | 0.280 | 70.0 |' in page
    assert f'| {small} | -1.000 | - | - |' in page
    assert '| fog | 0.360 | 0.320 | 0.280 | 0.240 | 0.200 | 0.280 |' in page
    assert page.count('| fog |') == 2  # of boxes and of masks
    assert 'no mPC' not in page
    assert '## 1 images left out\n\n- a.png: truncated' in page
    del parts['fog/2']
    page = report_detector(results)
    assert '1 of 75 parts missing: fog/2' in page
    assert f'| {box} | 0.400 | - | - |' in page
    assert '| fog | 0.360 | - | 0.280 | 0.240 | 0.200 | - |' in page
    page = report_detector(
        dict(results, parts={'clean': {'recall': 0.5}, 'fog/1': {'recall': 0.1}})
    )
    assert '## recall' in page
    assert page.count('| fog |') == 1
    assert 'missing: gaussian_noise/1,' in page
