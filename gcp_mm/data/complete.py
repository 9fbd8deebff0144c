"""Folders that are either complete or absent, and know the options they were made with."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from .._io import check_made_with, read_json
from .._lock import locked

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
        ValueError: if `root` exists and was made otherwise, or lacks files.
    """
    root = Path(root)
    # Or one process would remove what another writes
    with nullcontext() if root.exists() else locked(root, wait=True):
        if root.exists():
            if not (root / MANIFEST).exists():
                raise ValueError(f'{str(root)!r} was not made by this program; name another folder')
            now = dict(options=options, files=_count(root))
            check_made_with(root, read_json(root / MANIFEST), now)
            yield None
            return
        partial = root.with_name(f'{root.name}.partial')
        shutil.rmtree(partial, ignore_errors=True)  # an interrupted run's
        partial.mkdir(parents=True)
        yield partial
        manifest = dict(options=options, files=_count(partial))
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
        partial.rename(root)


def _count(folder):
    return sum(path.is_file() and path.name != MANIFEST for path in folder.rglob('*'))
