"""Folders that are either complete or absent, and know the options they were made with."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST = 'made-with.json'


@contextmanager
def written_once(root: Path, options: dict) -> Iterator[Path | None]:
    """Give a folder to write into, which becomes `root` when the block ends without an error.

    Args:
        root: the folder wanted.
        options: what determines its content, as JSON types; kept in it.

    Yields:
        An empty folder, or None where `root` is complete with the same options.

    Raises:
        ValueError: if `root` exists and holds something else, or lacks files.
    """
    root = Path(root)
    if root.exists():
        manifest = _read(root / MANIFEST)
        wrong = None
        if manifest is None:
            wrong = 'was not made by this program'
        elif manifest['options'] != options:
            wrong = f'was made with {manifest["options"]}, and {options} is asked for'
        elif manifest['files'] != _count(root):
            wrong = f'had {manifest["files"]} files when it was made, and has {_count(root)}'
        if wrong:
            raise ValueError(f'{root} {wrong}; remove it or name another folder')
        yield None
        return
    partial = root.with_name(f'{root.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)  # an interrupted run's
    partial.mkdir(parents=True)
    yield partial
    manifest = dict(options=options, files=_count(partial))
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
    partial.rename(root)


def _read(path):
    """A manifest's content, or None where there is no readable one."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _count(folder):
    return sum(path.is_file() and path.name != MANIFEST for path in folder.rglob('*'))
