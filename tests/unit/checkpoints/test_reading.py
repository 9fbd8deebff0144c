"""Checkpoints are read without running what is in them; what is none is named."""

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

from gcp_mm.checkpoints import check_intact, read_checkpoint

WEIGHTS = {f'{i}.weight': torch.full((300, 300), float(i)) for i in range(3)}


@pytest.fixture(params=[True, False], ids=['recent', 'before 2.6'])
def any_pytorch(request, monkeypatch):
    """Read as with the installed PyTorch, and as with one whose reader knows no exceptions."""
    if not request.param:
        monkeypatch.delattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', raising=False)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'cannot be read .*ends after 0 bytes.*truncated'),
        (b'x', 'cannot be read .*no checkpoint'),
        (b'<!DOCTYPE html><html>Quota exceeded</html>', 'cannot be read .*web page.*browser'),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, content, message):
    (tmp_path / 'a.pth').write_bytes(content)
    for read in (read_checkpoint, check_intact):
        with pytest.raises(ValueError, match=rf"(?s)'{tmp_path}/a\.pth' {message}"):
            read(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    ('zipped', 'keep'), [(z, n) for z in (True, False) for n in (1, 100, 5000, 100_000)]
)
def test_truncated_file(tmp_path, zipped, keep):
    path = tmp_path / 'a.pth'
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=zipped)
    for read in (read_checkpoint, check_intact):
        read(path)
    path.write_bytes(path.read_bytes()[:keep])
    for read in (read_checkpoint, check_intact):
        with pytest.raises(ValueError, match=r'(?s)cannot be read .*truncated'):
            read(path)


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.pth.*does not exist; train'):
        read_checkpoint(tmp_path / 'none.pth')
    with pytest.raises(ValueError, match='is a folder'):
        read_checkpoint(tmp_path)
    with pytest.raises(TypeError, match=r'checkpoint.*None'):
        read_checkpoint(None)


def test_program_of_torchscript(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / 'a.pth'))
    with pytest.raises(ValueError, match='program of TorchScript'):
        read_checkpoint(tmp_path / 'a.pth', trust=True)


@pytest.mark.usefixtures('any_pytorch')
def test_checkpoint_of_a_run_is_read(tmp_path):
    """With mmengine's record of scalars, and the milestones of a schedule."""
    history = HistoryBuffer()
    history.update(2.0)
    history.update(4.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1)
    schedule = MultiStepLR(optimizer, milestones=[8, 11, 11]).state_dict()
    torch.save(dict(state_dict=WEIGHTS, loss=history, schedule=schedule), tmp_path / 'a.pth')
    content = read_checkpoint(tmp_path / 'a.pth')
    assert content['loss'].mean() == 3
    assert content['schedule'] == schedule
    assert content['schedule']['milestones'] == {8: 1, 11: 2}
    assert torch.equal(content['state_dict']['2.weight'], WEIGHTS['2.weight'])


class Calls:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.usefixtures('any_pytorch')
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
@pytest.mark.parametrize('zipped', [True, False])
def test_nothing_is_executed(content, zipped, tmp_path):
    path, sign = tmp_path / 'a.pth', tmp_path / 'sign'
    torch.save(dict(a=content(str(sign))), path, _use_new_zipfile_serialization=zipped)
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


@pytest.mark.usefixtures('any_pytorch')
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
def test_nothing_is_changed(content, tmp_path):
    crafted(content, tmp_path / 'a.pth')
    before = torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(ValueError, match=r'a\.pth'):
        read_checkpoint(tmp_path / 'a.pth')
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


@pytest.mark.usefixtures('any_pytorch')
def test_statistics_of_a_file_stay_in_it(tmp_path, monkeypatch):
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


def test_download_is_checked_against_its_name(served, tmp_path):
    folder, address = served
    torch.save(WEIGHTS, folder / 'net.pth')
    digits = hashlib.sha256((folder / 'net.pth').read_bytes()).hexdigest()[:8]
    (folder / 'net.pth').rename(folder / f'net-{digits}.pth')
    for _ in range(2):
        weights = read_checkpoint(f'{address}/net-{digits}.pth')
        assert torch.equal(weights['2.weight'], WEIGHTS['2.weight'])
        (folder / f'net-{digits}.pth').unlink(missing_ok=True)  # the second time it is kept

    torch.save(WEIGHTS, folder / 'net-01234567.pth')
    with pytest.raises(ValueError, match=r'promises the SHA-256 01234567.*removed'):
        read_checkpoint(f'{address}/net-01234567.pth')
    assert not list((tmp_path / 'hub').rglob('*01234567*'))


def test_web_page_instead_of_a_download(served):
    folder, address = served
    (folder / 'net.pth').write_text('<html>Sign in</html>')
    with pytest.raises(ValueError, match='web page'):
        read_checkpoint(f'{address}/net.pth')
    torch.save({'a': torch.ones(1)}, folder / 'net.pth')
    assert read_checkpoint(f'{address}/net.pth').keys() == {'a'}  # the page was not kept
    with pytest.raises(OSError, match=r'none\.pth.* cannot be downloaded'):
        read_checkpoint(f'{address}/none.pth')


def test_addresses_that_end_alike(served):
    folder, address = served
    for name in ('x', 'y'):
        (folder / name).mkdir()
        torch.save({name: torch.ones(1)}, folder / name / 'net.pth')
    assert read_checkpoint(f'{address}/x/net.pth').keys() == {'x'}
    assert read_checkpoint(f'{address}/y/net.pth').keys() == {'y'}
