"""Images that a training could not use, or would use otherwise than it seems, are found."""

import numpy as np
import pytest
from PIL import Image

from gcp_mm.recipes.images import inspect_images


def look_at(paths, **size):
    return inspect_images([dict(img_path=str(path), **size) for path in paths])


@pytest.fixture
def save(tmp_path):
    def save(pixels, name='x.png', mode=None):
        Image.fromarray(pixels, mode).save(tmp_path / name)
        return tmp_path / name

    return save


def test_sizes(save):
    paths = [
        save(np.zeros((20, 30, 3), np.uint8), 'a.jpg'),
        save(np.zeros((40, 10), np.uint8), 'b.png'),
        save(np.zeros((5, 5, 4), np.uint8), 'c.png'),
        save(np.full((5, 5), 40_000, np.uint16), 'd.png'),
    ]
    assert look_at(paths).tolist() == [[30, 20], [10, 40], [5, 5], [5, 5]]


@pytest.mark.parametrize(
    ('pixels', 'name', 'words'),
    [
        (np.full((4, 4), 4095, np.uint16), 'x.png', 'uint16 up to 4095, .* 16 levels'),
        (np.full((4, 4), 0.5, np.float32), 'x.tif', 'float32 up to 0.5'),
    ],
)
def test_values_that_eight_bits_cut(save, pixels, name, words):
    with pytest.raises(ValueError, match=words):
        look_at([save(pixels, name)])


def test_a_dark_image_among_those_of_full_range(save):
    paths = [save(np.full((4, 4), top, np.uint16), f'{top}.png') for top in (60_000, 0, 200)]
    assert len(look_at(paths)) == 3


def test_a_file_that_is_cut_short(save):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(noise, 'x.jpg')
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r'1 of 1 .*x\.jpg'):
        look_at([path])


def test_another_size_than_the_annotations_say(save):
    path = save(np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(ValueError, match=r'30x20.*20x30'):
        look_at([path], height=30, width=20)


def test_damaged_files_are_counted(save, tmp_path):
    good = save(np.zeros((4, 4, 3), np.uint8))
    bad = [tmp_path / name for name in ('y.png', 'z.png')]
    bad[0].write_bytes(b'')
    bad[1].write_text('none')
    with pytest.raises(ValueError, match=r'3 of 4 .*absent\.png'):
        look_at([good, tmp_path / 'absent.png', *bad])


def test_huge_images(save, monkeypatch):
    path = save(np.zeros((300, 100, 3), np.uint8))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10_000)
    with pytest.raises(ValueError, match=r'x\.png.*scale it down'):
        look_at([path])


def test_of_many_images_some_are_looked_at(save, monkeypatch):
    path = save(np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr('gcp_mm.recipes.images.HEADERS', 10)
    assert len(look_at([path] * 1000)) == 10
