"""Measurements of a run as JSON lines, which a crash cannot spoil and a resumed run continues."""

import json
import os
from pathlib import Path


def append_record(path: str | Path, record: dict) -> None:
    """Add one line to the file and see it on the disk."""
    with open(path, 'a') as file:
        file.write(json.dumps(record) + '\n')
        file.flush()
        os.fsync(file.fileno())


def read_records(path: str | Path) -> list[dict]:
    """The records of a file, without a last line that a crash cut short.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line before the last is not JSON.
    """
    lines = Path(path).read_text().split('\n')
    records = []
    for number, line in enumerate(lines[:-1], 1):  # whole lines end in a line break
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f'{path}, line {number}: {error}; mend or delete the line') from error
    return records


def drop_records(path: str | Path, start: int) -> int:
    """Take from a file what a run that starts in iteration `start` will measure again.

    Args:
        path: of the file, which need not exist. It is replaced as a whole.
        start: first iteration, of the records' 'iter', that is dropped.

    Returns:
        Number of records dropped.
    """
    path = Path(path)
    if not path.exists():
        return 0
    records = read_records(path)
    kept = [record for record in records if record['iter'] < start]
    part = path.with_name(path.name + '.part')
    part.unlink(missing_ok=True)
    part.touch()
    for record in kept:
        append_record(part, record)
    part.replace(path)
    return len(records) - len(kept)
