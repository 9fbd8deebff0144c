"""The robustness metrics against the published numbers and against direct computations."""

import json
import re

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from gcp_mm.robustness import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    PERTURBATIONS,
    Robustness,
    corruption_errors,
    flip_probability,
    flip_rates,
    load_baseline,
    mean_corruption_error,
    mean_flip_rate,
    mean_top5_distance,
    relative_mean_corruption_error,
    top5_distance,
    video_stability,
)
from gcp_mm.robustness.baseline import mean_of
from gcp_mm.robustness.report import compare, plot, report, summarise

# Means over the severities as published, of which alexnet.json has the five values
ALEXNET_MEANS = dict(
    **dict(gaussian_noise=0.886428, shot_noise=0.894468, impulse_noise=0.922640),
    **dict(defocus_blur=0.819880, glass_blur=0.826268, motion_blur=0.785948, zoom_blur=0.798360),
    **dict(snow=0.866816, frost=0.826572, fog=0.819324, brightness=0.564592, contrast=0.853204),
    **dict(elastic_transform=0.646056, pixelate=0.717840, jpeg_compression=0.606500),
    **dict(speckle_noise=0.845388, gaussian_blur=0.787108, spatter=0.717512, saturate=0.658248),
)
# Published top-1 accuracies (%) of ResNet-50, in the order of the 15 corruptions
RESNET50 = (29.29, 27.03, 23.81, 38.75, 26.79, 38.67, 36.24, 32.53, 38.14, 45.83, 68.02, 39.06)
RESNET50 += (45.25, 44.79, 53.41)


@pytest.fixture(scope='module')
def alexnet():
    return load_baseline()


@pytest.fixture
def resnet50():
    return {name: 1 - top1 / 100 for name, top1 in zip(CORRUPTIONS, RESNET50, strict=True)}


def test_alexnets_errors_are_the_published_ones(alexnet):
    assert set(alexnet.corruption_error) == set(CORRUPTIONS + EXTRA_CORRUPTIONS)
    means = {name: np.mean(errors) for name, errors in alexnet.corruption_error.items()}
    assert means == pytest.approx(ALEXNET_MEANS, abs=1e-9)


def test_alexnet_has_100_in_all_metrics(alexnet):
    errors = alexnet.corruption_error
    assert mean_corruption_error(errors) == 100
    assert relative_mean_corruption_error(errors, alexnet.clean_error) == 100
    assert mean_flip_rate(alexnet.flip_probability) == 100
    assert mean_top5_distance(alexnet.top5_distance) == 100
    assert mean_corruption_error(ALEXNET_MEANS) == pytest.approx(100, abs=1e-9)


def test_resnet50_has_the_published_metrics(resnet50):
    assert round(mean_corruption_error(resnet50), 2) == 76.70
    assert round(relative_mean_corruption_error(resnet50, 0.2387), 2) == 104.95


def test_names_count_and_not_positions(resnet50):
    backwards = dict(reversed(resnet50.items()))
    assert mean_corruption_error(backwards) == pytest.approx(mean_corruption_error(resnet50))


def test_extra_corruptions_do_not_enter(resnet50):
    extended = dict(resnet50, **dict.fromkeys(EXTRA_CORRUPTIONS, 1.0))
    assert mean_corruption_error(extended) == mean_corruption_error(resnet50)
    assert relative_mean_corruption_error(extended, 0.2) == relative_mean_corruption_error(
        resnet50, 0.2
    )


def test_five_severities_count_as_their_mean(resnet50):
    spread = {
        name: [error - 0.1, error, error, error, error + 0.1] for name, error in resnet50.items()
    }
    assert mean_corruption_error(spread) == pytest.approx(mean_corruption_error(resnet50))


def test_missing_corruptions_are_named(resnet50):
    del resnet50['fog'], resnet50['pixelate']
    for function in (mean_corruption_error, lambda e: relative_mean_corruption_error(e, 0.2)):
        with pytest.raises(ValueError, match='fog, pixelate missing'):
            function(resnet50)


@pytest.mark.parametrize('wrong', [29.29, -0.1, float('nan'), [0.1] * 4, []])
def test_wrong_errors_are_refused(resnet50, wrong):
    with pytest.raises(ValueError, match=r"errors\['snow'\]: expected"):
        mean_corruption_error(dict(resnet50, snow=wrong))


def test_percent_for_the_clean_error_is_refused(resnet50):
    with pytest.raises(ValueError, match='clean_error: expected a fraction'):
        relative_mean_corruption_error(resnet50, 23.87)


def test_baseline_without_errors_has_no_ratio(resnet50, alexnet):
    perfect = Robustness('x', {}, 0.1, dict(alexnet.corruption_error, frost=0.0, fog=0.05))
    assert np.isnan(corruption_errors(resnet50, perfect)['frost'])
    with pytest.raises(ValueError, match='not above 0 for frost:'):
        mean_corruption_error(resnet50, perfect)
    with pytest.raises(ValueError, match='not above 0 for frost, fog:'):
        relative_mean_corruption_error(resnet50, 0.2, perfect)
    with pytest.raises(ValueError, match='the baseline x has no clean error'):
        relative_mean_corruption_error(resnet50, 0.2, Robustness('x', {}))


def test_missing_perturbations_are_named(alexnet):
    flips = {name: 0.1 for name in PERTURBATIONS if name not in ('tilt', 'scale')}
    with pytest.raises(ValueError, match='flip probability: tilt, scale missing'):
        mean_flip_rate(flips)
    with pytest.raises(ValueError, match='top-5 distance: tilt, scale missing'):
        mean_top5_distance(flips)
    assert flip_rates(flips, names=['snow']) == {'snow': pytest.approx(10 / 0.1193)}


@pytest.mark.parametrize(
    ('noise', 'difficulty', 'expected'), [(False, 1, 1), (False, 2, 0), (True, 1, 2 / 3)]
)
@pytest.mark.parametrize('kind', [list, np.array, torch.tensor])
def test_flip_probability_of_alternating_predictions(kind, noise, difficulty, expected):
    video = [0, 1, 0, 1]
    assert flip_probability(kind(video), noise, difficulty) == expected
    assert flip_probability(kind([video, video]), noise, difficulty) == expected


def test_flip_probability_is_a_mean_over_videos_of_any_length():
    videos = [[0, 1], [2] * 40, [3, 3, 4]]
    assert flip_probability(iter(videos), noise=False) == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert flip_probability(videos, noise=True) == pytest.approx((1 + 0 + 1 / 2) / 3)


@pytest.mark.parametrize(
    ('predictions', 'difficulty', 'message'),
    [
        ([1], 1, 'a video of 1 frames: at least 2 are needed'),
        ([[1, 2], [1, 2]], 2, 'a video of 2 frames: at least 3 are needed'),
        ([], 1, 'at least one video'),
        ([1, 2], 0, 'difficulty: expected at least 1, got 0'),
    ],
)
def test_too_few_frames(predictions, difficulty, message):
    with pytest.raises(ValueError, match=message):
        flip_probability(predictions, False, difficulty)


def logits_with_ranking(classes):
    """Logits that rank `classes` in this order."""
    logits = np.empty(len(classes))
    logits[list(classes)] = -np.arange(len(classes))
    return logits


@pytest.mark.parametrize('kind', [np.asarray, torch.tensor])
@pytest.mark.parametrize(
    ('before', 'after', 'expected'),
    [
        (range(12), range(12), 0),
        (range(12), [1, 0, *range(2, 12)], 2),
        (range(12), [0, 1, 2, 3, 5, 4, *range(6, 12)], 1),
        (range(12), range(11, -1, -1), 15),
        (range(12), [*range(1, 10), 0, 10, 11], 9),  # the top class to rank 10
        ([*range(1, 10), 0, 10, 11], range(12), 5),
    ],
)
def test_top5_distance_of_permutations(kind, before, after, expected):
    reference, later = kind(logits_with_ranking(before)), kind(logits_with_ranking(after))
    assert top5_distance(reference, later) == expected


def direct_distance(reference, later):
    """The definition, by scipy's ranks of the negated logits, ties in the order of the classes."""
    first, second = (rankdata(-np.asarray(x), method='ordinal') for x in (reference, later))
    inverse = np.argsort(first)
    return sum(abs(min(second[inverse[i]], 6) - (i + 1)) for i in range(min(5, len(first))))


@pytest.mark.parametrize('classes', [2, 5, 6, 10, 1000])
def test_top5_distance_is_the_definition_with_ties(classes):
    rng = np.random.default_rng(classes)
    # Few values, so that there are ties everywhere.
    reference, later = rng.integers(0, 4, (2, 3, 50, classes)).astype(np.float32)
    distance = top5_distance(reference, later)
    assert distance.shape == (3, 50)
    expected = [
        [direct_distance(*pair) for pair in zip(*rows, strict=True)]
        for rows in zip(reference, later, strict=True)
    ]
    np.testing.assert_array_equal(distance, expected)
    assert distance.max() <= 18


def test_nan_has_no_rank():
    logits = torch.zeros(2, 10)
    logits[1, 3] = torch.nan
    with pytest.raises(ValueError, match='NaN'):
        top5_distance(logits[0], logits[1])
    with pytest.raises(ValueError, match=r'got \(10,\) and \(9,\)'):
        top5_distance(torch.zeros(10), torch.zeros(9))


@pytest.mark.parametrize(('noise', 'difficulty'), [(True, 1), (False, 1), (False, 3), (True, 3)])
def test_stability_of_a_video_is_the_direct_one(noise, difficulty):
    logits = np.random.default_rng(0).normal(size=(7, 20))
    pairs = [(0, j) for j in range(1, 7)]
    if not noise:
        pairs = [(j - difficulty, j) for j in range(difficulty, 7)]
    flips, distance = video_stability(logits, noise, difficulty)
    assert flips == np.mean([logits[i].argmax() != logits[j].argmax() for i, j in pairs])
    assert distance == pytest.approx(
        np.mean([direct_distance(logits[i], logits[j]) for i, j in pairs])
    )


def test_baseline_file_goes_and_comes_back(alexnet, tmp_path):
    alexnet.save(tmp_path / 'baseline.json')
    assert load_baseline(tmp_path / 'baseline.json') == alexnet


@pytest.mark.parametrize('text', ['{', '[]', '{"name": "x"}', '{"name": "x", "errors": {}}'])
def test_wrong_baseline_file_is_named(tmp_path, text):
    path = tmp_path / 'baseline.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_baseline(path)


def test_mean_of_networks(alexnet, resnet50):
    other = Robustness('o', {}, 0.2, resnet50, alexnet.flip_probability, alexnet.top5_distance)
    five = {name: [error] * 5 for name, error in resnet50.items()}
    only15 = {name: alexnet.corruption_error[name] for name in CORRUPTIONS}
    reduced = Robustness('a', {}, 0.4, only15, alexnet.flip_probability, alexnet.top5_distance)
    mean = mean_of(
        'm', [reduced, Robustness('o', {}, 0.2, five, other.flip_probability, other.top5_distance)]
    )
    assert mean.clean_error == pytest.approx(0.3)
    for name in CORRUPTIONS:
        expected = (np.array(only15[name]) + resnet50[name]) / 2
        np.testing.assert_allclose(mean.corruption_error[name], expected)
    assert mean.flip_probability == pytest.approx(alexnet.flip_probability)
    with pytest.raises(ValueError, match='not all were measured on the same'):
        mean_of('m', [alexnet, reduced])


def test_summary_of_alexnet_and_of_a_part_of_it(alexnet):
    summary, notes = summarise(alexnet, alexnet)
    assert [summary[key] for key in ('mCE', 'Rel. mCE', 'mFR', 'mT5D')] == [100] * 4
    assert summary['clean error'] == pytest.approx(43.478)
    assert summary['error'] == pytest.approx(100 * np.mean([ALEXNET_MEANS[c] for c in CORRUPTIONS]))
    assert summary['flip probability'] == pytest.approx(14.046)
    assert not notes
    errors = {name: e for name, e in alexnet.corruption_error.items() if name != 'fog'}
    part = Robustness('part', {}, None, errors, {'snow': 0.1}, {'snow': 2.0})
    page = report(part, alexnet)
    assert '| part | - | - | - | - |' in page
    assert 'no mCE: corruption error: fog missing' in page
    assert 'no Rel. mCE: it needs the clean error' in page
    assert 'no mFR: flip probability: gaussian_noise, shot_noise' in page
    assert re.search(r'^\| frost \| 61.39 \|.*\| 82.66 \| 100.00 \| - \|$', page, re.M)
    assert '| snow | 10.00 | 2.000 | 83.82 | 82.30 |' in page


def test_tables_and_picture_of_several_networks(alexnet, tmp_path):
    half = json.loads(json.dumps(alexnet.corruption_error), parse_float=lambda x: float(x) / 2)
    groups = {'whole': [alexnet], 'both': [alexnet, Robustness('half', {}, 0.1, half)]}
    page = '\n'.join(compare(groups, alexnet))
    assert '| whole | 100.0 | 100.0 | 100.0 | 100.0 |' in page
    assert '| both | 75.0 ± 35.4 |' in page
    plot(groups, alexnet, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').read_bytes()[:4] == b'\x89PNG'
    # The mean of three equal numbers may be off by a rounding error: no whisker is negative.
    uneven = {name: k / 97 for k, name in enumerate(alexnet.corruption_error)}
    plot({'equal': [Robustness('uneven', {}, 0.1, uneven)] * 3}, alexnet, tmp_path / 'plot.png')
    with pytest.raises(ValueError, match='nothing to draw'):
        plot({'x': [Robustness('x', {})]}, alexnet, tmp_path / 'none.png')
