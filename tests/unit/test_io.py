"""Files in JSON lines."""

import pytest

from gcp_mm._io import append_jsonl, drop_jsonl, read_jsonl


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
    with pytest.raises(ValueError, match=r'landscape\.jsonl, line 1: .*mend or delete'):
        read_jsonl(path)
