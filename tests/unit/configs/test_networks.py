"""The networks of the configs are those that their names, and the paper, say."""

import functools
import re

import pytest
import torch
import torchvision

from tests.helpers.configs import (
    CONFIGS,
    DETECTORS,
    build_model,
    count_parameters,
    load,
    outline,
    pretraining,
)
from tests.helpers.runs import ROOT


@functools.cache  # many configs share a network
def classes_of(model):
    """How many scores an outline gives."""
    return model(torch.empty(1, 3, 224, 224, device='meta'))[0].shape[-1]


@pytest.mark.parametrize('path', CONFIGS)
def test_config_is_short_and_builds(path):
    cfg = load(path)
    assert 'gcp_mm' in cfg.custom_imports['imports']
    assert len((ROOT / path).read_text().splitlines()) <= 25
    assert count_parameters(path) > 1e6
    if path not in DETECTORS and 'num_classes' in cfg.model.head:  # it takes what the neck gives
        assert classes_of(outline(path)) == cfg.model.head.num_classes


# What a detector's name says of conv5: in its backbone's pretraining, in the detector
CONV5 = {
    '': ('stride', 'stride'),
    '-gcp-d': ('none', 'stride'),
    '-gcp-m': ('none', 'maxpool'),
    '-gcp-ds': ('stride', 'stride'),
}


@pytest.mark.parametrize('path', DETECTORS)
def test_detector_starts_from_a_checkpoint_that_a_config_here_makes(path):
    depth, method = re.search(r'-rcnn_r(\d+)(.*?)_fpn', path).groups()
    backbone, source = load(path).model.backbone, load(pretraining(path)).model
    assert backbone.init_cfg.prefix == 'backbone.'
    assert backbone.depth == source.backbone.depth == int(depth)
    assert (source.backbone.conv5, backbone.conv5) == CONV5[method]
    assert (source.neck.type == 'GlobalCovariancePooling') == ('gcp' in method)


# Table 9 of the paper: parameters in millions
PARAMETERS = {
    'resnet18': 11.69,
    'resnet34': 21.80,
    'resnet50': 25.56,
    'resnet101': 44.55,
    'resnet18-gcp-8k': 19.60,
    'resnet34-gcp-8k': 29.71,
    'resnet50-gcp-8k': 32.32,
    'resnet101-gcp-8k': 51.31,
}


@pytest.mark.parametrize('net', PARAMETERS)
def test_parameters_are_table_9s(net):
    size = count_parameters(f'configs/imagenet/{net}_8xb32-lrnorm_in1k.py')
    assert round(size / 1e6, 2) == PARAMETERS[net]


LIGHT = {
    'mobilenet-v2': (torchvision.models.mobilenet_v2, '4xb24', 1280),
    'shufflenet-v2': (torchvision.models.shufflenet_v2_x1_0, '4xb256', 1024),
}


@pytest.mark.parametrize('net', LIGHT)
def test_light_networks_are_torchvisions(net):
    """With torchvision's weights, in its order, they give its scores."""
    constructor, batch, _ = LIGHT[net]
    model = build_model(load(f'configs/imagenet/{net}_{batch}-lrnorm_in1k.py')).eval()
    expected = constructor().eval()
    weights = expected.state_dict().values()
    keys = [key for key in model.state_dict() if not key.startswith('data_preprocessor')]
    state = dict(zip(keys, weights, strict=True))
    model.load_state_dict(state)
    image = torch.randn(1, 3, 65, 97)
    torch.testing.assert_close(model(image), expected(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('net', 'd'), [('mobilenet-v2', 256), ('mobilenet-v2', 128), ('shufflenet-v2', 256)]
)
def test_parameters_of_light_networks_with_gcp(net, d):
    """The backbone, a convolution without bias and its BN, and the classifier."""
    constructor, batch, channels = LIGHT[net]
    backbone = sum(p.numel() for p in constructor().parameters()) - (channels + 1) * 1000
    suffix = '-d128' if d == 128 else ''
    size = count_parameters(f'configs/imagenet/{net}-gcp{suffix}_{batch}-lrnorm_in1k.py')
    assert size == backbone + channels * d + 2 * d + (d * (d + 1) // 2 + 1) * 1000


@pytest.mark.parametrize(
    ('name', 'conv5', 'reduction'),
    [
        ('resnet50_8xb32', 'stride', None),
        ('resnet50-gcp_8xb32', 'none', (256,)),
        ('resnet50-gcp-d128_8xb32', 'none', (128,)),
        ('resnet50-gcp-ds_8xb32', 'stride', (256,)),
        ('resnet101-gcp-8k_8xb32', 'none', (256, 128)),
        ('mobilenet-v2_4xb24', None, None),
        ('mobilenet-v2-gcp_4xb24', None, (256,)),
        ('mobilenet-v2-gcp-d128_4xb24', None, (128,)),
        ('shufflenet-v2_4xb256', None, None),
        ('shufflenet-v2-gcp_4xb256', None, (256,)),
    ],
)
def test_names_say_what_the_networks_are(name, conv5, reduction):
    cfg = load(f'configs/imagenet/{name}-lrnorm_in1k.py')
    model = cfg.model
    assert model.backbone.get('conv5') == conv5
    assert model.neck.get('reduction') == reduction
    assert model.head.get('dropout') == (0.2 if 'mobilenet' in name else None)
    # PyTorch's initialization of the classifier, but in MobileNetV2 MMPretrain's
    assert model.head.get('init_cfg', 'stock') == ('stock' if 'mobilenet' in name else None)
    if reduction:
        activation = 'ReLU' if 'resnet' in name else 'ReLU6'
        assert model.neck.get('act_cfg', dict(type='ReLU'))['type'] == activation
    jitter = [step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'ColorJitter']
    strength = dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)
    assert jitter == ([strength] if 'shufflenet' in name else [])


def check_normal(weight, std):
    weight = weight.detach()
    assert weight.std() == pytest.approx(std, rel=5 / (2 * weight.numel()) ** 0.5)
    assert weight.abs().max() > 2 * std


def check_uniform(weight, bound):
    weight = weight.detach()
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=5 / (2 * weight.numel()) ** 0.5)
    assert weight.abs().max() <= bound


@pytest.mark.parametrize(
    'name', ['resnet18-gcp_8xb32', 'mobilenet-v2-gcp_4xb24', 'shufflenet-v2-gcp_4xb256']
)
def test_initialization(name):
    """As in the paper's code: He's, fan-out, but PyTorch's own in ShuffleNetV2."""
    model = build_model(load(f'configs/imagenet/{name}-lrnorm_in1k.py'))
    model.init_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            w = module.weight
            if 'shufflenet' in name:
                check_uniform(w, w[0].numel() ** -0.5)
            else:
                check_normal(w, (2 / (module.out_channels * w[0, 0].numel())) ** 0.5)
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
            assert (module.eps, module.momentum) == (1e-5, 0.1)
    fc = model.head.fc
    if 'mobilenet' in name:
        check_normal(fc.weight, 0.01)
        assert (fc.bias == 0).all()
    else:
        check_uniform(fc.weight, fc.in_features**-0.5)
        check_uniform(fc.bias, fc.in_features**-0.5)
