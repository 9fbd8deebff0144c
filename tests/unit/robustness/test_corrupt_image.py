"""The corruption of a detector's images: what it equals, and what it depends on."""

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from gcp_mm.robustness.corrupt_image import CorruptImage
from gcp_mm.robustness.corruptions import corrupt, corrupt_scene, seeded
from gcp_mm.robustness.errors import CORRUPTIONS

RANDOM = ('gaussian_noise', 'impulse_noise', 'glass_blur', 'snow', 'fog', 'elastic_transform')


def scene(height=64, width=64, seed=1):
    """A BGR image of blocks and noise, another in each channel."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(40, 200, (height // 8 + 1, width // 8 + 1, 3))
    image = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
    return (image + rng.integers(0, 20, image.shape)).astype(np.uint8)


def corrupted(corruption='fog', severity=3, image=None, seed=0, **info):
    info = info or dict(img_id=7)
    image = scene() if image is None else image
    return CorruptImage(corruption, severity, seed).transform(dict(img=image, **info))['img']


def test_seed_is_that_of_sets_made_by_earlier_versions():
    """A set that is continued stays as if made at once."""
    assert seeded(0, 'c', 'fog', 3, 'cats/a.png').integers(2**32) == 4068368358


@pytest.mark.parametrize('name', sorted({*CORRUPTIONS} - {'elastic_transform'}))
def test_square_images_are_those_of_make_corruptions(name):
    """The key of the generator is the file's there, and the image's id here; the image is BGR."""
    wanted = corrupt(scene()[..., ::-1].copy(), name, 4, seeded(5, 'c', name, 4, 7))
    assert np.array_equal(corrupted(name, 4, seed=5), wanted[..., ::-1])


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


@pytest.mark.parametrize('name', RANDOM)
def test_randomness_is_that_of_the_image_and_the_arguments(name):
    np.random.seed(1)
    first = corrupted(name)
    corrupted('shot_noise')
    np.random.seed(2)
    assert np.array_equal(corrupted(name, img_path='elsewhere/a.png', img_id=7), first)
    assert not np.array_equal(corrupted(name, img_id=8), first)
    assert not np.array_equal(corrupted(name, seed=1), first)
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
        (scene(31), r'at least 32 pixels a side, got \(31, 64\)'),
        (scene()[..., 0], r'shape \(H, W, 3\), got \(64, 64\)'),
        (scene().astype(np.uint16) * 256, '8 bits a channel, got uint16'),
        (scene() / 255, '8 bits a channel, got float64'),
        (np.full((64, 64, 3), np.nan), '8 bits a channel, got float64'),
    ],
)
def test_wrong_images_are_named(image, message):
    with pytest.raises(ValueError, match=rf"image 'a/b\.png': .*{message}"):
        corrupted(image=image, img_path='a/b.png')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [(('rain', 1), "'rain'"), (('spatter', 1), "'spatter'"), (('fog', 6), 'got 6')],
)
def test_wrong_arguments_are_refused_before_an_image(arguments, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(dict(type='CorruptImage', corruption=arguments[0], severity=arguments[1]))
