"""The converter refuses what is not exactly a network of the paper, and names it."""

import hashlib
import re

import pytest
import torch
import torchvision

from gcp_mm.checkpoints import convert_checkpoint, read_checkpoint
from tests.helpers.foreign_networks import build, trainer_state
from tests.helpers.pickles import Creates


def save(content, path):
    torch.save(content, path)
    return path


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
        (lambda s: {f'backbone.{k}': v for k, v in s.items()}, 'already: backbone'),
        (lambda s: {}, 'not those of torchvision'),
        (lambda s: {**s, 'extra.weight': torch.zeros(1)}, '1 keys .*: extra'),
        (lambda s: {**s, 'layer1.0.se.weight': torch.zeros(1)}, r'unexpected .*: \S+\.se\.weight'),
        (lambda s: torchvision.models.wide_resnet50_2().state_dict(), 'other shapes: backbone'),
        (lambda s: torchvision.models.squeezenet1_0().state_dict(), 'not those of torchvision'),
    ],
)
def test_other_weights_are_refused(change, message, tmp_path):
    source = save(change(build('resnet18', 'gcp').state_dict()), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=rf'a\.pth.*{message}'):
        convert_checkpoint(source, tmp_path / 'ours.pth')
    assert [file.name for file in tmp_path.iterdir()] == ['a.pth']


def test_no_code_in_a_file_is_run(tmp_path):
    net, sign = build('resnet18', 'gap'), tmp_path / 'sign'
    source = save(dict(state_dict=net.state_dict(), args=Creates(sign)), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'\((posix|nt)\.mkdir\).*execute.*--trust'):
        convert_checkpoint(source, tmp_path / 'ours.pth')
    assert not sign.exists()
    convert_checkpoint(source, tmp_path / 'ours.pth', trust=True)
    assert sign.exists()  # so it is what the refusal prevented


def test_earlier_files_are_kept(tmp_path):
    source = save(build('resnet18', 'gap').state_dict(), tmp_path / 'resnet18.pth')
    target, before = tmp_path / 'ours.pth', source.read_bytes()
    (tmp_path / 'link.pth').symlink_to(source)
    target.write_text('earlier')
    for name, options, error, words in (
        ('ours.pth', {}, FileExistsError, r'ours\.pth exists.*--force'),
        ('resnet18.pth', dict(force=True), ValueError, r'resnet18\.pth.* is the source'),
        ('link.pth', dict(force=True), ValueError, r'link\.pth.* is the source'),
        ('ours.onnx', dict(force=True), ValueError, r'target.*ours\.onnx'),
    ):
        with pytest.raises(error, match=words):
            convert_checkpoint(source, tmp_path / name, **options)
    assert target.read_text() == 'earlier'
    published = convert_checkpoint(source, source, publish=True)
    digest = hashlib.sha256(published.read_bytes()).hexdigest()[:8]
    assert published.name == f'resnet18-{digest}.pth'
    assert convert_checkpoint(source, target, force=True) == target
    assert read_checkpoint(target)['meta']['architecture'] == 'resnet18'
    assert source.read_bytes() == before


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
    target = tmp_path / 'ours.pth'
    call_tool('tools/convert_checkpoint.py', source, target)
    recognized, written = capsys.readouterr().out.splitlines()
    assert recognized.startswith('recognized: ')
    assert said in recognized
    assert written == f'written: {target}'
