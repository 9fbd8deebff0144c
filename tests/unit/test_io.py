"""Files: atomic writes and JSON lines."""

import json
from math import inf, isnan, nan

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.fileio import get_file_backend
from PIL import Image

import gcp_mm  # noqa: F401  registers the backend
from gcp_mm._io import (
    append_jsonl,
    check_writable,
    drop_jsonl,
    near_paths,
    plain,
    read_json,
    read_jsonl,
    write_atomically,
    write_figure,
)


def full(*_):
    raise OSError(28, 'No space left on device')


def test_file_has_its_old_content_or_its_new_one(tmp_path, monkeypatch):
    path = tmp_path / 'a'
    write_atomically(path, b'old')

    with monkeypatch.context() as patch:
        patch.setattr('os.fsync', full)
        with pytest.raises(OSError, match='No space left on device; the file was not') as caught:
            write_atomically(path, b'new')
    assert (caught.value.errno, caught.value.filename) == (28, str(path))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b'old']
    get_file_backend(backend_args=dict(backend='atomic')).put(b'new', str(path))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b'new']


def test_two_processes_write_one_file(tmp_path):
    """Each writes a file of its own: with one for both, one renames what the other half wrote."""
    names = set()

    def write(at):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('os.getpid', lambda: at)
            patch.setattr('os.replace', lambda part, path: names.add(str(part)))
            write_atomically(tmp_path / 'a', b'')

    for process in (1, 2):
        write(process)
    assert len(names) == 2


def test_records_survive_a_crash_and_a_resumption(tmp_path):
    path = tmp_path / 'landscape.jsonl'
    assert drop_jsonl(path, 0) == 0
    for i in range(4):
        append_jsonl(path, dict(iter=i, losses=[0.1 * i]))
    whole = path.read_text()
    path.write_text(whole + '{"iter": 4, "los')
    assert [record['iter'] for record in read_jsonl(path)] == [0, 1, 2, 3]
    assert drop_jsonl(path, 2) == 2
    append_jsonl(path, dict(iter=2, losses=[0.2]))
    assert path.read_text() == ''.join(whole.splitlines(True)[:3])
    assert list(tmp_path.iterdir()) == [path]
    path.write_text('{"iter": 0\n' + whole)
    with pytest.raises(ValueError, match=r"landscape\.jsonl', line 1: .*mend or delete"):
        read_jsonl(path)


@pytest.mark.parametrize(
    ('value', 'right'),
    [
        (torch.eye(2), [[1, 0], [0, 1]]),
        (torch.ones((), dtype=torch.bfloat16, requires_grad=True), 1),
        (np.arange(3, dtype=np.uint8), [0, 1, 2]),
        (np.float32(0.5), 0.5),
        (np.array([None, 'a'], dtype=object), [None, 'a']),
        ({1: (np.int64(2), {'a': torch.tensor([True])})}, {'1': [2, {'a': [True]}]}),
        ({3}, [3]),
        ((None, True, 'text', inf), [None, True, 'text', inf]),
        (1j, '1j'),
    ],
)
def test_whatever_metrics_give_is_written(value, right):
    assert json.loads(json.dumps(plain(value))) == right


def test_numbers_that_are_none_are_kept():
    found = json.loads(json.dumps(plain(dict(a=nan, b=np.float32(nan), c=torch.tensor(nan)))))
    assert all(map(isnan, found.values()))


def test_where_a_file_can_be_written(tmp_path):
    (tmp_path / 'a').write_text('old')
    check_writable(tmp_path / 'a')
    check_writable(tmp_path / 'new/b')
    assert [path.name for path in tmp_path.rglob('*')] == ['a']
    assert (tmp_path / 'a').read_text() == 'old'
    with pytest.raises(IsADirectoryError, match='a folder is there'):
        check_writable(tmp_path)
    with pytest.raises(OSError, match='a'):
        check_writable(tmp_path / 'a/b')


def test_figure_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    figure = Figure(figsize=(2, 1))
    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(OSError, match=r'No space left .*a\.png'):
        write_figure(tmp_path / 'a.png', figure, dpi=50)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    write_figure(tmp_path / 'a.png', figure, dpi=50)
    assert Image.open(tmp_path / 'a.png').size == (100, 50)


@pytest.mark.parametrize('text', ['', '{', '[]', 'null', '{}', '{"a": "1"}', '{"a": null}'])
def test_other_json_is_named(tmp_path, text):
    (tmp_path / 'a\n.json').write_text(text)
    with pytest.raises(ValueError, match=r"a\\n\.json'"):
        read_json(tmp_path / 'a\n.json', a=int)
    (tmp_path / 'a.jsonl').write_text(f'{{"a": 1}}\n{text or "{"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl', line 2"):
        read_jsonl(tmp_path / 'a.jsonl', a=int)


@pytest.mark.parametrize(
    ('path', 'near'),
    [
        ('run/epoch_5.pth', ['run/epoch_4.pth']),
        ('run/resnet50.pth', ['run/resnet50-0123abcd.pth']),
        ('run/a.pth', ['run/a-0123abcd.pth']),
        ('run/Epoch_4.pt', ['run/epoch_4.pth']),
        ('run/confg.py', ['run/config.py']),
        ('rum/epoch_4.pth', ['run']),
        ('elsewhere/epoch_4.pth', []),
        ('run/x', []),
    ],
)
def test_near_paths(path, near, tmp_path, monkeypatch):
    (tmp_path / 'run').mkdir()
    for name in (
        'epoch_4.pth',
        'resnet50-0123abcd.pth',
        'a-0123abcd.pth',
        'config.py',
        'config.log',
    ):
        (tmp_path / 'run' / name).touch()
    assert near_paths(tmp_path / path) == [str(tmp_path / each) for each in near]
    monkeypatch.chdir(tmp_path)
    assert near_paths(path) == near
