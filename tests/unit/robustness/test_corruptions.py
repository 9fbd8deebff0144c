"""The corruptions against closed forms of what they do, and their randomness."""

from importlib import metadata

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from gcp_mm.robustness import corruptions
from gcp_mm.robustness.corruptions import corrupt
from gcp_mm.robustness.errors import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES

ALL = CORRUPTIONS + EXTRA_CORRUPTIONS
DETERMINISTIC = (
    *('defocus_blur', 'zoom_blur', 'brightness', 'contrast', 'pixelate', 'jpeg_compression'),
    *('gaussian_blur', 'saturate'),
)
# Of the others the published constants do not grow with the severity in every part, or the picture
# depends more on what was drawn.
GROWING = (
    *('gaussian_noise', 'shot_noise', 'impulse_noise', 'speckle_noise', 'motion_blur'),
    *('defocus_blur', 'zoom_blur', 'brightness', 'contrast', 'pixelate', 'jpeg_compression'),
    *('gaussian_blur', 'spatter', 'saturate'),
)


def make_rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope='module')
def photo():
    """The middle of a photograph in a given size."""
    image = Image.fromarray(load_sample_image('china.jpg')).crop((100, 0, 527, 427))
    return lambda size: np.asarray(image.resize((size, size)))


def gray(value=128, size=64):
    return np.full((size, size, 3), value, np.uint8)


@pytest.mark.parametrize('size', [64, 224])
@pytest.mark.parametrize('name', ALL)
def test_every_corruption_at_every_severity(photo, name, size):
    clean = photo(size)
    before = clean.copy()
    change = []
    for severity in SEVERITIES:
        image = corrupt(clean, name, severity, make_rng())
        assert image.dtype == np.uint8
        assert image.shape == (size, size, 3)
        change.append(np.abs(image.astype(float) - clean).mean())
    assert np.array_equal(clean, before)
    assert min(change) > 0.5
    if name in GROWING:
        assert change == sorted(change)


@pytest.mark.parametrize('severity', SEVERITIES)
def test_noise_is_as_strong_as_published(severity):
    """Around a middle gray; what lies within a standard deviation of it is not clipped."""
    x = 128 / 255
    deviations = dict(
        gaussian_noise=(0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1],
        speckle_noise=x * (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1],
    )
    for name, wanted in deviations.items():
        image = corrupt(gray(size=128), name, severity, make_rng())
        low, high = np.quantile(image, (0.1587, 0.8413))
        assert (high - low) / 2 / 255 == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize('size', [64, 224])
@pytest.mark.parametrize(('severity', 'part'), [(4, 0.07), (5, 0.12)])
def test_elastic_transform_displaces_as_published(size, severity, part):
    """On a ramp, what is left of a plane is the displacement: uniform noise, smoothed."""
    ramp = np.linspace(16, 240, size)
    image = np.broadcast_to(ramp.astype(np.uint8)[:, None, None], (size, size, 3)).copy()
    warped = corrupt(image, 'elastic_transform', severity, make_rng())[..., 0].astype(float)
    inner = slice(size // 8, -size // 8)
    rows, columns = np.indices((size, size))
    plane = np.stack([rows[inner, inner], columns[inner, inner], np.ones_like(rows)[inner, inner]])
    plane = plane.reshape(3, -1).T
    seen = warped[inner, inner].ravel()
    left = seen - plane @ np.linalg.lstsq(plane, seen, rcond=None)[0]
    # In pixels at 224: a Gaussian of sigma divides white noise's deviation by 2 sqrt(pi) sigma.
    sigma, amplitude = 244 * 0.01, 244 * part
    wanted = amplitude / np.sqrt(3) / (2 * np.sqrt(np.pi) * sigma) * size / 224
    per_pixel = (240 - 16) / (size - 1)
    rounding = 2 / 12  # variance of the ramp's and the result's rounding
    deviation = np.sqrt(max(left.var() - rounding, 0)) / per_pixel
    assert deviation == pytest.approx(wanted, rel=0.25)


def test_elastic_transform_begins_with_an_affine_map(photo):
    """At severity 1 the displacement is next to constant: the image is mapped as a plane."""
    rows, columns = np.indices((224, 224))
    image = np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8)
    warped = corrupt(image, 'elastic_transform', 1, make_rng()).astype(float)
    inner = (slice(80, 144),) * 2
    plane = np.stack([rows[inner].ravel(), columns[inner].ravel(), np.ones(64 * 64)]).T
    for channel in range(2):
        seen = warped[inner][..., channel].ravel()
        fit = np.linalg.lstsq(plane, seen, rcond=None)[0]
        assert np.abs(seen - plane @ fit).max() < 3
        identity = np.eye(3)[channel][:2]
        assert np.abs(fit[:2] - identity).max() > 0.02
    assert not warped[..., 2].any()


@pytest.mark.parametrize('name', ALL)
def test_randomness_is_that_of_the_generator(photo, name):
    clean = photo(64)
    np.random.seed(1)
    first = corrupt(clean, name, 3, make_rng(5))
    np.random.seed(2)
    state = np.random.get_state()[1].copy()
    assert np.array_equal(corrupt(clean, name, 3, make_rng(5)), first)
    assert np.array_equal(np.random.get_state()[1], state)
    other = corrupt(clean, name, 3, make_rng(6))
    assert np.array_equal(other, first) == (name in DETERMINISTIC)


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(name='rain'), ValueError, "'rain' is none of gaussian_noise"),
        (dict(severity=0), ValueError, 'severity: expected 1 to 5, got 0'),
        (dict(severity=6), ValueError, 'severity: expected 1 to 5, got 6'),
        (dict(image=gray(size=63)), ValueError, 'at least 64 pixels, got .63, 63.'),
        (dict(image=gray()[:, :60]), ValueError, 'a square'),
        (dict(image=gray()[..., 0]), ValueError, r'shape \(H, W, 3\), got \(64, 64\)'),
        (dict(image=gray() / 255), TypeError, 'uint8 array, got float64'),
        (dict(image='cat.png'), TypeError, 'uint8 array, got str'),
    ],
)
def test_wrong_arguments(arguments, error, message):
    usual = dict(image=gray(), name='fog', severity=1, rng=make_rng())
    with pytest.raises(error, match=message):
        corrupt(**{**usual, **arguments})


def test_absent_or_older_package_is_named(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(corruptions.metadata, 'version', version)
    with pytest.raises(ModuleNotFoundError, match='pip install imagecorruptions-imaug'):
        corrupt(gray(), 'fog', 1, make_rng())
