"""Weights of other projects give the same scores under this project's names."""

import hashlib

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from gcp_mm import get_model
from gcp_mm.checkpoints import convert_checkpoint, read_checkpoint
from gcp_mm.hub import resolve_config
from tests.helpers.foreign_networks import NETWORKS, build, release, trainer_state

CONFIGS = {
    'resnet18': 'resnet18{}_8xb32-lrnorm_in1k',
    'resnet34': 'resnet34{}_8xb32-lrnorm_in1k',
    'resnet50': 'resnet50{}_8xb32-lrnorm_in1k',
    'resnet101': 'resnet101{}_8xb32-lrnorm_in1k',
    'mobilenet_v2': 'mobilenet-v2{}_4xb24-lrnorm_in1k',
    'shufflenet_v2': 'shufflenet-v2{}_4xb256-lrnorm_in1k',
}


def save(content, path):
    torch.save(content, path)
    return path


def check_scores(net, file, config, **kwargs):
    """Both networks' scores of a few images; ours is built from a config and filled strictly."""
    ours = get_model(config, file, **kwargs)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, scores = net(x), ours.head(ours.extract_feat(x))
    scale = expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * scale  # they depend on the image
    torch.testing.assert_close(scores / scale, expected / scale, rtol=0, atol=1e-5)
    return ours


@pytest.mark.parametrize('pooling', ['gap', 'gcp'])
@pytest.mark.parametrize(
    'architecture',
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ('resnet34', 'resnet101') else name
        for name in NETWORKS
    ],
)
def test_release_of_the_authors(architecture, pooling, tmp_path):
    net = build(architecture, pooling)
    source = save(release(net, architecture), tmp_path / 'model_best.pth.tar')
    file = convert_checkpoint(source, tmp_path / 'ours.pth', publish=True)
    config = CONFIGS[architecture].format('-gcp' if pooling == 'gcp' else '')
    check_scores(net, file, config, head=dict(num_classes=7))

    content = read_checkpoint(file)
    assert content['meta']['architecture'] == architecture
    assert content['meta']['reduction'] == ((256,) if pooling == 'gcp' else None)
    assert content['meta']['num_classes'] == 7
    assert content['meta']['source_sha256'] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert file.name == f'ours-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth'


@pytest.mark.parametrize('architecture', ['resnet50', 'mobilenet_v2', 'shufflenet_v2'])
def test_128_channels(architecture, tmp_path):
    net = build(architecture, 'gcp', d=128)
    file = convert_checkpoint(save(release(net, ''), tmp_path / 'a.pth'), tmp_path / 'ours.pth')
    options = dict(neck=dict(reduction=(128,)), head=dict(num_classes=7, in_channels=8256))
    check_scores(net, file, CONFIGS[architecture].format('-gcp'), **options)


@pytest.mark.parametrize(
    ('depth', 'prefix'), [(50, ''), pytest.param(101, 'module.', marks=pytest.mark.slow)]
)
def test_trainer_of_isqrt_cov(depth, prefix, tmp_path):
    net = build(f'resnet{depth}', 'gcp')
    state = {prefix + key: value for key, value in trainer_state(net).items()}
    source = save(dict(epoch=1, state_dict=state), tmp_path / 'checkpoint.pth.tar')
    file = convert_checkpoint(source, tmp_path / 'ours.pth')
    check_scores(net, file, CONFIGS[f'resnet{depth}'].format('-gcp'), head=dict(num_classes=7))


def test_release_of_isqrt_cov(tmp_path):
    """The same names without a wrapper, and no counters of batches, older than they are."""
    net = build('resnet50', 'gcp')
    state = {k: v for k, v in net.state_dict().items() if not k.endswith('num_batches_tracked')}
    file = convert_checkpoint(save(state, tmp_path / 'a.pth'), tmp_path / 'ours.pth')
    ours = check_scores(net, file, CONFIGS['resnet50'].format('-gcp'), head=dict(num_classes=7))
    assert read_checkpoint(file)['state_dict'].keys() == ours.state_dict().keys()


@pytest.mark.parametrize(('depth', 'pooling'), [(18, 'gap'), (18, 'gcp'), (50, 'gcp')])
def test_there_and_back(depth, pooling, tmp_path):
    net = build(f'resnet{depth}', pooling)
    ours = convert_checkpoint(save(net.state_dict(), tmp_path / 'a.pth'), tmp_path / 'ours.pth')
    back = read_checkpoint(convert_checkpoint(ours, tmp_path / 'back.pth', reverse=True))
    assert back.keys() == net.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize('variant', ['d', 'm'])
def test_detector_of_a_config_starts_from_it(variant, tmp_path):
    net = build('resnet18', 'gcp')
    file = convert_checkpoint(
        save(release(net, 'resnet18'), tmp_path / 'a.pth'),
        tmp_path / 'backbone.pth',
        backbone_only=True,
    )
    assert all(key.startswith('backbone.') for key in read_checkpoint(file)['state_dict'])
    cfg = resolve_config(f'faster-rcnn_r18-gcp-{variant}_fpn_4e_digits')
    cfg.model.backbone.init_cfg.checkpoint = str(file)
    init_default_scope('mmdet')
    detector = MODELS.build(cfg.model)
    detector.init_weights()  # raises unless all of the backbone is filled
    expected = net.state_dict()
    for key, value in detector.backbone.state_dict().items():
        assert torch.equal(value, expected[key]), key
