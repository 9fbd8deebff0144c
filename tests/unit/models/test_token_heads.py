"""Heads of tokens: their formulas step by step, their sizes, and backbones of MMPretrain."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch.nn.functional import gelu, layer_norm

import gcp_mm  # noqa: F401
from gcp_mm.models import MomentProbingHead, SoTHead
from gcp_mm.ops import svpn

DEIT = dict(arch='deit-t', out_type='raw', img_size=32)


def cross_covariances(x, y):
    """Image by image and head by head, (B, h, p, q) of (B, h, N, p) and (B, h, N, q)."""
    stack = [torch.cat([a.T, b.T]) for a, b in zip(x.flatten(0, 1), y.flatten(0, 1), strict=True)]
    blocks = [torch.cov(both, correction=0)[: x.shape[3], x.shape[3] :] for both in stack]
    return torch.stack(blocks).unflatten(0, x.shape[:2])


@pytest.mark.parametrize('norm', ['svpn', 'none'])
@pytest.mark.parametrize('class_tokens', [0, 1, 2])
def test_sot(class_tokens, norm):
    head = SoTHead(5, 12, num_heads=2, width=3, class_tokens=class_tokens, norm=norm).eval()
    tokens = torch.randn(4, class_tokens + 7, 12)
    visual = tokens[:, class_tokens:]
    both = (visual @ head.project.weight.T).view(4, 7, 2, 2, 3)
    matrices = cross_covariances(both[:, :, 0].transpose(1, 2), both[:, :, 1].transpose(1, 2))
    if norm == 'svpn':
        matrices = torch.stack([svpn(pair, head.start) for pair in matrices])
    expected = head.fc(matrices.flatten(1))
    if class_tokens:
        expected = expected + head.fc_class(tokens[:, 0])
    torch.testing.assert_close(head((tokens,)), expected)


@pytest.mark.parametrize('class_tokens', [0, 1])
def test_moment_probing(class_tokens):
    head = MomentProbingHead(5, 12, 28, 4, class_tokens=class_tokens)
    tokens = torch.randn(3, class_tokens + 9, 12)
    visual = tokens[:, class_tokens:]
    heads = layer_norm(
        head.project(visual).view(3, 9, 4, 7), (7,), head.norm.weight, head.norm.bias
    )
    heads = heads.transpose(1, 2)
    second = cross_covariances(heads[:, :3], heads[:, 1:])
    second = second / second.norm(dim=3, keepdim=True)
    second = head.shrink[2](gelu(head.shrink[0](second)))
    assert second.shape == (3, 3, 1, 1)
    first = tokens[:, 0]
    if not class_tokens:
        first = layer_norm(visual.mean(1), (12,), head.mean_norm.weight, head.mean_norm.bias)
    expected = (head.fc_first(first) + head.fc_second(second.flatten(1))) / 2
    torch.testing.assert_close(head((tokens,)), expected)


def test_a_map_is_tokens():
    head = SoTHead(5, 12, num_heads=2, width=3, class_tokens=0).eval()
    tokens = torch.randn(2, 6, 12)
    torch.testing.assert_close(head((tokens.mT.reshape(2, 12, 2, 3),)), head((tokens,)))


def test_sizes_are_the_published_ones():
    """SoT's 6 heads of 24 channels; Moment Probing's 2,883 numbers and two classifiers of 3.65M."""
    assert SoTHead(1000, 384).fc.in_features == 6 * 24**2
    head = MomentProbingHead(1000, 768)
    assert head.fc_second.in_features == 2883
    weights = sum(p.numel() for fc in (head.fc_first, head.fc_second) for p in fc.parameters())
    assert round(weights / 1e6, 2) == 3.65


def test_channels_are_dropped_from_queries_and_keys_alike():
    torch.manual_seed(0)
    head = SoTHead(5, 12, num_heads=1, width=8, class_tokens=0, norm='none', channel_dropout=0.5)
    _, vectors = head.pre_logits((torch.randn(2, 30, 12),))
    zero = vectors.view(2, 8, 8) == 0
    assert zero.any()
    assert not zero.all()
    assert torch.equal(zero, zero.mT)
    assert not torch.equal(zero[0], zero[1])


@pytest.mark.parametrize(
    ('backbone', 'channels', 'class_tokens'),
    [
        (dict(type='VisionTransformer', **DEIT), 192, 1),
        (dict(type='DistilledVisionTransformer', **DEIT), 192, 2),
        (dict(type='SwinTransformer', arch='tiny', img_size=64, pad_small_map=True), 768, 0),
    ],
)
@pytest.mark.parametrize('kind', ['SoTHead', 'MomentProbingHead'])
def test_backbones_of_mmpretrain(kind, backbone, channels, class_tokens):
    head = dict(type=kind, num_classes=3, in_channels=channels, class_tokens=class_tokens)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head))
    images = torch.randn(2, 3, backbone['img_size'], backbone['img_size'])
    scores = network(images)
    assert scores.shape == (2, 3)
    scores.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.head.parameters())


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: SoTHead(5, 12, num_heads=0), 'num_heads.*got 0'),
        (lambda: SoTHead(5, 12, width=1), 'width.*got 1'),
        (lambda: SoTHead(5, 12, norm='log'), "norm.*got 'log'"),
        (lambda: MomentProbingHead(5, 12, 30, 4), '30 channels for 4 heads'),
        (lambda: MomentProbingHead(5, 12, 24, 4), 'at least 7'),
        (lambda: MomentProbingHead(5, 12, 28, 1), 'num_heads.*got 1'),
        (lambda: SoTHead(5, 12)((torch.ones(2, 12, 4, 4),)), r"\(2, 12, 4, 4\).*out_type='raw'"),
    ],
)
def test_wrong_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()
