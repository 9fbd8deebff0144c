"""Checkpoints are read without running what is in them; what is none is named."""

import codecs
import functools
import hashlib
import os
import pickle
import re
import struct
import tarfile
import threading
import zipfile
from collections import OrderedDict
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import MultiStepLR, OneCycleLR

from gcp_mm.checkpoints import (
    check_checkpoint_file,
    check_intact,
    convert_checkpoint,
    read_checkpoint,
)
from gcp_mm.checkpoints.reading import NAMED
from tests.helpers.pickles import Built
from tests.helpers.runs import fork

WEIGHTS = {f'{i}.weight': torch.full((300, 300), float(i)) for i in range(3)}


READERS = [read_checkpoint]
if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # PyTorch 2.6
    READERS.append(functools.partial(torch.load, weights_only=True))  # in a script of one's own
any_reader = pytest.mark.parametrize('read', READERS, ids=['ours', 'PyTorch'][: len(READERS)])
REFUSED = (ValueError, pickle.UnpicklingError)


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


def test_absent_file_with_one_like_it_beside(tmp_path):
    (tmp_path / 'epoch_4.pth').touch()
    with pytest.raises(FileNotFoundError, match=r"epoch_5\.pth' does not .*'/.+/epoch_4\.pth'\?"):
        read_checkpoint(tmp_path / 'epoch_5.pth')


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


@any_reader
@pytest.mark.parametrize('zipped', [True, False])
def test_checkpoint_of_a_run_is_read(tmp_path, read, zipped):
    """With mmengine's record of scalars, and the milestones of a schedule; and saved again."""
    history = HistoryBuffer()
    history.update(2.0)
    history.update(4.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1)
    schedule = MultiStepLR(optimizer, milestones=[8, 11, 11]).state_dict()
    saved = dict(state_dict=WEIGHTS, loss=history, schedule=schedule, new=HistoryBuffer())
    saved['best'] = np.float64(0.25)
    saved['random'] = np.random.RandomState(0).get_state()
    path = tmp_path / 'a.pth'
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    for _ in range(2):
        content = read(path)
        assert type(content['loss']) is HistoryBuffer
        for mine, its in zip(content['loss'].data, history.data, strict=True):
            assert type(mine) is np.ndarray
            assert (mine.tolist(), mine.dtype) == (its.tolist(), its.dtype)
        content['loss'].update(6.0)
        assert content['loss'].mean() == 4
        content['loss'] = history
        assert len(content['new'].data[0]) == 0
        assert content['schedule'] == schedule
        assert content['schedule']['milestones'] == {8: 1, 11: 2}
        assert type(content['best']) is np.float64
        assert content['best'] == 0.25
        assert content['random'][1].tolist() == saved['random'][1].tolist()
        assert torch.equal(content['state_dict']['2.weight'], WEIGHTS['2.weight'])
        torch.save(content, path, _use_new_zipfile_serialization=zipped)


@any_reader
def test_schedule_that_names_a_method_of_its_own(tmp_path, read):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1, momentum=0.9)
    schedule = OneCycleLR(optimizer, eta_max=2, total_steps=9)
    torch.save(schedule.state_dict(), tmp_path / 'a.pth')
    state = read(tmp_path / 'a.pth')
    assert state == schedule.state_dict()
    schedule.load_state_dict(state)


def test_arrays_are_numpys_own(tmp_path):
    array = np.arange(5.0)
    torch.save([array, array, dict(a=array[:2])], tmp_path / 'a.pth')
    first, second, other = read_checkpoint(tmp_path / 'a.pth')
    assert first is second
    assert type(first) is type(other['a']) is np.ndarray
    np.testing.assert_array_equal(first, array)
    np.testing.assert_array_equal(other['a'], array[:2])


@pytest.mark.parametrize('protocol', [4, 5])
def test_later_protocols_of_pickle(tmp_path, protocol):
    torch.save(dict(a=WEIGHTS), tmp_path / 'a.pth', pickle_protocol=protocol)
    read = read_checkpoint(tmp_path / 'a.pth')['a']
    assert all(torch.equal(read[name], weight) for name, weight in WEIGHTS.items())
    torch.save({1, 2}, tmp_path / 'a.pth', pickle_protocol=protocol)
    with pytest.raises(ValueError, match=r'instruction .*trust=True'):
        read_checkpoint(tmp_path / 'a.pth')
    assert read_checkpoint(tmp_path / 'a.pth', trust=True) == {1, 2}


@pytest.mark.parametrize('zipped', [True, False])
def test_all_kinds_of_tensors_and_plain_values(tmp_path, zipped):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = dict(
        view=base[1:, ::2],
        transposed=base.T,
        empty=base[:0],
        scalar=base[0, 1],
        parameter=torch.nn.Parameter(base),
        frozen=torch.nn.Parameter(base, requires_grad=False),
        bfloat16=base.bfloat16(),
        int64=base.long(),
        bool=base > 3,
        complex=base * 1j,
        expanded=torch.ones(1).expand(5),
    )
    tensors['parameter'].note = 'of its owner'
    plain = dict(
        numbers=(True, None, 2**70, -1, 1.5), words=['a', 'ä', b'x', b''], sets={1, 'b'},
        size=torch.Size([1, 2]), device=torch.device('cpu'), kind=torch.float16,
        ordered=OrderedDict([('x', 1), ((0, 'y'), 2)]), nested=[[({},)]],
    )  # fmt: skip
    net = torch.nn.Linear(2, 2)
    saved = dict(tensors, plain=plain, net=net.state_dict())
    torch.save(saved, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    content = read_checkpoint(tmp_path / 'a.pth')
    assert content['plain'] == plain
    assert content['net']._metadata == net.state_dict()._metadata
    for name, tensor in tensors.items():
        assert torch.equal(content[name], tensor), name
        assert (content[name].dtype, type(content[name])) == (tensor.dtype, type(tensor))
        assert content[name].requires_grad == tensor.requires_grad


@any_reader
@pytest.mark.parametrize(
    'content',
    [
        lambda sign: Built(os.mkdir, (sign,)),
        lambda sign: Built(eval, (f'__import__("os").mkdir({sign!r})',)),
        lambda sign: Built(getattr, (HistoryBuffer, '__init__')),
        lambda sign: Built(getattr, (dict, 'fromkeys')),
    ],
    ids=['call', 'eval', 'private', 'other'],
)
@pytest.mark.parametrize('zipped', [True, False])
def test_nothing_is_executed(content, zipped, tmp_path, read):
    path, sign = tmp_path / 'a.pth', tmp_path / 'sign'
    torch.save(dict(a=content(str(sign))), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(REFUSED, match=r'--trust|GLOBAL'):
        read(path)
    assert not sign.exists()


def crafted(content, path):
    """A checkpoint whose pickle is `content`, beside PyTorch's own other records."""
    torch.save({'a': torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    change = content if callable(content) else lambda _: content
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for name, record in records.items():
            archive.writestr(name, change(record) if name.endswith('data.pkl') else record)


def test_state_of_a_function(tmp_path):
    """New defaults for it."""
    state = b'N}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b.'
    crafted(b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n' + state, tmp_path / 'a.pth')
    before = torch._utils._rebuild_tensor_v2.__defaults__
    for read in READERS:
        with pytest.raises(REFUSED):
            read(tmp_path / 'a.pth')
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def array(kind, shape=(1,), content=b'A' * 8):
    """An array of the kind and the bytes that a file says."""
    empty = np.zeros(0).__reduce__()
    return Built(*empty[:2], (1, shape, kind, False, content))


def kind(name, *state):
    return Built(np.dtype, (name, False, True), *([(3, *state)] if state else []))


OBJECT = kind('O')
ARRAYS = {
    'fields': array(kind('f8', '<', None, ('a',), {'a': (OBJECT, 0)}, 8, 8, 0)),
    'subarray': array(kind('f8', '<', (OBJECT, (1,)), None, None, 8, 8, 0)),
    'objects': array(OBJECT),
    'objects by state': array(kind('O', '|', None, None, None, -1, -1, 0)),
    'larger': array(kind('f8', '<', None, None, None, 2**20, 8, 0)),
    'flags': array(kind('f8', '<', None, None, None, -1, -1, 63)),
    'shape': array(kind('f8', '<', None, None, None, -1, -1, 0), (2**40,)),
    'negative': array(kind('f8'), (-1,)),
    'short': array(kind('f8'), (2,)),
    'list': array(kind('f8'), (1,), [None]),
    'scalar': Built(np.float64(1).__reduce__()[0], (kind('f8'), b'A')),
    'object scalar': Built(np.float64(1).__reduce__()[0], (OBJECT, b'A' * 8)),
    'new array': Built(np.ndarray, ((1,), OBJECT, b'A' * 8)),
    'codec': Built(codecs.encode, ('a', 'zlib')),
    'history': HistoryBuffer(),
}
ARRAYS['history'].max_length = 'x'


def test_numpy_arrays_are_of_numbers(tmp_path):
    """A dtype that hides objects makes Python follow an address from the file."""
    for name, content in ARRAYS.items():
        path = tmp_path / f'{name}.pth'
        torch.save(dict(a=content), path)
        for read in READERS[: 1 if name == 'codec' else 2]:
            with pytest.raises(REFUSED):
                read(path)


def test_no_crafted_file_ends_the_process(tmp_path):
    """Reading those of the test above, and random programs of all instructions and names."""
    for name in ('fields', 'subarray'):
        torch.save(dict(a=ARRAYS[name]), tmp_path / f'{name}.pth')
    for arguments in (('files', *tmp_path.glob('*.pth')), ('programs', 800)):
        done = fork('tests/helpers/read_crafted.py', *arguments)
        assert done.returncode == 0, done.stdout
    assert int(re.search(r'read (\d+)', done.stdout)[1]) > 50


def test_deeply_nested_key(tmp_path):
    """Its hash would overflow the stack."""
    crafted(b'\x80\x02})' + b'\x85' * 10**5 + b'Ns.', tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='key of type tuple'):
        read_checkpoint(tmp_path / 'a.pth')


def number(n):
    return b'J' + struct.pack('<i', n)


@pytest.mark.parametrize(
    ('old', 'new', 'claimed'),
    [
        (b'K\x04tq\x07Q', number(2**28) + b'tq\x07Q', '1,073,741,824 bytes'),
        (b'K\x04\x85q\x08K\x01', number(2**28) + b'\x85q\x08K\x01', 'only 16 bytes'),
        (b'K\x04\x85q\x08K\x01', number(2**28) + b'\x85q\x08K\x00', '1,073,741,824 bytes'),
        (b'K\x04\x85q\x08K\x01', number(4) + b'\x85q\x08' + number(-1), 'stride'),
    ],
    ids=['storage', 'size', 'stride 0', 'negative stride'],
)
def test_tensors_larger_than_the_file(tmp_path, old, new, claimed):
    def change(record):
        assert old in record
        return record.replace(old, new)

    crafted(change, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=claimed):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('zipped', [True, False])
def test_expanded_tensors(tmp_path, zipped):
    path = tmp_path / 'a.pth'
    few = {str(i): torch.ones(1).expand(2**20, 2**5) for i in range(2)}
    torch.save(few, path, _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(path)['1'].shape == (2**20, 2**5)
    many = {str(i): torch.ones(1).expand(2**20, 2**5) for i in range(3)}
    torch.save(many, path, _use_new_zipfile_serialization=zipped)
    for read in (read_checkpoint, lambda path: convert_checkpoint(path, tmp_path / 'b.pth')):
        with pytest.raises(ValueError, match=rf'{path}.* 402,653,184 bytes'):
            read(path)


def test_more_elements_than_64_bits_count(tmp_path):
    size = b'(' + 2 * (b'\x8a\x05' + (2**32).to_bytes(5, 'little')) + b't'  # 2**64 of them
    old, new = b'K\x04\x85q\x08K\x01\x85', size + b'q\x08K\x00K\x00\x86'
    crafted(lambda record: record.replace(old, new), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=str(2**32)):
        read_checkpoint(tmp_path / 'a.pth')


def test_storage_of_the_old_format_larger_than_the_file(tmp_path):
    torch.save({'a': torch.ones(4)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    content = (tmp_path / 'a.pth').read_bytes()
    assert content.count(b'K\x04Nt') == 1
    (tmp_path / 'a.pth').write_bytes(content.replace(b'K\x04Nt', number(2**28) + b'Nt'))
    with pytest.raises(ValueError, match='1,073,741,824 bytes'):
        read_checkpoint(tmp_path / 'a.pth')


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


@any_reader
def test_statistics_of_a_file_are_not_taken(tmp_path, monkeypatch, read):
    buffer = HistoryBuffer()
    buffer.update(1.0)
    before = dict(HistoryBuffer._statistics_methods)
    with monkeypatch.context() as patch:
        patch.setitem(HistoryBuffer._statistics_methods, 'mean', 'poisoned')
        torch.save(buffer, tmp_path / 'a.pth')
    read(tmp_path / 'a.pth')
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


def test_names_of_mmengine_are_downloaded_here(served, monkeypatch):
    """A table may not name a file of this machine."""
    folder, address = served
    torch.save(dict(a=Built(os.mkdir, (str(folder / 'sign'),))), folder / 'net.pth')
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
