"""Files: atomic writes, JSON lines, hashes, Markdown tables."""

import difflib
import errno
import hashlib
import io
import json
import math
import os
import socket
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file atomically: at any moment it has its old content or its new one.

    The content goes to ``<path>.<host>-<process>.part`` and to the disk (fsync) before that is
    renamed. A process killed in between leaves the ``.part``, which can be removed.

    Args:
        path: path of the file; its folder is made if it is absent.
        content: all of it.

    Raises:
        OSError: if the disk is full or cannot be written. Nothing is left of the attempt.
    """
    path = Path(path)
    part = path.with_name(f'{path.name}.{socket.gethostname()}-{os.getpid()}.part')
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f'{error.strerror}; the file was not written, earlier ones are as they were. Once '
            'there is room, run this again; a training continues with --resume',
            str(path),
        ) from error
    finally:
        part.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Raise OSError unless a file can be written there, before long work whose result it is for.

    Nothing is left of the attempt, not even a folder.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(errno.EISDIR, 'a folder is there; name a file', str(path))
    folder = next(folder for folder in Path(path).absolute().parents if folder.exists())
    with tempfile.NamedTemporaryFile(dir=folder):
        pass


def near_paths(path: str | Path, limit: int = 3) -> list[str]:
    """Paths like one that does not exist, the likest first.

    Args:
        path: of a file or folder; if its folder is absent, what is like the folder is looked for.
        limit: number of paths at most.

    Returns:
        Those beside it with the same name and a hash ('a-0123abcd.pth' for 'a.pth'), then those
        with a similar one, such as 'epoch_4.pth' for 'epoch_5.pth'.
    """
    path = Path(path).expanduser()
    while not path.parent.is_dir() and path != path.parent:
        path = path.parent
    if not os.access(path.parent, os.R_OK):
        return []
    kind = path.suffix[:3]  # '.pt' and '.pth' are one
    names = sorted(each.name for each in path.parent.iterdir() if each.suffix[:3] == kind)
    near = [name for name in names if name.startswith(f'{path.stem}-')]
    near += difflib.get_close_matches(path.name, names, n=limit)
    return [str(path.with_name(name)) for name in dict.fromkeys(near)][:limit]


def plain(value: object) -> object:
    """What JSON can hold of a value: of tensors and arrays lists, of other objects their text.

    NaN and infinities are left, and written as Python's `json` reads them.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | Set):
        return [plain(item) for item in value]
    if hasattr(value, 'tolist'):  # of PyTorch and NumPy, a single number too
        return plain(value.tolist())
    known = value is None or isinstance(value, bool | int | float | str)
    return value if known else str(value)


def write_figure(path: str | Path, figure, dpi: int) -> None:
    """Write a figure of Matplotlib as a PNG, by :func:`write_atomically`."""
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=dpi)
    write_atomically(path, file.getvalue())


def append_jsonl(path: str | Path, record: dict) -> None:
    """Append one line of JSON to a file and see it on the disk."""
    with open(path, 'a') as file:
        file.write(json.dumps(record) + '\n')
        file.flush()
        os.fsync(file.fileno())


def read_json(path: str | Path, **fields: type) -> dict:
    """Read the object that a JSON file holds.

    Args:
        path: of the file.
        **fields: type of the value of each key that it must have.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has other content.
    """
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f'{str(path)!r} is not a JSON file: {error}') from error
    _check_fields(content, fields, repr(str(path)))
    return content


def check_made_with(path: str | Path, before: Mapping, now: Mapping) -> None:
    """Check that what a path holds was made with the settings of this run.

    Args:
        path: of the file or folder, for the message.
        before: settings that it was made with.
        now: settings of this run; other keys of `before` do not count.

    Raises:
        ValueError: if a setting differs or is missing; the message has both values.
    """
    differ = [key for key, value in now.items() if before.get(key) != value]
    if differ:
        was, this = ({key: made.get(key) for key in differ} for made in (before, now))
        raise ValueError(
            f'{str(path)!r} was made with {was}, and this is {this}; name another, or remove it'
        )


def read_jsonl(path: str | Path, **fields: type) -> list[dict]:
    """Records of a JSON-lines file, without a last line that a crash cut short.

    Args:
        path: of the file.
        **fields: as of :func:`read_json`, of each record.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line before the last is not JSON, or such a record.
    """
    lines = Path(path).read_text().split('\n')
    records = []
    for number, line in enumerate(lines[:-1], 1):  # complete lines end in a line break
        try:
            records.append(json.loads(line))
            _check_fields(records[-1], fields, 'record')
        except ValueError as error:
            text = f'{str(path)!r}, line {number}: {error}; mend or delete the line'
            raise ValueError(text) from error
    return records


def _check_fields(content, fields, name):
    if not isinstance(content, dict):
        raise ValueError(f'{name}: expected an object, got {content!r:.50}')
    for key, kind in fields.items():
        if not isinstance(content.get(key), kind):
            got = f'{content[key]!r:.50}' if key in content else 'none'
            raise ValueError(f'{name}: expected {key}, of type {kind.__name__}, got {got}')


def drop_jsonl(path: str | Path, start: int) -> int:
    """Drop the records that a run resumed in iteration `start` will measure again.

    Args:
        path: path of the file, which need not exist.
        start: first value of the records' 'iter' that is dropped.

    Returns:
        Number of records dropped.
    """
    if not Path(path).exists():
        return 0
    records = read_jsonl(path, iter=int)
    kept = [record for record in records if record['iter'] < start]
    write_atomically(path, ''.join(json.dumps(record) + '\n' for record in kept).encode())
    return len(records) - len(kept)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def size_and_time(path: str | Path) -> str:
    """Size and time of the last change of a file, as text: a replaced file has another."""
    stat = Path(path).stat()
    return f'{stat.st_size} {stat.st_mtime_ns}'


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def table_of_dicts(rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table whose columns are the keys of all rows, in the order they come.

    Floats have three significant digits; None and absent keys are empty cells.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def cell(value):
        return '' if value is None else f'{value:.3g}' if isinstance(value, float) else value

    return markdown_table(columns, [[cell(row.get(key)) for key in columns] for row in rows])


def write_report(folder: str | Path, name: str, text: str, content: object) -> None:
    """Print a report and write it to NAME.md, and what it is made of, as JSON, to NAME.json."""
    print(text)
    write_atomically(Path(folder) / f'{name}.md', text.encode())
    write_atomically(Path(folder) / f'{name}.json', (json.dumps(content, indent=1) + '\n').encode())
    print(f'written: {folder}/{name}.md, {name}.json')


def number(value: float, digits: int = 2) -> str:
    """A number in a table, '-' unless it is finite."""
    return f'{value:.{digits}f}' if math.isfinite(value) else '-'


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and standard deviation if there are several, of values that may be NaN."""
    mean = number(statistics.fmean(values), digits)
    if len(values) == 1 or mean == '-':
        return mean
    return f'{mean} ± {statistics.stdev(values):.{digits}f}'


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and, of more than one value, sample standard deviation, in significant digits."""
    values = [*map(float, values)]  # NumPy's integers have no deviation
    if len(values) == 1:
        return f'{values[0]:.3g}'
    return f'{statistics.fmean(values):.3g} ± {statistics.stdev(values):.2g}'
