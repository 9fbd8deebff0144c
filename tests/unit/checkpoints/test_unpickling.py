"""What is in a checkpoint is read without running it, and takes no more memory than it holds."""

import codecs
import contextlib
import copy
import functools
import io
import multiprocessing
import pickle
import random
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import MultiStepLR
from torch.storage import TypedStorage

from gcp_mm.checkpoints import convert_checkpoint, read_checkpoint
from gcp_mm.checkpoints.unpickling import CALLS, NAMES, Unpickler
from tests.helpers.pickles import Built, Creates, random_program

WEIGHTS = {f'{i}.weight': torch.full((300, 300), float(i)) for i in range(3)}
READERS = [read_checkpoint]
if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # PyTorch 2.6
    READERS.append(functools.partial(torch.load, weights_only=True))  # in a script of one's own
any_reader = pytest.mark.parametrize('read', READERS, ids=['ours', 'PyTorch'][: len(READERS)])
REFUSED = (ValueError, pickle.UnpicklingError)


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
        Creates,
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


class Limited(Unpickler):
    """As of a file of 16 bytes of numbers."""

    size, records = 16, {'0': 16}

    def persistent_load(self, name):
        return TypedStorage(
            wrap_storage=torch.UntypedStorage(16), dtype=torch.float32, _internal=True
        )


def use(value):
    """Touch whatever a file gave."""
    repr(value)
    copy.deepcopy(value)
    if isinstance(value, np.ndarray):
        value.tolist()
        for field in value.dtype.names or ():
            value[field].tolist()


def read_files(folder):
    for path in folder.glob('*.pth'):
        for reader in READERS:
            with contextlib.suppress(*REFUSED):
                use(reader(path)['a'])


def read_programs(count):
    """Run random programs of all instructions and names, most of which are refused."""
    draw, read = random.Random(0), 0
    names = ['/'.join(name.rpartition('.')[::2]) for name in (*CALLS, *NAMES) if '.' in name]
    names += ['torch/FloatStorage', 'os/mkdir', 'numpy/frombuffer', 'builtins/eval']
    for _ in range(count):
        with contextlib.suppress(Exception):  # whatever it is, it is an error
            value = Limited(io.BytesIO(random_program(draw, names))).load()
            read += 1
            use(value)
    assert read > 50


def test_no_crafted_file_ends_the_process(tmp_path):
    """As a pointer that comes from a file does, by a signal."""
    for name in ('fields', 'subarray'):
        torch.save(dict(a=ARRAYS[name]), tmp_path / f'{name}.pth')
    for read, argument in ((read_files, tmp_path), (read_programs, 5000)):
        process = multiprocessing.get_context('fork').Process(target=read, args=(argument,))
        process.start()
        process.join()
        assert process.exitcode == 0


def test_deeply_nested_key(tmp_path):
    """Its hash would overflow the stack."""
    crafted(b'\x80\x02})' + b'\x85' * 10**5 + b'Ns.', tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='key of type tuple'):
        read_checkpoint(tmp_path / 'a.pth')


def number(n):
    return b'J' + struct.pack('<i', n)


HUGE = b'(' + 2 * (b'\x8a\x05' + (2**32).to_bytes(5, 'little')) + b't'  # 2**64 elements


@pytest.mark.parametrize(
    ('old', 'new', 'claimed'),
    [
        (b'K\x04tq\x07Q', number(2**28) + b'tq\x07Q', '1,073,741,824 bytes'),
        (b'K\x04\x85q\x08K\x01', number(2**28) + b'\x85q\x08K\x01', 'only 16 bytes'),
        (b'K\x04\x85q\x08K\x01', number(2**28) + b'\x85q\x08K\x00', '1,073,741,824 bytes'),
        (b'K\x04\x85q\x08K\x01', number(4) + b'\x85q\x08' + number(-1), 'stride'),
        (b'K\x04\x85q\x08K\x01\x85', HUGE + b'q\x08K\x00K\x00\x86', str(2**32)),
    ],
    ids=['storage', 'size', 'stride 0', 'negative stride', 'elements'],
)
def test_tensors_larger_than_the_file(tmp_path, old, new, claimed):
    def change(record):
        assert old in record
        return record.replace(old, new)

    crafted(change, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=claimed):
        read_checkpoint(tmp_path / 'a.pth')


def test_storage_of_the_old_format_larger_than_the_file(tmp_path):
    torch.save({'a': torch.ones(4)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    content = (tmp_path / 'a.pth').read_bytes()
    assert content.count(b'K\x04Nt') == 1
    (tmp_path / 'a.pth').write_bytes(content.replace(b'K\x04Nt', number(2**28) + b'Nt'))
    with pytest.raises(ValueError, match='1,073,741,824 bytes'):
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
