"""Whether a checkpoint is byte for byte what was written."""

import errno
import zipfile
from pathlib import Path

from .reading import check_checkpoint_file, read_checkpoint


def check_intact(checkpoint: str | Path, trust: bool = False) -> None:
    """Verify every byte of a checkpoint against its checksums.

    The file is a zip archive with a CRC-32 of each record. PyTorch does not compare these when it
    loads a file. The check finds truncated files, blocks of zeros and flipped bits. It does not
    interpret the content or compare it with a network. A file in the format before PyTorch 1.6 has
    no checksums; it is loaded instead.

    Args:
        checkpoint: local path.
        trust: as in :func:`gcp_mm.checkpoints.read_checkpoint`, for the old format.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, truncated, damaged or no checkpoint.
    """
    check_checkpoint_file(checkpoint)
    path = Path(checkpoint).expanduser()
    if not zipfile.is_zipfile(path):
        read_checkpoint(checkpoint, trust=trust)
    elif damage := _damaged_record(path):
        raise ValueError(
            f'checkpoint {str(checkpoint)!r} is damaged ({damage}): copy or train it again, or '
            'name another file'
        )


def _damaged_record(path: Path) -> str | None:
    """What is wrong in a zip archive, or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except Exception as error:  # whatever reading arbitrary bytes comes to
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # of the disk; EINVAL: the archive names an offset before the file
        return str(error) or type(error).__name__
    return record and f'its record {record!r}'
