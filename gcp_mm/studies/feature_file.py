"""Files of feature vectors: written row by row, so that they may be larger than the memory.

The vectors of an unfinished file lie in a folder beside it. Its rows are only ever appended to, so
that what is there when a run stops is whole, but for at most its last row.
"""

import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._io import write_atomically

DTYPES = ('float32', 'float16')


@dataclass(frozen=True)
class Features:
    """Feature vectors of a folder of images, of one class each.

    Args:
        path: file they were read from, for messages.
        vectors: (N, L) float32 or float16.
        labels: (N,) int64, places in `classes`.
        classes: names of the K class folders, in alphabetical order.
        files: N paths of the images below their folder.
        stage: of the network, see :data:`gcp_mm.studies.features.STAGES`.
        network: digest of the weights, the model's config and the test pipeline.
    """

    path: Path
    vectors: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    files: tuple[str, ...]
    stage: str
    network: str

    @property
    def length(self) -> int:
        """L, the numbers of a vector."""
        return self.vectors.shape[1]


def read_features(path: str | Path) -> Features:
    """Read a file that tools/extract_features.py wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'features: there is no file {str(path)!r}')
    wanted = ('features', 'labels', 'classes', 'files', 'stage', 'network')
    if not zipfile.is_zipfile(path):
        raise ValueError(f'features: {str(path)!r} is no .npz file, or truncated')
    with np.load(path) as archive:
        lacking = sorted(set(wanted) - set(archive.files))
        if lacking:
            raise ValueError(
                f'features: {str(path)!r} lacks {", ".join(lacking)}; expected a file of '
                'tools/extract_features.py'
            )
        vectors, labels, classes, files, stage, network = (archive[name] for name in wanted)
    return Features(
        path,
        vectors,
        labels,
        tuple(classes.tolist()),
        tuple(files.tolist()),
        str(stage),
        str(network),
    )


class UnfinishedFeatures:
    """The rows of a file of features, as far as they are computed.

    Args:
        out: the file they become, ``.npz``.
        count: rows of the whole.
        length: numbers of a row.
        dtype: 'float32' or 'float16'.
        made_with: what determines the rows, as JSON types. Rows that were made with something else
            are not continued.
        discard: such rows, instead of raising.

    Raises:
        ValueError: if there are such rows.
    """

    def __init__(
        self,
        out: Path,
        count: int,
        length: int,
        dtype: str,
        made_with: dict,
        discard: bool = False,
    ):
        self.out, self.shape, self.dtype = out, (count, length), np.dtype(dtype)
        self.folder = out.with_name(out.name + '.partial')
        self.rows = self.folder / 'rows'
        record = self.folder / 'made-with.json'
        made_with = {**made_with, 'images': count, 'length': length, 'dtype': dtype}
        found = json.loads(record.read_text()) if record.exists() else {}
        other = [key for key, value in made_with.items() if found.get(key) != value]
        if found and other and not discard:
            raise ValueError(
                f'{self.folder} holds the beginning of other features (other {", ".join(other)}); '
                'finish them with their own command, or discard them with --force (force=True)'
            )
        if not found and self.folder.exists() and any(self.folder.iterdir()) and not discard:
            raise FileExistsError(
                f'{self.folder} exists and is not the beginning of features; name another file, or '
                'discard it with --force (force=True)'
            )
        if other:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            write_atomically(record, (json.dumps(made_with, indent=2) + '\n').encode())

    @property
    def done(self) -> int:
        """Number of whole rows that are there."""
        return self.rows.stat().st_size // self._row_size if self.rows.exists() else 0

    @contextmanager
    def appending(self) -> Iterator:
        """Give a function that appends (n, length) rows."""
        with self.rows.open('ab') as file:
            file.truncate(self.done * self._row_size)  # a row that was cut short

            def append(block: np.ndarray) -> None:
                if block.dtype != self.dtype or block.shape[1:] != self.shape[1:]:
                    raise ValueError(
                        f'rows: expected {self.shape[1:]} {self.dtype}, got {block.shape[1:]} '
                        f'{block.dtype}'
                    )
                file.write(np.ascontiguousarray(block).tobytes())
                file.flush()

            yield append

    def finish(self, **arrays: np.ndarray) -> None:
        """Make the file of the rows, as 'features', and of `arrays`, and remove the folder.

        The rows are copied from disk to disk and never in memory as a whole.
        """
        if self.done != len(self):
            raise ValueError(f'{self.folder}: {self.done} of {len(self)} rows are there')
        part = self.folder / 'features.npz'
        header = dict(
            descr=np.lib.format.dtype_to_descr(self.dtype), fortran_order=False, shape=self.shape
        )
        with zipfile.ZipFile(part, 'w') as archive:
            with (
                archive.open('features.npy', 'w', force_zip64=True) as member,
                self.rows.open('rb') as rows,
            ):
                np.lib.format.write_array_header_1_0(member, header)
                shutil.copyfileobj(rows, member, 1 << 20)
            for name, array in arrays.items():
                with archive.open(f'{name}.npy', 'w') as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        part.replace(self.out)
        shutil.rmtree(self.folder)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def _row_size(self):
        return self.shape[1] * self.dtype.itemsize
