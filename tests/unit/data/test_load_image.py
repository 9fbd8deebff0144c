"""LoadCheckedImage gives the stock loader's pixels, and the reason where a file is bad."""

import re

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile

from gcp_mm.data import LoadCheckedImage
from tests.helpers.bad_data import outcome, row
from tests.helpers.bad_images import BROKEN, CLOSED, HEIGHT, JPEG, TURNED, UNUSUAL, WIDTH


def test_wrong_option_of_the_loader():
    with pytest.raises(ValueError, match='on_error: expected'):
        LoadCheckedImage(on_error='ignore')


def test_same_pixels_as_the_stock_loader(digits, scenes):
    for options in (
        {},
        dict(to_float32=True),
        dict(color_type='grayscale', imdecode_backend='pillow'),
    ):
        for file in (next(digits.glob('val/1/*.png')), next(scenes.glob('val/*.png'))):
            ours = LoadCheckedImage(**options)(dict(img_path=str(file)))
            stock = LoadImageFromFile(**options)(dict(img_path=str(file)))
            assert ours.keys() == stock.keys()
            assert ours['img'].dtype == stock['img'].dtype
            assert (ours['img'] == stock['img']).all()
            assert ours['img_shape'] == stock['img_shape'] == ours['ori_shape']


@pytest.fixture
def load(tmp_path):
    """Write an image, and load it."""

    def load(content, color_type='color', **info):
        path = tmp_path / 'bad.jpg'
        path.write_bytes(content)
        return LoadCheckedImage(color_type=color_type)(dict(img_path=str(path), **info))['img']

    return load


@pytest.mark.parametrize('what', BROKEN)
def test_broken_image(what, load, tmp_path, record_property):
    content, words = BROKEN[what]
    text = outcome(load, content)
    assert text.startswith(f"ValueError: image '{tmp_path}/bad.jpg' cannot be used: ")
    assert words in text
    assert text.endswith('docs/guides/bad_data.md')
    reason = text.split('cannot be used: ')[1].split('. Replace')[0]
    record_property(*row(what, 'ValueError by its name', f'ValueError: {reason}'))


def test_file_that_cannot_be_read(tmp_path, log):
    """One that is absent, and a folder by the name of an image."""
    (tmp_path / 'b.jpg').mkdir()
    load = LoadCheckedImage(on_error='skip')
    for name, error, words in (
        ('a.jpg', FileNotFoundError, 'there is no such file'),
        ('b.jpg', ValueError, 'it cannot be read'),
    ):
        info = dict(img_path=str(tmp_path / name))
        with pytest.raises(error, match=f"image '{tmp_path}/{name}' cannot be used: {words}"):
            LoadCheckedImage()(info)
        assert load(info) is None
        assert f"skipped: image '{tmp_path}/{name}' cannot be used" in log()


@pytest.mark.parametrize('what', UNUSUAL)
def test_unusual_image(what, load, record_property):
    """Is used like any other, in 8-bit colors; its pixels are those that were written."""
    content, expected = UNUSUAL[what]
    image = load(content)
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert np.abs(image[..., ::-1].astype(float) - expected).mean() < 1.5  # JPEG's, of 255
    height, width, channels = image.shape
    observed = f'used, {width}x{height}, {channels} channels of {image.dtype}'
    record_property(*row(what, 'used as 8-bit colors', observed))


def test_jpeg_whose_gap_is_closed(load, record_property):
    """The limit: libjpeg fills in gray, and neither OpenCV nor Pillow says so."""
    assert (load(CLOSED)[-1] == 128).all()
    what = 'JPEG damaged in between, with its end'
    record_property(*row(what, 'used: no decoder tells', 'used, its end gray'))


def test_image_of_another_size_than_its_annotations_say(load):
    said = f'it has {WIDTH}x{HEIGHT} pixels, and its annotations say {WIDTH + 1}x{HEIGHT}. Replace'
    with pytest.raises(ValueError, match=re.escape(said)):
        load(JPEG, height=HEIGHT, width=WIDTH + 1)
    size = dict(height=HEIGHT, width=WIDTH)
    with pytest.raises(ValueError, match='Its EXIF data turn it'):
        load(TURNED, **size)
    assert load(TURNED, 'color_ignore_orientation', **size).shape == (HEIGHT, WIDTH, 3)
