"""Loading of a pretrained backbone is strict."""

import functools
import hashlib
import os
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import MultiStepLR

from gcp_mm.checkpoints import read_checkpoint
from gcp_mm.models import GCPResNet


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    return {
        key: torch.rand_like(value.float()) for key, value in GCPResNet(18).state_dict().items()
    }


@pytest.fixture
def classifier_file(backbone, tmp_path):
    """A checkpoint as MMPretrain's Runner writes it."""
    state = {f'backbone.{key}': value for key, value in backbone.items()}
    state['head.fc.weight'] = torch.zeros(10, 8256)
    path = tmp_path / 'epoch_5.pth'
    torch.save(dict(meta=dict(epoch=5), state_dict=state), path)
    return path


def build(path, prefix='backbone.', depth=18, conv5='none'):
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    if prefix is not None:
        init_cfg['prefix'] = prefix
    net = GCPResNet(depth, conv5, init_cfg=init_cfg)
    net.init_weights()
    return net


@pytest.mark.parametrize('conv5', ['none', 'stride', 'maxpool'])
def test_one_checkpoint_fills_every_variant(classifier_file, backbone, conv5):
    state = build(classifier_file, conv5=conv5).state_dict()
    assert state.keys() == backbone.keys()
    for key, value in backbone.items():
        torch.testing.assert_close(state[key], value.to(state[key].dtype), rtol=0, atol=0)


def test_prefix_may_lack_its_dot(classifier_file, backbone):
    state = build(classifier_file, prefix='backbone').state_dict()
    assert torch.equal(state['conv1.weight'], backbone['conv1.weight'])


def test_loads_within_a_classifier(classifier_file, backbone):
    from mmengine.registry import MODELS, DefaultScope

    config = dict(
        type='GCPResNet',
        depth=18,
        init_cfg=dict(type='Pretrained', checkpoint=str(classifier_file), prefix='backbone.'),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=config,
                neck=dict(type='GlobalCovariancePooling', in_channels=512, reduction=(8,)),
                head=dict(type='LinearClsHead', num_classes=10, in_channels=36),
            )
        )
    model.init_weights()
    assert torch.equal(model.backbone.conv1.weight, backbone['conv1.weight'])


def test_torchvision_file_without_prefix(backbone, tmp_path):
    path = tmp_path / 'resnet18.pth'
    torch.save({**backbone, 'fc.weight': torch.zeros(1000, 512)}, path)
    assert torch.equal(build(path, None).conv1.weight, backbone['conv1.weight'])


def test_file_older_than_the_batch_counter(backbone, tmp_path):
    path = tmp_path / 'old.pth'
    torch.save({k: v for k, v in backbone.items() if 'num_batches_tracked' not in k}, path)
    assert torch.equal(build(path, None).bn1.weight, backbone['bn1.weight'])


def test_wrong_prefix_names_the_right_one(classifier_file):
    with pytest.raises(ValueError, match=r"'encoder\.' holds none.*under prefix 'backbone\.'"):
        build(classifier_file, 'encoder.')


def test_forgotten_prefix_names_the_right_one(classifier_file):
    with pytest.raises(ValueError, match=r"prefix '' holds none.*under prefix 'backbone\.'"):
        build(classifier_file, None)


def test_foreign_keys_are_shown(tmp_path):
    path = tmp_path / 'vit.pth'
    torch.save({'blocks.0.attn.weight': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r'its keys are blocks\.0\.attn\.weight'):
        build(path)


def test_part_of_a_backbone_is_refused(backbone, tmp_path):
    path = tmp_path / 'part.pth'
    torch.save({k: v for k, v in backbone.items() if not k.startswith('layer4.1')}, path)
    with pytest.raises(ValueError, match=r'missing keys: layer4\.1\.conv1\.weight'):
        build(path, None)


def test_deeper_backbone_is_refused(tmp_path):
    path = tmp_path / 'resnet34.pth'
    torch.save(GCPResNet(34).state_dict(), path)
    with pytest.raises(ValueError, match=r'unexpected keys: layer1\.2\.conv1\.weight'):
        build(path, None)


def test_other_shapes_are_refused(backbone, tmp_path):
    path = tmp_path / 'wide.pth'
    torch.save({**backbone, 'conv1.weight': torch.zeros(64, 1, 7, 7)}, path)
    with pytest.raises(ValueError, match=r'conv1\.weight \(64, 1, 7, 7\) for \(64, 3, 7, 7\)'):
        build(path, None)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.pth.*does not exist; train'):
        build(tmp_path / 'none.pth')


@pytest.mark.parametrize('keep', [0, 1, 100, 5000, 100_000])
def test_truncated_file(classifier_file, keep):
    classifier_file.write_bytes(classifier_file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r'(?s)cannot be read .*truncated'):
        build(classifier_file)


@pytest.mark.parametrize('keep', [1, 100, 100_000])
def test_truncated_file_of_the_old_format(backbone, tmp_path, keep):
    path = tmp_path / 'old.pth'
    torch.save(backbone, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r'(?s)cannot be read .*truncated'):
        build(path)


def test_text_file(tmp_path):
    path = tmp_path / 'page.pth'
    path.write_text('<html>not found</html>')
    with pytest.raises(ValueError, match=r'(?s)cannot be read .*no checkpoint'):
        build(path)


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
    net = GCPResNet(18, init_cfg=change(right))
    net.init_weights()
    assert torch.equal(net.layer4[1].conv2.weight, backbone['layer4.1.conv2.weight'])
    with pytest.raises(ValueError, match='missing keys'):
        GCPResNet(34, init_cfg=change(right)).init_weights()


def test_checkpoint_has_to_be_a_path():
    with pytest.raises(TypeError, match=r'checkpoint.*None'):
        GCPResNet(18, init_cfg=dict(type='Pretrained', checkpoint=None)).init_weights()


def test_file_of_something_else(tmp_path):
    path = tmp_path / 'list.pth'
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match='holds a list'):
        build(path)


def test_web_page(tmp_path):
    path = tmp_path / 'resnet50.pth'
    path.write_text('<!DOCTYPE html><html>Google Drive - Quota exceeded</html>')
    with pytest.raises(ValueError, match=r'web page.*quota.*browser'):
        build(path)


@pytest.mark.parametrize('recent', [True, False])
def test_checkpoint_of_a_run_is_read_safely(recent, backbone, tmp_path, monkeypatch):
    """With the record of scalars that mmengine puts into it."""
    if not recent:
        monkeypatch.delattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', raising=False)
    history = HistoryBuffer()
    history.update(2.0)
    history.update(4.0)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=backbone, message_hub=dict(log_scalars=dict(loss=history))), path)
    content = read_checkpoint(path)
    assert content['message_hub']['log_scalars']['loss'].mean() == 3
    assert torch.equal(content['state_dict']['conv1.weight'], backbone['conv1.weight'])


class Calls:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize('recent', [True, False])
def test_milestones_of_a_schedule_are_read(recent, tmp_path, monkeypatch):
    if not recent:
        monkeypatch.delattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', raising=False)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1)
    state = MultiStepLR(optimizer, milestones=[8, 11, 11]).state_dict()
    torch.save(state, tmp_path / 'a.pth')
    assert read_checkpoint(tmp_path / 'a.pth') == state
    assert state['milestones'] == {8: 1, 11: 2}


@pytest.mark.parametrize('recent', [True, False])
@pytest.mark.parametrize(
    'content',
    [
        lambda sign: Calls(os.mkdir, sign),
        lambda sign: Calls(eval, f'__import__("os").mkdir({sign!r})'),
        lambda sign: Calls(getattr, HistoryBuffer, '__init__'),
        lambda sign: Calls(getattr, dict, 'fromkeys'),
    ],
    ids=['call', 'eval', 'private', 'other'],
)
@pytest.mark.parametrize('new_format', [True, False])
def test_nothing_is_executed(content, recent, new_format, tmp_path, monkeypatch):
    if not recent:
        monkeypatch.delattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', raising=False)
    path, sign = tmp_path / 'a.pth', tmp_path / 'sign'
    torch.save(dict(a=content(str(sign))), path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ValueError, match=r'more than tensors.*--trust'):
        read_checkpoint(path)
    assert not sign.exists()


def crafted(content, path):
    """A checkpoint whose pickle is `content`, beside PyTorch's own other records."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for name, record in records.items():
            archive.writestr(name, content if name.endswith('data.pkl') else record)


@pytest.mark.parametrize('recent', [True, False])
@pytest.mark.parametrize(
    'content',
    [
        # the state of a function: new defaults for it
        b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b.',
        # an array of Python objects
        b'\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ'
        b'\xff\xff\xff\xffK\x00tb.',
    ],
    ids=['function', 'dtype'],
)
def test_nothing_is_changed(content, recent, tmp_path, monkeypatch):
    if not recent:
        monkeypatch.delattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', raising=False)
    crafted(content, tmp_path / 'a.pth')
    before = torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(ValueError, match=r'a\.pth'):
        read_checkpoint(tmp_path / 'a.pth')
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


@pytest.mark.parametrize('recent', [True, False])
def test_statistics_of_a_file_stay_in_it(recent, tmp_path, monkeypatch):
    if not recent:
        monkeypatch.delattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', raising=False)
    buffer = HistoryBuffer()
    buffer.update(1.0)
    before = dict(HistoryBuffer._statistics_methods)
    with monkeypatch.context() as patch:
        patch.setitem(HistoryBuffer._statistics_methods, 'mean', 'poisoned')
        torch.save(buffer, tmp_path / 'a.pth')
    read_checkpoint(tmp_path / 'a.pth')
    assert HistoryBuffer._statistics_methods == before


def test_statistics_are_there_after_the_first_file(tmp_path, monkeypatch):
    """In a process that resumes and has made no history itself, as all but the main one."""
    buffer = HistoryBuffer()
    buffer.update(1.0)
    torch.save(buffer, tmp_path / 'a.pth')
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', {})
    assert read_checkpoint(tmp_path / 'a.pth').statistics('mean') == 1


def test_program_of_torchscript(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / 'a.pth'))
    with pytest.raises(ValueError, match='program of TorchScript'):
        read_checkpoint(tmp_path / 'a.pth')


def test_folder(tmp_path):
    with pytest.raises(ValueError, match='is a folder'):
        read_checkpoint(tmp_path)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that a web server on this machine offers, and its address."""
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(SimpleHTTPRequestHandler, 'log_message', lambda *_: None)
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        thread.join()


def test_download_is_checked_against_its_name(backbone, served, tmp_path):
    folder, address = served
    torch.save(backbone, folder / 'net.pth')
    digits = hashlib.sha256((folder / 'net.pth').read_bytes()).hexdigest()[:8]
    (folder / 'net.pth').rename(folder / f'net-{digits}.pth')
    weights = read_checkpoint(f'{address}/net-{digits}.pth')
    assert torch.equal(weights['conv1.weight'], backbone['conv1.weight'])
    (folder / f'net-{digits}.pth').unlink()
    assert read_checkpoint(f'{address}/net-{digits}.pth').keys() == weights.keys()  # kept

    torch.save(backbone, folder / 'net-01234567.pth')
    with pytest.raises(ValueError, match=r'promises the SHA-256 01234567.*removed'):
        read_checkpoint(f'{address}/net-01234567.pth')
    assert not list((tmp_path / 'hub').rglob('*01234567*'))


def test_web_page_instead_of_a_download(served):
    folder, address = served
    (folder / 'net.pth').write_text('<html>Sign in</html>')
    with pytest.raises(ValueError, match='web page'):
        read_checkpoint(f'{address}/net.pth')
    (folder / 'net.pth').unlink()
    torch.save({'a': torch.ones(1)}, folder / 'net.pth')
    assert read_checkpoint(f'{address}/net.pth').keys() == {'a'}  # the page was not kept


def test_addresses_that_end_alike(served):
    folder, address = served
    for name in ('x', 'y'):
        (folder / name).mkdir()
        torch.save({name: torch.ones(1)}, folder / name / 'net.pth')
    assert read_checkpoint(f'{address}/x/net.pth').keys() == {'x'}
    assert read_checkpoint(f'{address}/y/net.pth').keys() == {'y'}


def test_address_without_a_file(served):
    with pytest.raises(OSError, match=r'none\.pth.* cannot be downloaded'):
        read_checkpoint(f'{served[1]}/none.pth')
