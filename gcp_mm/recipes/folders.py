"""Class folders, with training and validation apart or to be split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import IMAGE_SUFFIXES

TRAIN = ('train', 'training')
VAL = ('val', 'valid', 'validation', 'test', 'testing')
SHARE = 5  # of its pictures, each class gives one to the validation


@dataclass(frozen=True)
class Folders:
    """Pictures by class.

    Attributes:
        root: the folder of the dataset.
        classes: names, in the order of their labels.
        prefixes: folder below `root` of the training and of the validation, both '' where the
            pictures were split.
        files: their pictures, paths below that folder with labels.
        was_split: whether they were split at random.
        notes: what whoever trains with them should know, a sentence each.
    """

    root: Path
    classes: tuple[str, ...]
    prefixes: dict[str, str]
    files: dict[str, list[tuple[str, int]]]
    was_split: bool
    notes: tuple[str, ...] = ()

    sources = ()  # files that were read
    suffix = '.txt'  # of a list of a split

    def listing(self, split: str) -> str:
        """What a list of a split holds: a line with path and label for each picture."""
        return ''.join(f'{name} {label}\n' for name, label in self.files[split])

    def paths(self, split: str) -> list[Path]:
        """Paths of the pictures of a split."""
        return [self.root / self.prefixes[split] / name for name, _ in self.files[split]]


def find_folders(root: Path, seed: int = 0) -> Folders:
    """Find the pictures in class folders: ``root/{train,val}/<class>/`` or ``root/<class>/``.

    Args:
        root: the folder.
        seed: of the random split, where the folder is not split already.

    Raises:
        ValueError: if there are no such folders, fewer than two classes, classes without a
            picture to train on or to validate, or other classes to validate than to train on.
    """
    folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}
    train = next((name for name in TRAIN if name in folders), None)
    val = next((name for name in VAL if name in folders), None)
    if train and val:
        return _given(root, train, val)
    if train and len(_visible(folders)) == 1:
        root = root / train
    return _split(root, seed)


def _given(root, train, val):
    found = {'train': _classes(root / train), 'val': _classes(root / val)}
    classes = tuple(found['train'])
    if classes != tuple(found['val']):
        missing, more = (sorted(set(found[a]) - set(found[b])) for a, b in _PAIRS)
        raise ValueError(
            f'{str(root)!r}: the class folders of {val} are not those of {train}: missing '
            f'{missing}, besides {more}. Labels are places among the folders: add the missing '
            'ones, empty if need be, and remove what is no class'
        )
    for name in found['train']:
        if name.startswith('.'):
            raise ValueError(f'{str(root / train / name)!r} would be a class; remove the folder')
    _check_classes(found['train'], root / train)
    files = {
        split: [(f'{name}/{file}', label) for label, name in enumerate(classes) for file in f[name]]
        for split, f in found.items()
    }
    if not files['val']:
        raise ValueError(f'{str(root / val)!r} holds no picture in its class folders')
    notes = [f'No folder is called val: {val}/ validates.'] if val.startswith('test') else []
    unseen = [name for name in classes if not found['val'][name]]
    if unseen:
        notes.append(f'{val}/ has no picture of {len(unseen)} classes, the first is {unseen[0]!r}.')
    prefixes = dict(train=train, val=val)
    return Folders(root, classes, prefixes, files, False, tuple(notes))


_PAIRS = (('train', 'val'), ('val', 'train'))


def _split(root, seed):
    found = {name: files for name, files in _classes(root).items() if not name.startswith('.')}
    _check_classes(found, root)
    single = [name for name, files in found.items() if len(files) < 2]
    if single:
        raise ValueError(
            f'{str(root)!r}: {len(single)} classes have a single picture, the first is '
            f'{single[0]!r}, and none would be left to validate; add pictures, or split them '
            'yourself into train/ and val/'
        )
    rng = np.random.default_rng(seed)
    files = dict(train=[], val=[])
    for label, (name, pictures) in enumerate(found.items()):
        chosen = set(rng.permutation(len(pictures))[: max(1, len(pictures) // SHARE)])
        for i, picture in enumerate(pictures):
            files['val' if i in chosen else 'train'].append((f'{name}/{picture}', label))
    for name, _ in [*files['train'], *files['val']]:
        _check_name(root, name)
    note = f'One picture in {SHARE} of each class, drawn with seed {seed}, validates.'
    return Folders(root, tuple(found), dict(train='', val=''), files, True, (note,))


def _check_name(root, name):
    """A line of a list is a name, a blank and a label."""
    broken = name != name.strip() or len(name.splitlines()) != 1
    try:
        name.encode()
    except UnicodeEncodeError:
        broken = True
    if broken:
        raise ValueError(f'{str(root / name)!a}: no list of files can hold this name; rename it')


def _check_classes(found, root):
    name = repr(str(root))
    if not found:
        raise ValueError(
            f'{name} holds no class folders; expected <class>/<picture> or '
            '{train,val}/<class>/<picture>'
        )
    if len(found) == 1:
        inner = root / next(iter(found))
        nested = any(path.is_dir() for path in inner.iterdir())
        raise ValueError(
            f'{name} holds one class folder, {inner.name!r}, and a classifier needs two'
            + (f'; or name {str(inner)!r}' if nested else '')
        )
    empty = [folder for folder, files in found.items() if not files]
    if empty:
        raise ValueError(
            f'{name}: {len(empty)} class folders hold no picture ({", ".join(IMAGE_SUFFIXES)}), '
            f'the first is {empty[0]!r}; add some, or remove the folder'
        )


def _classes(root):
    """Pictures of each class folder, as paths below it; sorted as MMPretrain sorts them."""
    return {folder: _pictures(root / folder) for folder in _folders(root)}


def _folders(root):
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def _visible(names: Sequence[str]):
    return [name for name in names if not name.startswith('.')]


def _pictures(folder):
    files = (path for path in folder.rglob('*') if path.name.lower().endswith(IMAGE_SUFFIXES))
    return sorted(path.relative_to(folder).as_posix() for path in files if path.is_file())
