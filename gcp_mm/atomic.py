"""Files that are there whole, whenever the process that writes them ends."""

import os
from pathlib import Path


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file that is at any moment there whole, with its old or its new content.

    The content goes to ``<path>.part`` and to the disk (fsync) before that takes the name. A
    process killed on the way leaves the ``.part``, which the next attempt overwrites.

    Args:
        path: of the file; its folder is made if it is absent.
        content: all of it.

    Raises:
        OSError: if the disk is full or cannot be written. Nothing is left of the attempt.
    """
    part = Path(f'{path}.part')
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
