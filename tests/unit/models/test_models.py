"""The neck and the backbone through mmengine's registry."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

import gcp_mm  # noqa: F401
from gcp_mm.models import DropoutLinearClsHead, GCPResNet, GCPShuffleNetV2, GlobalCovariancePooling
from gcp_mm.ops import MATRIX_NORMS, global_covariance_pooling

NARROW = dict(stem_channels=8, base_channels=8)


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet'])
def test_registered_for_both_frameworks(scope):
    with DefaultScope.overwrite_default_scope(scope):
        neck = MODELS.build(dict(type='GlobalCovariancePooling', in_channels=8))
        backbone = MODELS.build(dict(type='GCPResNet', depth=18))
    assert isinstance(neck, GlobalCovariancePooling)
    assert isinstance(backbone, GCPResNet)


@pytest.mark.parametrize(('reduction', 'length'), [((256,), 32896), ((256, 128), 8256), ((), 136)])
def test_neck_reduces_then_pools(reduction, length):
    neck = GlobalCovariancePooling(16, reduction).eval()
    x = torch.randn(2, 16, 7, 7)
    assert neck.out_channels == length
    reduced = x
    for layer in neck.reduction:
        assert layer.conv.bias is None
        reduced = layer.activate(layer.norm(layer.conv(reduced)))
    (out,) = neck((x,))
    assert out.shape == (2, length)
    torch.testing.assert_close(out, global_covariance_pooling(reduced))
    torch.testing.assert_close(neck(x), out)


@pytest.mark.parametrize('class_tokens', [0, 1, 2])
def test_tokens_are_positions(class_tokens):
    neck = GlobalCovariancePooling(8, (4,), class_tokens=class_tokens).eval()
    tokens = torch.randn(2, class_tokens + 6, 8)
    feature_map = tokens[:, class_tokens:].transpose(1, 2).reshape(2, 8, 2, 3)
    of_maps = GlobalCovariancePooling(8, (4,)).eval()
    of_maps.load_state_dict(neck.state_dict())
    torch.testing.assert_close(neck(tokens), of_maps(feature_map))
    (pooled,) = neck((tokens,))
    torch.testing.assert_close(pooled, of_maps(feature_map))


@pytest.mark.parametrize(
    'options',
    [*(dict(iterations=3, norm=norm) for norm in MATRIX_NORMS), dict(norm='power', exponent=0.3)],
)
def test_neck_options_reach_the_layer(options):
    maps = [torch.randn(2, 4, 5, 5), torch.randn(2, 4, 3, 3)]
    out = GlobalCovariancePooling(4, (), **options)(maps)
    assert isinstance(out, tuple)
    for pooled, x in zip(out, maps, strict=True):
        torch.testing.assert_close(pooled, global_covariance_pooling(x, **options))


def test_neck_options_choose_its_layers():
    neck = GlobalCovariancePooling(8, (64,), norm='none', dropcov=True, act_cfg=dict(type='ReLU6'))
    assert 'dropcov.attention.weight' in neck.state_dict()
    assert isinstance(neck.reduction[0].activate, torch.nn.ReLU6)


def test_neck_dtype_under_autocast_and_in_half_precision():
    neck = GlobalCovariancePooling(8, (4,)).eval()
    x = torch.randn(2, 8, 5, 5)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert neck(x).dtype == torch.float32
    assert neck.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ('kwargs', 'error', 'words'),
    [
        (dict(in_channels=0), ValueError, 'in_channels.*got 0'),
        (dict(in_channels=8, reduction=256), TypeError, r'reduction.*\(256,\).*got 256'),
        (dict(in_channels=8, reduction=(4, -1)), ValueError, 'reduction.*got -1'),
        (dict(in_channels=8, norm='none', method='circuit'), ValueError, "circuit.*norm='none'"),
        (dict(in_channels=8, class_tokens=-1), ValueError, 'class_tokens.*got -1'),
    ],
)
def test_neck_refuses_wrong_arguments(kwargs, error, words):
    with pytest.raises(error, match=words):
        GlobalCovariancePooling(**kwargs)


@pytest.mark.parametrize(
    ('class_tokens', 'x', 'words'),
    [
        (None, torch.full((1, 8, 3, 3), torch.nan), 'NaN'),
        (None, torch.full((1, 8, 3, 3), torch.inf), 'infinity'),
        (1, torch.ones(2, 1, 8), r'class_tokens=1, got \(2, 1, 8\)'),
        (1, torch.ones(2, 5, 6), r'\(B, N, 8\)'),
    ],
)
def test_neck_refuses_wrong_features(class_tokens, x, words):
    with pytest.raises(ValueError, match=words):
        GlobalCovariancePooling(8, (4,), class_tokens=class_tokens)(x)


@pytest.mark.parametrize('depth', [18, 50])
def test_variants_share_their_keys_with_torchvision(depth):
    torchvision = pytest.importorskip('torchvision')
    reference = getattr(torchvision.models, f'resnet{depth}')(weights=None).state_dict()
    expected = {k: v.shape for k, v in reference.items() if not k.startswith('fc.')}
    for conv5 in ('none', 'stride', 'maxpool'):
        state = GCPResNet(depth, conv5).state_dict()
        assert {k: v.shape for k, v in state.items()} == expected


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('size', [(64, 64), (97, 65), (33, 130), (95, 63)])
def test_stride_and_maxpool_give_the_same_sizes(depth, size):
    maps = {}
    for conv5 in ('none', 'stride', 'maxpool'):
        net = GCPResNet(depth, conv5, out_indices=(2, 3), **NARROW)
        assert net.eval() is net
        with torch.no_grad():
            maps[conv5] = [tuple(out.shape[2:]) for out in net(torch.rand(1, 3, *size))]
    conv4, conv5 = maps['stride']
    assert conv5 == tuple(-(-n // 2) for n in conv4)
    assert maps['maxpool'] == [conv4, conv5]
    assert maps['none'] == [conv4, conv4]


def test_stride_variant_is_mmpretrains_resnet():
    from mmpretrain.models.backbones import ResNet

    ours, theirs = GCPResNet(18, 'stride', **NARROW), ResNet(18, **NARROW)
    ours.eval(), theirs.eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(1, 3, 70, 50)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_maxpool_variant_pools_before_conv5():
    net = GCPResNet(18, 'maxpool', out_indices=(2, 3), **NARROW)
    net.eval()
    conv4, conv5 = net(torch.rand(1, 3, 64, 64))
    pooled = torch.nn.functional.max_pool2d(conv4, 3, stride=2, padding=1)
    torch.testing.assert_close(conv5, net.layer4(pooled))


def test_last_bn_is_not_initialized_to_zero():
    net = GCPResNet(18, **NARROW)
    net.init_weights()
    assert (net.layer4[1].bn2.weight == 1).all()


@pytest.mark.parametrize(
    ('args', 'kwargs', 'error', 'words'),
    [
        ((20,), {}, ValueError, 'depth.*18, 34, 50, 101, 152.*got 20'),
        (('50',), {}, ValueError, "depth.*got '50'"),
        ((18, 'pool'), {}, ValueError, "conv5.*'none', 'stride', 'maxpool'.*got 'pool'"),
        ((18,), dict(strides=(1, 2, 2, 2)), TypeError, "multiple values.*'strides'"),
        ((18,), dict(num_stages=3, out_indices=(2,)), ValueError, 'num_stages=3'),
    ],
)
def test_backbone_refuses_wrong_arguments(args, kwargs, error, words):
    with pytest.raises(error, match=words):
        GCPResNet(*args, **kwargs)


def test_other_devices_are_looked_at_once():
    """The first batch is always looked at; later ones on a CPU alone."""
    neck = GlobalCovariancePooling(2, ())
    with pytest.raises(ValueError, match='NaN'):
        neck(torch.full((1, 2, 3, 3), torch.nan))
    assert neck(torch.ones(1, 2, 3, 3, device='meta')).shape == (1, 3)


def test_dropout_head_drops_in_training_alone():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        head = MODELS.build(
            dict(type='DropoutLinearClsHead', num_classes=3, in_channels=400, dropout=0.3)
        )
    x = torch.ones(1, 400)
    kept = head.pre_logits((x,))
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 1 / 0.7]))
    assert (kept == 0).float().mean() == pytest.approx(0.3, abs=0.1)
    torch.testing.assert_close(head.eval()((x,)), head.fc(x))
    assert head.state_dict().keys() == {'fc.weight', 'fc.bias'}
    with pytest.raises(ValueError, match=r'dropout.*got 2'):
        DropoutLinearClsHead(num_classes=3, in_channels=4, dropout=2)


@pytest.mark.parametrize('several', [False, True])
def test_shufflenet_keeps_a_pretrained_backbone(several, tmp_path):
    weights, path = GCPShuffleNetV2().state_dict(), tmp_path / 'backbone.pth'
    torch.save(weights, path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    net = GCPShuffleNetV2(init_cfg=[init_cfg] if several else init_cfg)
    net.init_weights()
    assert all(torch.equal(weights[key], value) for key, value in net.state_dict().items())
    torch.save({key: weights[key] for key in [*weights][:-9]}, path)
    with pytest.raises(ValueError, match='missing keys'):
        net.init_weights()
