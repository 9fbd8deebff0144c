"""Whether a checkpoint is byte for byte what was written."""

import errno
import zipfile
from pathlib import Path

from .reading import check_checkpoint_file, read_checkpoint


def check_intact(checkpoint: str | Path, trust: bool = False) -> None:
    """Check that every byte of a checkpoint is as it was written, which reads it once.

    The file is a zip archive with the CRC-32 of each record, which PyTorch does not look at when
    it loads one. All are compared, so a file cut short, with a hole of zeros or with a flipped bit
    is found. What the records say, and whether it fits the network, is not looked at. A file in
    the format before PyTorch 1.6, which has no checksums, is read instead.

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
