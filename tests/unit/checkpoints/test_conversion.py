"""The converter refuses what is not exactly a network of the paper, and names it."""

import re

import pytest
import torch
import torchvision

from gcp_mm.checkpoints import convert_checkpoint, load_pretrained, read_checkpoint
from gcp_mm.models import GCPResNet
from tests.helpers.foreign_networks import build, trainer_state
from tests.helpers.pickles import Creates


def save(content, path):
    torch.save(content, path)
    return path


def test_leftover_weights_are_listed(tmp_path):
    state = {**build('resnet18', 'gcp').state_dict(), 'extra.weight': torch.zeros(1)}
    state['layer1.0.se.weight'] = torch.zeros(1)
    source = save(state, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'a\.pth.*1 keys .*: extra'):
        convert_checkpoint(source, tmp_path / 'ours.pth')
    del state['extra.weight']
    save(state, source)
    with pytest.raises(ValueError, match=r'unexpected keys: backbone\.layer1\.0\.se\.weight'):
        convert_checkpoint(source, tmp_path / 'ours.pth')
    assert [file.name for file in tmp_path.iterdir()] == ['a.pth']


def without(pattern):
    return lambda state: {k: v for k, v in state.items() if not re.search(pattern, k)}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (without(r'layer2\.1\.bn1'), r'missing keys: backbone\.layer2\.1\.bn1\.weight'),
        (without(r'layer4\.1'), r'no ResNet of the paper has \[2, 2, 2, 1\] basic blocks'),
        (without(r'^fc'), 'there is no classifier'),
        (lambda s: {**s, 'conv1.weight': torch.zeros(64, 1, 7, 7)}, r'\(64, 1, 7, 7\) for'),
        (lambda s: {**s, 'layer_reduce.weight': torch.zeros(128, 512, 1, 1)}, 'D = 128 channels'),
        (lambda s: {'blocks.0.weight': torch.zeros(1)}, 'not those of torchvision.*blocks'),
        (lambda s: {**s, 'conv1.weight': 3}, r'other things than tensors .*: conv1\.weight'),
        (lambda s: {f'backbone.{k}': v for k, v in s.items()}, 'already .*--reverse'),
        (lambda s: {}, 'not those of torchvision'),
        (lambda s: dict(state_dict=s, args=Creates('absent/sign')), 'mkdir.*execute.*--trust'),
    ],
)
def test_other_weights_are_refused(change, message, tmp_path):
    source = save(change(build('resnet18', 'gcp').state_dict()), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(source, tmp_path / 'ours.pth')


@pytest.mark.parametrize('name', ['wide_resnet50_2', 'squeezenet1_0'])
def test_torchvisions_other_networks_are_refused(name, tmp_path):
    state = getattr(torchvision.models, name)().state_dict()
    with pytest.raises(ValueError, match=r'other shapes: backbone|not those of torchvision'):
        convert_checkpoint(save(state, tmp_path / 'a.pth'), tmp_path / 'ours.pth')


def test_way_back_of_another_network(tmp_path):
    source = save(build('resnet18', 'gap').state_dict(), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match="not those of this project's ResNets"):
        convert_checkpoint(source, tmp_path / 'back.pth', reverse=True)


def test_an_earlier_target_is_kept(tmp_path):
    source = save(build('resnet18', 'gap').state_dict(), tmp_path / 'a.pth')
    target = tmp_path / 'ours.pth'
    target.write_text('earlier')
    with pytest.raises(FileExistsError, match=r'ours\.pth exists.*--force'):
        convert_checkpoint(source, target)
    assert target.read_text() == 'earlier'
    convert_checkpoint(source, target, force=True)
    assert read_checkpoint(target)['meta']['architecture'] == 'resnet18'


def test_source_is_not_written_over(tmp_path):
    source = save(build('resnet18', 'gap').state_dict(), tmp_path / 'resnet18.pth')
    before = source.read_bytes()
    (tmp_path / 'link.pth').symlink_to(source)
    for target in ('resnet18.pth', 'link.pth'):
        with pytest.raises(ValueError, match=rf'{target}.* is the source'):
            convert_checkpoint(source, tmp_path / target, force=True)
    assert source.read_bytes() == before


def test_a_source_with_a_hash_in_its_name_is_no_target(tmp_path):
    source = save(build('resnet18', 'gap').state_dict(), tmp_path / 'resnet18-f37072fd.pth')
    before = source.read_bytes()
    file = convert_checkpoint(source, tmp_path / 'resnet18.pth', publish=True)
    assert file != source
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ('target', 'options', 'error', 'message'),
    [
        ('ours.onnx', {}, ValueError, r'target.*ours\.onnx'),
        ('ours.pth', dict(backbone_only=True, reverse=True), ValueError, 'backbone_only, reverse'),
        ('ours.pth', {}, FileNotFoundError, r'a\.pth'),
    ],
)
def test_wrong_arguments(target, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        convert_checkpoint(tmp_path / 'a.pth', tmp_path / target, **options)


NAMES = "resnet18 with GCP, reduction=(256,), 7 classes, by the names of the paper's authors"


@pytest.mark.parametrize(
    ('pooling', 'trainer', 'said'),
    [
        ('gcp', False, NAMES),
        ('gap', False, 'resnet18 with GAP, 7 classes, by the names of torchvision'),
        ('gcp', True, "by the names of iSQRT-COV's trainer"),
    ],
)
def test_tool_says_what_it_recognized(call_tool, tmp_path, capsys, pooling, trainer, said):
    net = build('resnet18', pooling)
    source = save(trainer_state(net) if trainer else net.state_dict(), tmp_path / 'a.pth')
    target = tmp_path / 'backbone.pth'
    call_tool('tools/convert_checkpoint.py', source, target, '--backbone-only')
    recognized, written = capsys.readouterr().out.splitlines()
    assert recognized.startswith('recognized: ')
    assert said in recognized
    assert written == f'written: {target}'
    load_pretrained(GCPResNet(18), target, prefix='backbone.')


def test_tool_on_the_way_back(call_tool, tmp_path, capsys):
    net, tool = build('resnet18', 'gap'), 'tools/convert_checkpoint.py'
    ours = convert_checkpoint(save(net.state_dict(), tmp_path / 'a.pth'), tmp_path / 'ours.pth')
    call_tool(tool, ours, tmp_path / 'back.pth', '--reverse')
    assert capsys.readouterr().out == f'written: {tmp_path}/back.pth\n'
