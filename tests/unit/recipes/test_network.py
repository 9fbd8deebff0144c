"""Networks by name, and what is found in the weights that they start from."""

import pytest
import torch

from gcp_mm.models.gcp_resnet import GCPResNet
from gcp_mm.recipes.network import Network, Weights, find_network


@pytest.mark.parametrize(
    ('name', 'depth', 'pooling', 'conv5'),
    [
        ('resnet18', 18, False, 'stride'),
        ('resnet34-gcp', 34, True, 'maxpool'),
        ('resnet50-gcp-m', 50, True, 'maxpool'),
        ('resnet101-gcp-d', 101, True, 'stride'),
    ],
)
def test_names(name, depth, pooling, conv5):
    assert find_network(name, detector=True) == Network(depth, pooling, conv5)


@pytest.mark.parametrize('name', ['resnet152', 'resnet18-gap', 'vgg16', 'resnet18-gcp-x', ''])
def test_other_names(name):
    with pytest.raises(ValueError, match=r'network: expected .*resnet18.*, got'):
        find_network(name)


@pytest.fixture(scope='module')
def backbone():
    return GCPResNet(18).state_dict()


def prefixed(weights, prefix):
    return {f'{prefix}{key}': value for key, value in weights.items()}


def test_weights_of_a_backbone_alone(backbone, tmp_path):
    path = str(tmp_path / 'r18.pth')
    torch.save({**backbone, 'fc.weight': torch.zeros(3, 512)}, path)  # as torchvision's
    network = find_network('resnet18-gcp', path)
    assert network.weights == Weights(path, '', None)
    assert network.init_cfg('backbone') == "dict(type='Pretrained', checkpoint=checkpoint)"


def test_weights_of_a_gcp_network(backbone, tmp_path):
    path = str(tmp_path / 'r18.pth')
    neck = {'neck.reduction.0.conv.weight': torch.zeros(48, 512, 1, 1)}
    torch.save(dict(state_dict={**prefixed(backbone, 'backbone.'), **neck}), path)
    network = find_network('resnet18-gcp', path)
    assert network.weights == Weights(path, 'backbone.', (48,))
    assert "prefix='neck.'" in network.init_cfg('neck')


def test_weights_of_another_network(backbone, tmp_path):
    path = str(tmp_path / 'r18.pth')
    torch.save(backbone, path)
    with pytest.raises(ValueError, match=r'r18\.pth'):
        find_network('resnet50', path)
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        find_network('resnet18', str(tmp_path / 'none.pth'))
