"""Checkpoints are found, intact and of PyTorch's formats; what is none is named."""

import functools
import hashlib
import tarfile
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from gcp_mm.checkpoints import check_checkpoint_file, check_intact, read_checkpoint
from gcp_mm.checkpoints.reading import NAMED
from tests.helpers.pickles import Creates

WEIGHTS = {f'{i}.weight': torch.full((300, 300), float(i)) for i in range(3)}


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


@pytest.mark.parametrize(
    ('path', 'error', 'words'),
    [
        ('epoch_5.pth', FileNotFoundError, r"epoch_5\.pth' does not .*'/.+/epoch_4\.pth'\?"),
        ('none.pt', FileNotFoundError, r'none\.pt.*does not exist; train'),
        ('', ValueError, 'is a folder'),
        (None, TypeError, r'checkpoint.*None'),
    ],
)
def test_paths_that_are_no_file(tmp_path, path, error, words):
    (tmp_path / 'epoch_4.pth').touch()
    with pytest.raises(error, match=words):
        read_checkpoint(path if path is None else tmp_path / path)


def test_program_of_torchscript(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / 'a.pth'))
    with pytest.raises(ValueError, match='program of TorchScript'):
        read_checkpoint(tmp_path / 'a.pth', trust=True)


def test_archives_that_pytorch_does_not_write(tmp_path):
    """Compressed: a megabyte can be a gigabyte. Of one name: readers differ in which it is."""
    torch.save({'a': torch.zeros(10**5)}, tmp_path / 'a.pth')
    with zipfile.ZipFile(tmp_path / 'a.pth') as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(tmp_path / 'small.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, record in records:
            archive.writestr(name, record)
    with zipfile.ZipFile(tmp_path / 'twice.pth', 'w') as archive:
        for name, record in [*records, ('A/Data/0', b'')]:
            archive.writestr(name, record)
    with tarfile.open(tmp_path / 'tar.pth', 'w') as archive:
        archive.add(tmp_path / 'a.pth', 'storages')
    for name, words in (('small', 'compressed'), ('twice', 'one name'), ('tar', 'tar archive')):
        path = tmp_path / f'{name}.pth'
        for check in (check_checkpoint_file, read_checkpoint):
            with pytest.raises(ValueError, match=rf'{path}.*{words}'):
                check(path)


def test_reader_that_the_user_forces(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    torch.save({'a': torch.ones(4)}, tmp_path / 'a.pth')
    assert read_checkpoint(tmp_path / 'a.pth')['a'].sum() == 4


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that a web server on this machine offers, and its address."""
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(SimpleHTTPRequestHandler, 'log_message', lambda *_: None)
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
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


def test_names_of_mmengine_are_downloaded_here(served, monkeypatch):
    """A table may not name a file of this machine."""
    folder, address = served
    torch.save(dict(a=Creates(folder / 'sign')), folder / 'net.pth')
    tables = dict(new=f'{address}/net.pth', local='net.pth')
    for name in ('openmmlab', 'open-mmlab'):
        monkeypatch.setitem(NAMED, name, lambda: tables)
    for name in ('openmmlab://new', 'open-mmlab://new'):
        with pytest.raises(ValueError, match=r'mkdir.*--trust'):
            read_checkpoint(name)
    with pytest.raises(ValueError, match=r"'net\.pth', no address"):
        read_checkpoint('openmmlab://local')
    assert not (folder / 'sign').exists()


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
