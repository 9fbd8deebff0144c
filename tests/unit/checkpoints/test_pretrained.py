"""Loading of a pretrained backbone is strict."""

import pytest
import torch
from torch import nn

from gcp_mm.checkpoints import load_pretrained
from gcp_mm.models import GCPResNet, GlobalCovariancePooling

NARROW = dict(stem_channels=8, base_channels=8)


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    state = GCPResNet(18, **NARROW).state_dict()
    return {key: torch.rand_like(value.float()) for key, value in state.items()}


@pytest.fixture
def classifier_file(backbone, tmp_path):
    """A checkpoint as MMPretrain's Runner writes it."""
    state = {f'backbone.{key}': value for key, value in backbone.items()}
    state['head.fc.weight'] = torch.zeros(10, 8256)
    path = tmp_path / 'epoch_5.pth'
    torch.save(dict(meta=dict(epoch=5), state_dict=state), path)
    return path


def build(path, prefix='backbone.', depth=18, conv5='none'):
    init_cfg = dict(type='Pretrained', checkpoint=path)
    if prefix is not None:
        init_cfg['prefix'] = prefix
    net = GCPResNet(depth, conv5, init_cfg=init_cfg, **NARROW)
    net.init_weights()
    return net


@pytest.mark.parametrize('prefix', ['backbone.', 'backbone'])
@pytest.mark.parametrize('conv5', ['none', 'stride', 'maxpool'])
def test_one_checkpoint_fills_every_variant(classifier_file, backbone, conv5, prefix):
    state = build(classifier_file, prefix, conv5=conv5).state_dict()
    assert state.keys() == backbone.keys()
    for key, value in backbone.items():
        torch.testing.assert_close(state[key], value.to(state[key].dtype), rtol=0, atol=0)


def test_files_without_prefix_and_without_counters(backbone, tmp_path):
    """As torchvision's, and those older than PyTorch 0.4.1."""
    state = {key: w for key, w in backbone.items() if 'num_batches_tracked' not in key}
    torch.save({**state, 'fc.weight': torch.zeros(1000, 512)}, tmp_path / 'a.pth')
    net = build(tmp_path / 'a.pth', None)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize('prefix', ['encoder.', None])
def test_wrong_prefix_names_the_right_one(classifier_file, prefix):
    wrong = f"prefix '{prefix or ''}' holds none".replace('.', r'\.')
    with pytest.raises(ValueError, match=rf"{wrong}.*under prefix 'backbone\.'"):
        build(classifier_file, prefix)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda s: {k: v for k, v in s.items() if not k.startswith('layer4.1')},
            r'missing keys: layer4\.1\.conv1\.weight',
        ),
        (
            lambda s: s | {'layer1.2.conv1.weight': torch.zeros(1)},
            r'unexpected keys: layer1\.2\.conv1\.weight',
        ),
        (
            lambda s: s | {'conv1.weight': torch.zeros(8, 1, 7, 7)},
            r'conv1\.weight \(8, 1, 7, 7\) for \(8, 3, 7, 7\)',
        ),
        (
            lambda s: {'blocks.0.attn.weight': torch.zeros(1)},
            r'its keys are blocks\.0\.attn\.weight',
        ),
        (lambda s: [1, 2], 'holds a list'),
    ],
)
def test_other_weights_are_refused(backbone, tmp_path, change, message):
    torch.save(change(backbone), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=message):
        build(tmp_path / 'a.pth', None)


@pytest.mark.parametrize(
    'change',
    [
        lambda c: [dict(type='Kaiming', layer='Conv2d'), c],
        lambda c: {**c, 'type': 'mmengine.Pretrained'},
    ],
    ids=['list', 'scope'],
)
def test_every_form_of_init_cfg_is_strict(backbone, classifier_file, change):
    right = dict(type='Pretrained', checkpoint=str(classifier_file), prefix='backbone.')
    net = GCPResNet(18, init_cfg=change(right), **NARROW)
    net.init_weights()
    assert torch.equal(net.layer4[1].conv2.weight, backbone['layer4.1.conv2.weight'])
    with pytest.raises(ValueError, match='missing keys'):
        GCPResNet(34, init_cfg=change(right), **NARROW).init_weights()


@pytest.mark.parametrize(
    ('reduction', 'prefix', 'message'),
    [
        ((6,), 'neck.', 'of another network than this GlobalCovariancePooling'),
        ((6, 4, 2), 'neck.', 'of another network than this GlobalCovariancePooling'),
        ((6, 4), 'backbone.', r"it does under prefix 'neck\.'"),
    ],
)
def test_neck_is_strict_too(tmp_path, reduction, prefix, message):
    state = GlobalCovariancePooling(8, (6, 4)).state_dict()
    torch.save({f'neck.{key}': value for key, value in state.items()}, tmp_path / 'x.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'), prefix=prefix)
    with pytest.raises(ValueError, match=message):
        GlobalCovariancePooling(8, reduction, init_cfg=init_cfg).init_weights()


def test_weights_that_only_training_uses_may_be_absent(tmp_path):
    """A network trained without DropCov is a start for one with it, if it has the reduction."""
    trained, neck = (GlobalCovariancePooling(8, (4,), dropcov=dropcov) for dropcov in (False, True))
    attention = neck.dropcov.attention.weight.clone()
    torch.save(trained.state_dict(), tmp_path / 'neck.pth')
    load_pretrained(neck, tmp_path / 'neck.pth')
    assert torch.equal(neck.dropcov.attention.weight, attention)
    for name, value in trained.state_dict().items():
        assert torch.equal(neck.state_dict()[name], value)
    network = nn.Sequential(nn.Identity(), neck)  # the same in a whole network
    torch.save({f'1.{key}': w for key, w in trained.state_dict().items()}, tmp_path / 'net.pth')
    load_pretrained(network, tmp_path / 'net.pth')
    torch.save({'dropcov.attention.weight': attention}, tmp_path / 'neck.pth')
    with pytest.raises(ValueError, match='reduction'):
        load_pretrained(neck, tmp_path / 'neck.pth')
