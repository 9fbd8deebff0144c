"""What a file says of its preprocessing gives the input of the network."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import TRANSFORMS
from torch import nn

from gcp_mm.data import LoadCheckedImage, Preprocessing, describe_preprocessing, image_size

LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackInputs')
STEPS = [
    [dict(type='ResizeEdge', scale=40, backend='pillow'), dict(type='CenterCrop', crop_size=32)],
    [dict(type='Resize', scale=(32, 32), interpolation='bicubic')],
    [dict(type='mmpretrain.EfficientNetCenterCrop', crop_size=32)],
    [dict(type='CenterCrop', crop_size=(32, 32), auto_pad=True)],
    [
        dict(type='Resize', scale=(32, 32), keep_ratio=True),
        dict(type='Pad', size=(32, 32), pad_val=dict(img=(1, 2, 3))),
    ],
]
MEAN, STD = [100.0, 110, 120], [50.0, 60, 70]


def classifier(steps=(), load=LOAD, **preprocessor):
    """A network as `get_model` leaves it, as far as it is described."""
    model = nn.Module()
    model.data_preprocessor = ClsDataPreprocessor(**preprocessor)
    pipeline = [load, *steps, PACK]
    model._config = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    return model


def described(model, channels=3, inside=False):
    return json.loads(json.dumps(describe_preprocessing(model, channels, (32, 32), inside)))


def picture(height=60, width=50, channels=3):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def network_input(model, image):
    """As the network of PyTorch gets it."""
    _, *steps = model._config.test_dataloader.dataset.pipeline
    data = dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
    inputs = Compose([TRANSFORMS.build(step) for step in steps])(data)['inputs']
    return model.data_preprocessor(dict(inputs=inputs[None]))['inputs']


@pytest.mark.parametrize('steps', STEPS)
@pytest.mark.parametrize('to_rgb', [True, False])
def test_input_is_that_of_the_network(steps, to_rgb):
    model = classifier(steps, mean=MEAN, std=STD, to_rgb=to_rgb)
    image = picture()
    expected = network_input(model, image)
    outside = described(model)
    assert outside['channel_order'] == ('RGB' if to_rgb else 'BGR')
    assert outside['normalization'] == dict(mean=MEAN, std=STD, inside=False)
    assert torch.equal(Preprocessing(outside)(image), expected)
    inside = described(model, inside=True)
    given = Preprocessing(inside)(image)
    mean, std = (inside['normalization'][key] for key in ('mean', 'std'))
    mean, std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    given = (given - mean) / std  # in the order of the images, RGB
    torch.testing.assert_close(given if to_rgb else given.flip(1), expected)


def test_images_as_float32_are_resized_without_rounding():
    model = classifier(STEPS[1], dict(LOAD, to_float32=True), mean=MEAN, std=STD)
    image = picture()
    expected = network_input(model, image.astype(np.float32))
    assert torch.equal(Preprocessing(described(model))(image), expected)
    assert not torch.equal(network_input(model, image), expected)


@pytest.mark.parametrize('channels', [1, 5])
def test_input_of_other_channels(channels):
    mean, std = list(range(channels)), [50.0] * channels
    model = classifier(STEPS[1], mean=mean, std=std)
    said = described(model, channels)
    assert 'channel_order' not in said
    image = picture(channels=channels)
    assert torch.equal(Preprocessing(said)(image), network_input(model, image))


def test_without_normalization():
    model = classifier(STEPS[1])
    said = described(model)
    assert said['normalization'] is None
    assert torch.equal(Preprocessing(said)(picture()), network_input(model, picture()))


def test_loading_is_that_of_the_pipeline():
    load = dict(type='LoadCheckedImage', color_type='grayscale', backend_args=dict(key='secret'))
    said = described(classifier(load=load))
    assert 'secret' not in json.dumps(said)
    loader = Preprocessing(said).loader
    assert isinstance(loader, LoadCheckedImage)
    assert (loader.color_type, loader.backend_args) == ('grayscale', None)


def test_images_of_another_size_are_refused():
    prepare = Preprocessing(described(classifier()))
    assert prepare(picture(32, 32)).shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match=r'3x32x32 .*3x60x50.*--size'):
        prepare(picture())
    with pytest.raises(ValueError, match=r'3x32x32 .*1x32x32'):
        prepare(picture(32, 32, channels=1))


@pytest.mark.parametrize(
    'model',
    [
        classifier([dict(type='RandomFlip', prob=0.5)]),
        classifier(load=dict(type='RandomFlip', prob=0.5)),
        classifier(pad_size_divisor=64),
    ],
)
def test_what_cannot_be_described_is_left_out(model):
    said = described(model)
    assert 'pipeline' not in said
    with pytest.raises(ValueError, match='pipeline'):
        Preprocessing(said)


def test_another_preprocessor_is_not_described():
    class Other(ClsDataPreprocessor):
        pass

    model = classifier(STEPS[1])
    model.data_preprocessor = Other()
    assert described(model) == dict(channels=3, size=[32, 32])


@pytest.mark.parametrize(
    'step',
    [
        dict(type='os.system', command='true'),
        dict(type='CenterCrop', crop_size=32, auto_pad=True, pad_cfg=dict(type='os.system')),
    ],
)
def test_nothing_else_is_built(step):
    said = described(classifier(STEPS[1]))
    said['pipeline'].append(step)
    with pytest.raises(ValueError, match=r'os\.system'):
        Preprocessing(said)


GRAY = dict(type='Normalize', mean=[0], std=[1], to_rgb=False)
FIVE = dict(type='Normalize', mean=[0] * 5, std=[1] * 5, to_rgb=False)


@pytest.mark.parametrize(
    ('pipeline', 'channels', 'size'),
    [
        (
            [dict(type='ResizeEdge', scale=256), dict(type='CenterCrop', crop_size=224)],
            3,
            (224, 224),
        ),
        ([dict(type='CenterCrop', crop_size=(320, 192))], 3, (192, 320)),
        ([dict(type='Resize', scale=(320, 192))], 3, (192, 320)),
        ([dict(type='CenterCrop', crop_size=32), GRAY], 1, (32, 32)),
        ([dict(type='CenterCrop', crop_size=32), FIVE], 5, (32, 32)),
        ([dict(type='Resize', scale=(320, 192), keep_ratio=True)], 3, None),
        ([dict(type='ResizeEdge', scale=256)], 3, None),
        ([], 3, None),
    ],
)
@pytest.mark.parametrize('loader', ['LoadImageFromFile', 'LoadCheckedImage'])
def test_size_is_that_of_the_test_pipeline(pipeline, channels, size, loader):
    pipeline = [dict(type=loader), *pipeline, PACK]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    if size:
        assert image_size(cfg, channels) == size
    else:
        with pytest.raises(ValueError, match=r'size: .*\(--size\)'):
            image_size(cfg)


def test_no_test_pipeline_gives_no_size():
    with pytest.raises(ValueError, match=r'size: .*\(--size\)'):
        image_size(Config())
