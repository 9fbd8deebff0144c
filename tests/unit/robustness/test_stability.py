"""Flip probability and top-5 distance against direct computations."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from gcp_mm.robustness.stability import flip_probability, top5_distance, video_stability


@pytest.mark.parametrize(('noise', 'expected'), [(False, 1), (True, 2 / 3)])
@pytest.mark.parametrize('kind', [list, np.array, torch.tensor, iter])
def test_flip_probability_of_alternating_predictions(kind, noise, expected):
    video = [0, 1, 0, 1]
    assert flip_probability(kind(video), noise) == expected
    assert flip_probability(kind([video, video]), noise) == expected


def test_flip_probability_is_a_mean_over_videos_of_any_length():
    videos = [[0, 1], [2] * 40, [3, 3, 4]]
    for noise in (False, True):
        assert flip_probability(videos, noise) == pytest.approx((1 + 0 + 1 / 2) / 3)


@pytest.mark.parametrize(
    ('predictions', 'message'), [([1], '1 frames: at least 2'), ([], 'at least one video')]
)
def test_too_few_frames(predictions, message):
    with pytest.raises(ValueError, match=message):
        flip_probability(predictions, noise=False)


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
    with pytest.raises(ValueError, match=r'\(10,\) and \(9,\)'):
        top5_distance(torch.zeros(10), torch.zeros(9))


@pytest.mark.parametrize('noise', [True, False])
def test_stability_of_a_video_is_the_direct_one(noise):
    logits = np.random.default_rng(0).normal(size=(7, 20))
    pairs = [(0 if noise else j - 1, j) for j in range(1, 7)]
    flips, distance = video_stability(logits, noise)
    assert flips == np.mean([logits[i].argmax() != logits[j].argmax() for i, j in pairs])
    expected = np.mean([direct_distance(logits[i], logits[j]) for i, j in pairs])
    assert distance == pytest.approx(expected)
