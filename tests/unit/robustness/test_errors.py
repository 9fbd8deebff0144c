"""mCE and Relative mCE against the published numbers; mPC and rPC."""

import numpy as np
import pytest

from gcp_mm.robustness.baseline import Robustness, load_baseline
from gcp_mm.robustness.errors import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SCENE_PARTS,
    corruption_errors,
    mean_corruption_error,
    performance,
    relative_mean_corruption_error,
)
from tests.helpers.published_errors import ALEXNET_MEANS, RESNET50


def test_alexnets_errors_are_the_published_ones():
    errors = load_baseline().corruption_error
    assert set(errors) == set(CORRUPTIONS + EXTRA_CORRUPTIONS)
    means = {name: np.mean(values) for name, values in errors.items()}
    assert means == pytest.approx(ALEXNET_MEANS, abs=1e-9)


def test_alexnet_has_100():
    alexnet = load_baseline()
    errors = alexnet.corruption_error
    assert mean_corruption_error(errors) == 100
    assert relative_mean_corruption_error(errors, alexnet.clean_error) == 100
    assert mean_corruption_error(ALEXNET_MEANS) == pytest.approx(100, abs=1e-9)


def test_resnet50_has_the_published_metrics():
    assert round(mean_corruption_error(RESNET50), 2) == 76.70
    assert round(relative_mean_corruption_error(RESNET50, 0.2387), 2) == 104.95


@pytest.mark.parametrize(
    'errors',
    [
        dict(reversed(RESNET50.items())),  # names count and not positions
        dict(RESNET50, **dict.fromkeys(EXTRA_CORRUPTIONS, 1.0)),  # the extra ones do not enter
        {name: [e - 0.1, e, e, e, e + 0.1] for name, e in RESNET50.items()},
        {name: np.array([e - 0.1, e, e, e, e + 0.1]) for name, e in RESNET50.items()},
    ],
)
def test_the_same_errors_in_other_forms(errors):
    assert mean_corruption_error(errors) == pytest.approx(mean_corruption_error(RESNET50))
    assert relative_mean_corruption_error(errors, 0.2) == pytest.approx(
        relative_mean_corruption_error(RESNET50, 0.2)
    )


def test_missing_corruptions_are_named():
    errors = {name: e for name, e in RESNET50.items() if name not in ('fog', 'pixelate')}
    assert corruption_errors(errors).keys() == errors.keys()
    for function in (mean_corruption_error, lambda e: relative_mean_corruption_error(e, 0.2)):
        with pytest.raises(ValueError, match='fog, pixelate missing'):
            function(errors)


@pytest.mark.parametrize('wrong', [29.29, -0.1, float('nan'), [0.1] * 4, [], np.full(5, 2.0)])
def test_wrong_errors_are_refused(wrong):
    with pytest.raises(ValueError, match=r"errors\['snow'\]"):
        mean_corruption_error(dict(RESNET50, snow=wrong))


@pytest.mark.parametrize('wrong', [23.87, -0.1, float('nan'), None])
def test_wrong_clean_errors_are_refused(wrong):
    with pytest.raises(ValueError, match=f'clean_error: .*{wrong}'):
        relative_mean_corruption_error(RESNET50, wrong)


def test_baseline_without_errors_has_no_ratio():
    errors = dict(load_baseline().corruption_error, frost=0.0, fog=0.05)
    perfect = Robustness('x', 0.1, errors)
    assert np.isnan(corruption_errors(RESNET50, perfect)['frost'])
    for baseline, message, metric, numbers in (
        (perfect, 'above 0 for frost$', mean_corruption_error, ()),
        (perfect, 'above 0 for frost, fog$', relative_mean_corruption_error, (0.2,)),
        (Robustness('x'), 'above 0 for gaussian_noise, ', mean_corruption_error, ()),
        (Robustness('x'), 'x has no clean error', relative_mean_corruption_error, (0.2,)),
    ):
        with pytest.raises(ValueError, match=message):
            metric(RESNET50, *numbers, baseline)


@pytest.mark.parametrize(
    ('clean', 'without', 'mean', 'rate'),
    [
        (0.4, '', 0.273, 0.273 / 0.4),
        (0.4, 'fog/2', np.nan, np.nan),
        (0.0, '', 0.273, np.nan),
        (-1.0, '', np.nan, np.nan),  # AP of objects of a size that the data lack
    ],
)
def test_performance_is_a_mean_over_corruptions_and_severities(clean, without, mean, rate):
    """The AP falls by 0.04 with each severity, and by 0.001 from each corruption to the next."""
    parts = {
        key: {'AP': 0.4 - 0.04 * int(key[-1]) - 0.001 * CORRUPTIONS.index(key[:-2])}
        for key in SCENE_PARTS
    }
    parts = {key: part for key, part in parts.items() if key != without}
    found = performance({'clean': {'AP': clean}} | parts)['AP']
    assert found == pytest.approx(dict(P=clean, mPC=mean, rPC=rate), nan_ok=True)
