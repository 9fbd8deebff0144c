"""Weights of other projects give the same scores under this project's names."""

import hashlib
import re

import pytest
import torch

from gcp_mm import get_model
from gcp_mm.checkpoints import convert_checkpoint, load_pretrained, read_checkpoint
from gcp_mm.models import GCPResNet
from tests.helpers.foreign_networks import NETWORKS, build, release, trainer_state
from tests.helpers.pickles import Creates

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
        pytest.param(name, marks=pytest.mark.slow) if name == 'resnet101' else name
        for name in NETWORKS
    ],
)
def test_release_of_the_authors(architecture, pooling, tmp_path):
    net = build(architecture, pooling)
    source = save(release(net, architecture), tmp_path / 'model_best.pth.tar')
    file = convert_checkpoint(source, tmp_path / 'ours.pth')
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


@pytest.mark.parametrize('pooling', ['gap', 'gcp'])
@pytest.mark.parametrize('depth', [18, 50])
def test_there_and_back(depth, pooling, tmp_path):
    net = build(f'resnet{depth}', pooling)
    ours = convert_checkpoint(save(net.state_dict(), tmp_path / 'a.pth'), tmp_path / 'ours.pth')
    back = read_checkpoint(convert_checkpoint(ours, tmp_path / 'back.pth', reverse=True))
    assert back.keys() == net.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in net.state_dict().items())
    net.load_state_dict(back)


@pytest.mark.parametrize('conv5', ['stride', 'maxpool'])
def test_backbone_alone_fills_the_detectors_backbone(conv5, tmp_path):
    net = build('resnet50', 'gcp')
    source = save(release(net, 'resnet50'), tmp_path / 'a.pth')
    file = convert_checkpoint(source, tmp_path / 'backbone.pth', backbone_only=True)
    assert all(key.startswith('backbone.') for key in read_checkpoint(file)['state_dict'])
    backbone = GCPResNet(50, conv5)
    load_pretrained(backbone, file, prefix='backbone.')
    expected = net.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize('variant', ['d', 'm'])
def test_detector_of_a_config_starts_from_it(variant, tmp_path):
    from mmengine.registry import MODELS, init_default_scope

    from gcp_mm.hub import resolve_config

    net = build('resnet18', 'gcp')
    file = convert_checkpoint(
        save(release(net, 'resnet18'), tmp_path / 'a.pth'),
        tmp_path / 'backbone.pth',
        backbone_only=True,
    )
    cfg = resolve_config(f'faster-rcnn_r18-gcp-{variant}_fpn_4e_digits')
    cfg.model.backbone.init_cfg.checkpoint = str(file)
    init_default_scope('mmdet')
    detector = MODELS.build(cfg.model)
    detector.init_weights()  # raises unless the whole backbone is filled
    expected = net.state_dict()
    for key, value in detector.backbone.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_leftover_weights_are_listed(tmp_path):
    state = {**build('resnet18', 'gcp').state_dict(), 'extra.weight': torch.zeros(1)}
    state['layer1.0.se.weight'] = torch.zeros(1)
    source = save(state, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'a\.pth.*1 keys .*: extra'):
        convert_checkpoint(source, tmp_path / 'ours.pth')
    del state['extra.weight']
    save(state, source)
    with pytest.raises(ValueError, match=r'left over: backbone\.layer1\.0\.se\.weight'):
        convert_checkpoint(source, tmp_path / 'ours.pth')
    assert [file.name for file in tmp_path.iterdir()] == ['a.pth']


def without(pattern):
    return lambda state: {k: v for k, v in state.items() if not re.search(pattern, k)}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (without(r'layer2\.1\.bn1'), r'missing: backbone\.layer2\.1\.bn1\.bias'),
        (without(r'layer4\.1'), r'no ResNet of the paper has \[2, 2, 2, 1\] basic blocks'),
        (without(r'^fc'), 'there is no classifier'),
        (lambda s: {**s, 'conv1.weight': torch.zeros(64, 1, 7, 7)}, r'\(64, 1, 7, 7\) for'),
        (lambda s: {**s, 'layer_reduce.weight': torch.zeros(128, 512, 1, 1)}, 'D = 128 channels'),
        (lambda s: {'blocks.0.weight': torch.zeros(1)}, 'not those of torchvision.*blocks'),
        (lambda s: {**s, 'conv1.weight': 3}, r'other things than tensors .*: conv1\.weight'),
        (lambda s: {f'backbone.{k}': v for k, v in s.items()}, 'already .*--reverse'),
        (lambda s: {}, 'not those of torchvision'),
    ],
)
def test_other_weights_are_refused(change, message, tmp_path):
    source = save(change(build('resnet18', 'gcp').state_dict()), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(source, tmp_path / 'ours.pth')


@pytest.mark.parametrize('name', ['wide_resnet50_2', 'resnext50_32x4d', 'squeezenet1_0'])
def test_torchvisions_other_networks_are_refused(name, tmp_path):
    import torchvision

    state = getattr(torchvision.models, name)().state_dict()
    with pytest.raises(ValueError, match=r'of another shape: backbone|not those of torchvision'):
        convert_checkpoint(save(state, tmp_path / 'a.pth'), tmp_path / 'ours.pth')


def test_way_back_of_another_network(tmp_path):
    source = save(build('resnet18', 'gap').state_dict(), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match="not those of this project's ResNets"):
        convert_checkpoint(source, tmp_path / 'back.pth', reverse=True)


def test_no_code_in_a_file_is_run(tmp_path):
    net, sign = build('resnet18', 'gap'), tmp_path / 'sign'
    source = save(dict(state_dict=net.state_dict(), args=Creates(sign)), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'\((posix|nt)\.mkdir\).*execute.*--trust'):
        convert_checkpoint(source, tmp_path / 'ours.pth')
    assert not sign.exists()
    convert_checkpoint(source, tmp_path / 'ours.pth', trust=True)
    assert sign.exists()  # so it is what the refusal prevented


def test_an_earlier_target_is_kept(tmp_path):
    source = save(build('resnet18', 'gap').state_dict(), tmp_path / 'a.pth')
    file = convert_checkpoint(source, tmp_path / 'ours.pth')
    other = save(build('resnet34', 'gap').state_dict(), tmp_path / 'b.pth')
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match=r'ours-[0-9a-f]{8}\.pth exists.*--force'):
        convert_checkpoint(other, tmp_path / 'ours.pth')
    assert file.read_bytes() == before
    new = convert_checkpoint(other, tmp_path / 'ours.pth', force=True)
    assert read_checkpoint(new)['meta']['architecture'] == 'resnet34'
    assert file.read_bytes() == before


def test_a_source_with_a_hash_in_its_name_is_no_target(tmp_path):
    source = save(build('resnet18', 'gap').state_dict(), tmp_path / 'resnet18-f37072fd.pth')
    before = source.read_bytes()
    file = convert_checkpoint(source, tmp_path / 'resnet18.pth')
    assert file != source
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ('target', 'options', 'message'),
    [
        ('ours.onnx', {}, r'ends in \.pth'),
        ('ours.pth', dict(backbone_only=True, reverse=True), 'backbone_only, reverse'),
    ],
)
def test_wrong_arguments(target, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / 'a.pth', tmp_path / target, **options)


def test_source_is_absent(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        convert_checkpoint(tmp_path / 'none.pth', tmp_path / 'ours.pth')


def test_tool(call_tool, tmp_path, capsys):
    source = save(build('resnet18', 'gcp').state_dict(), tmp_path / 'a.pth')
    tool = 'tools/convert_checkpoint.py'
    call_tool(tool, source, tmp_path / 'backbone.pth', '--backbone-only')
    (file,) = tmp_path.glob('backbone-*.pth')
    assert f'written: {file}' in capsys.readouterr().out
    load_pretrained(GCPResNet(18), file, prefix='backbone.')
