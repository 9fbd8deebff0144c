"""Files: atomic writes and JSON lines."""

import pytest
from matplotlib.figure import Figure
from mmengine.fileio import get_file_backend
from PIL import Image

import gcp_mm  # noqa: F401  registers the backend
from gcp_mm._io import (
    append_jsonl,
    drop_jsonl,
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
    (tmp_path / 'a.part').write_bytes(b'longer, of an attempt that was killed')
    get_file_backend(backend_args=dict(backend='atomic')).put(b'new', str(path))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b'new']


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
