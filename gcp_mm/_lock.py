"""A lock on an output, which the system releases when the process that holds it ends."""

import errno
import fcntl
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TAKEN = (errno.EACCES, errno.EAGAIN)


@contextmanager
def locked(output: str | Path, folder: bool = False, wait: bool = False) -> Iterator[None]:
    """Be the only process that writes an output; of one machine or, on a shared disk, of several.

    The lock is the file ``<output>.lock``, for a folder ``<output>/.lock``; it is removed at the
    end. It is one of POSIX: processes forked meanwhile do not inherit it, and it does not outlive
    this one. Where the disk has none, that is warned of, and nothing is locked.

    Args:
        output: file to be written, or folder.
        folder: whether it is a folder, which is made if it is absent.
        wait: wait for another process to release it, instead of raising.

    Raises:
        BlockingIOError: if another process holds it; the message says which.
    """
    output = Path(output).resolve()
    path = output / '.lock' if folder else Path(f'{output}.lock')
    made = [each for each in path.parents if not each.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _take(path, output, wait)
    try:
        yield
    finally:
        if file:
            path.unlink(missing_ok=True)
            file.close()
        for each in made:
            with suppress(OSError):  # it is not empty: something was written
                each.rmdir()


def _take(path, output, wait):
    """The locked file, None on a disk without locks."""
    while True:
        file = open(path, 'a+')  # noqa: SIM115 - closing it releases the lock
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in TAKEN:
                file.close()
                warnings.warn(f'{output}: no lock keeps a second job out ({error})', stacklevel=4)
                return None
            file.seek(0)
            owner = file.read() or 'another process'
            file.close()
            if not wait:
                raise BlockingIOError(
                    error.errno,
                    f'{owner} is writing to this output; wait until it has ended, or name another',
                    str(output),
                ) from error
            time.sleep(0.05)
            continue
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(f'process {os.getpid()} on {socket.gethostname()}')
                file.flush()
                return file
        file.close()  # its owner removed it before this process had the lock
