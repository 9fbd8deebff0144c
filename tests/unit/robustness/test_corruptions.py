"""The corruptions against closed forms, their randomness, and those of a detector's images."""

from importlib import metadata

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS
from PIL import Image
from sklearn.datasets import load_sample_image

from gcp_mm.robustness import corruptions
from gcp_mm.robustness.corruptions import CorruptImage, corrupt, corrupt_scene, seeded
from gcp_mm.robustness.errors import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES

ALL = CORRUPTIONS + EXTRA_CORRUPTIONS
DETERMINISTIC = (
    *('defocus_blur', 'zoom_blur', 'brightness', 'contrast', 'pixelate', 'jpeg_compression'),
    *('gaussian_blur', 'saturate'),
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


@pytest.mark.parametrize('name', ALL)
def test_every_corruption_at_every_severity(photo, name):
    clean = photo(64)
    before, changes = clean.copy(), []
    for severity in SEVERITIES:
        image = corrupt(clean, name, severity, make_rng())
        assert image.dtype == np.uint8
        assert image.shape == clean.shape
        changes.append(np.abs(image.astype(float) - clean).mean())
    assert min(changes) > 0.5
    if name in ('gaussian_noise', 'defocus_blur', 'brightness', 'pixelate', 'jpeg_compression'):
        assert changes == sorted(changes)
    assert np.array_equal(clean, before)


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


@pytest.mark.parametrize('name', ['elastic_transform', 'fog'])
@pytest.mark.parametrize('image', [gray()[:, :60], gray()[..., 0], gray() / 255, gray(size=63)])
def test_squares_of_8_bits_are_corrupted(image, name):
    with pytest.raises(ValueError, match=r'expected a square, \(S, S, 3\) uint8 .* 64, got'):
        corrupt(image, name, 1, make_rng())
    with pytest.raises(KeyError, match='0'):
        corrupt(gray(), 'elastic_transform', 0, make_rng())


def test_absent_or_older_package_is_named(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(corruptions.metadata, 'version', version)
    with pytest.raises(ModuleNotFoundError, match='pip install imagecorruptions-imaug'):
        corrupt(gray(), 'fog', 1, make_rng())
    with pytest.raises(ModuleNotFoundError, match='pip install imagecorruptions-imaug'):
        corruptions.versions()


def scene(height=64, width=64, seed=1):
    """A BGR image of blocks and noise, another in each channel."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(40, 200, (height // 8 + 1, width // 8 + 1, 3))
    image = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
    return (image + rng.integers(0, 20, image.shape)).astype(np.uint8)


def corrupted(corruption='fog', severity=3, image=None, **info):
    info = info or dict(img_id=7)
    image = scene() if image is None else image
    return CorruptImage(corruption, severity).transform(dict(img=image, **info))['img']


def test_seed_is_that_of_sets_made_by_earlier_versions():
    """A set that is continued stays as if made at once."""
    assert seeded('c', 'fog', 3, 'cats/a.png').integers(2**32) == 4068368358


@pytest.mark.parametrize('name', sorted({*CORRUPTIONS} - {'elastic_transform'}))
def test_square_images_are_those_of_make_corruptions(name):
    """The key of the generator is the file's there, and the image's id here; the image is BGR."""
    wanted = corrupt(scene()[..., ::-1].copy(), name, 4, seeded('c', name, 4, 7))
    assert np.array_equal(corrupted(name, 4), wanted[..., ::-1])


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_images_of_any_shape_keep_it(name):
    image = scene(45, 83)
    before = image.copy()
    for severity in (1, 5):
        changed = corrupted(name, severity, image)
        assert changed.shape == (45, 83, 3)
        assert changed.dtype == np.uint8
        assert np.abs(changed.astype(float) - image).mean() > 0.5
    assert np.array_equal(image, before)


def test_elastic_transform_leaves_objects_in_their_boxes():
    """Unlike that of ImageNet-C, which maps the whole image."""
    image = np.zeros((200, 200, 3), np.uint8)
    image[:, 100:] = 200

    def moved(change, severity):
        changed = change(image, 'elastic_transform', severity, np.random.default_rng(0))
        return np.abs((changed[20:180, :, 0] < 100).sum(1).mean() - 100)

    assert max(moved(corrupt_scene, severity) for severity in range(1, 6)) < 2
    assert moved(corrupt, 2) > 5


@pytest.mark.parametrize('name', ['gaussian_noise', 'glass_blur'])
def test_randomness_is_that_of_the_image_and_the_arguments(name):
    first = corrupted(name)
    assert np.array_equal(corrupted(name, img_path='elsewhere/a.png', img_id=7), first)
    assert not np.array_equal(corrupted(name, img_id=8), first)
    of_file = corrupted(name, img_path='one/a.png')
    assert np.array_equal(corrupted(name, img_path='other/a.png'), of_file)
    assert not np.array_equal(corrupted(name, img_path='one/b.png'), of_file)


def test_float_images_stay_so():
    changed = corrupted(image=scene().astype(np.float32))
    assert changed.dtype == np.float32
    assert np.array_equal(changed, corrupted())


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (scene(31), r'at least 32, got \(31, 64, 3\)'),
        (scene()[..., 0], r'expected \(H, W, 3\), .* got \(64, 64\)'),
        (scene().astype(np.uint16) * 256, '8 bits a channel, got uint16'),
        (scene() / 255, '8 bits a channel, got float64'),
    ],
)
def test_wrong_images_are_named(image, message):
    with pytest.raises(ValueError, match=rf"image 'a/b\.png': .*{message}"):
        corrupted(image=image, img_path='a/b.png')


@pytest.mark.parametrize(('name', 'severity', 'got'), [('rain', 1, "'rain'"), ('fog', 6, 'got 6')])
def test_wrong_arguments_are_refused_before_an_image(name, severity, got):
    with pytest.raises(ValueError, match=got):
        TRANSFORMS.build(dict(type='CorruptImage', corruption=name, severity=severity))
