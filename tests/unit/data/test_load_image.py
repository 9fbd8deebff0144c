"""LoadCheckedImage gives the stock loader's pixels."""

import pytest
from mmcv.transforms import LoadImageFromFile

from gcp_mm.data import LoadCheckedImage


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
