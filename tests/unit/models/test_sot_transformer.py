"""SoT's transformers: the dense token embedding by its formula, fixed positions, images' sizes."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, max_pool2d, relu

from gcp_mm.models import SoTSwinTransformer, SoTVisionTransformer
from gcp_mm.models.sot_transformer import DenseTokenEmbed

SMALL = dict(embed_dims=12, num_layers=2, num_heads=2, feedforward_channels=24)


def normalized(bn, x):
    return batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


@pytest.mark.parametrize(('stride', 'halvings'), [(4, 1), (8, 2), (16, 3)])
def test_dense_token_embedding(stride, halvings):
    torch.manual_seed(0)
    embed = DenseTokenEmbed(12, stride, (32, 64)).eval()
    for bn in embed.modules():
        if isinstance(bn, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(bn.weight)
            torch.nn.init.normal_(bn.running_mean)
    images = torch.randn(2, 3, 32, 64)
    stem = embed.stem[0]
    x = max_pool2d(conv2d(images, stem.weight, stem.bias, padding=1), 3, 2, 1)
    for k in range(3):
        dense, bn, conv = embed.blocks[4 * k : 4 * k + 3]
        assert x.shape[1] == (64, 128, 128)[k]
        for layer in dense.block:  # 1x1 to 32 channels, 3x3 to 16: all before it are its input
            y = conv2d(relu(normalized(layer.norm1, x)), layer.conv1.weight)
            assert y.shape[1] == 32
            y = conv2d(relu(normalized(layer.norm2, y)), layer.conv2.weight, padding=1)
            assert y.shape[1] == 16
            x = torch.cat([x, y], 1)
        x = conv2d(normalized(bn, x), conv.weight)
        x = avg_pool2d(x, 2) if k < halvings else x
    x = conv2d(x, embed.projection.weight, embed.projection.bias)
    tokens, size = embed(images)
    assert size == embed.init_out_size == (32 // stride, 64 // stride)
    torch.testing.assert_close(tokens, x.flatten(2).mT)


def test_positions_are_sinusoids_that_nothing_trains_or_initializes():
    network = SoTVisionTransformer(SMALL, img_size=32)
    network.init_weights()
    assert 'pos_embed' not in dict(network.named_parameters())
    position, channel = np.mgrid[:5, :12]
    angle = position / 10000 ** (2 * (channel // 2) / 12)
    expected = np.where(channel % 2, np.cos(angle), np.sin(angle))
    np.testing.assert_allclose(network.pos_embed[0], expected, rtol=1e-5, atol=1e-6)
    # those of a checkpoint are its own
    state = network.state_dict()
    state['pos_embed'] = torch.ones(1, 5, 12)
    network.load_state_dict(state)
    assert network.pos_embed.eq(1).all()


@pytest.mark.parametrize('entries', [dict, lambda **entry: [entry]])
def test_pretrained_positions_stay(tmp_path, entries):
    network = SoTVisionTransformer(SMALL, img_size=32)
    network.pos_embed.fill_(3)
    torch.save(network.state_dict(), tmp_path / 'sot.pth')
    init_cfg = entries(type='Pretrained', checkpoint=str(tmp_path / 'sot.pth'))
    other = SoTVisionTransformer(SMALL, img_size=32, init_cfg=init_cfg)
    other.init_weights()
    assert other.pos_embed.eq(3).all()
    assert torch.equal(other.cls_token, network.cls_token)


def test_another_image_size_and_frozen_stages():
    network = SoTVisionTransformer(SMALL, img_size=32, frozen_stages=2)
    (tokens,) = network(torch.randn(1, 3, 64, 48))
    assert tokens.shape == (1, 1 + 4 * 3, 12)
    assert not any(p.requires_grad for p in network.parameters())
    network.train()
    before = copy.deepcopy(network.state_dict())
    network(torch.randn(2, 3, 32, 32))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_swin_has_the_embedding_and_freezes_it():
    network = SoTSwinTransformer(arch='tiny', img_size=64, pad_small_map=True, frozen_stages=0)
    assert isinstance(network.patch_embed, DenseTokenEmbed)
    assert not any(p.requires_grad for p in network.patch_embed.parameters())
    (tokens,) = network(torch.randn(1, 3, 64, 64))
    assert tokens.shape == (1, 768, 2, 2)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: SoTVisionTransformer(SMALL, img_size=32, patch_size=14), 'patch_size.*got 14'),
        (lambda: SoTVisionTransformer(SMALL, img_size=40), r'img_size.*16, got \(40, 40\)'),
        (lambda: SoTSwinTransformer(img_size=30), r'img_size.*4, got \(30, 30\)'),
    ],
)
def test_wrong_sizes(make, words):
    with pytest.raises(ValueError, match=words):
        make()
