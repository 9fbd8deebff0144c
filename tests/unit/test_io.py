"""Files: atomic writes and JSON lines."""

import pytest
from mmengine.fileio import get_file_backend

import gcp_mm  # noqa: F401  registers the backend
from gcp_mm._io import append_jsonl, drop_jsonl, read_jsonl, write_atomically


def test_file_has_its_old_content_or_its_new_one(tmp_path, monkeypatch):
    path = tmp_path / 'a'
    write_atomically(path, b'old')

    def full(*_):
        raise OSError(28, 'No space left on device')

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
