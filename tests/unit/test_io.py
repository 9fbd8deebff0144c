"""Files are written atomically."""

import pytest
from mmengine.fileio import get_file_backend

import gcp_mm  # noqa: F401  registers the backend
from gcp_mm._io import write_atomically


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
