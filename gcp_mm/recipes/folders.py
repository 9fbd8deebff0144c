"""Class folders, with training and validation apart or to be split."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import IMAGE_SUFFIXES, count_suffixes

# Names of the folders of a split, in any case
TRAIN = ('train', 'training')
VAL = ('val', 'valid', 'validation', 'dev', 'test', 'testing')
SHARE = 5  # of its images, each class gives one to the validation


@dataclass(frozen=True)
class Folders:
    """Images by class.

    Attributes:
        root: the folder of the dataset.
        classes: names, in the order of their labels.
        prefixes: folder below `root` of the training and of the validation, both '' where the
            images were split.
        samples: their images, paths below that folder with labels.
        was_split: whether they were split at random.
        notes: what whoever trains with them should know, a sentence each.
    """

    root: Path
    classes: tuple[str, ...]
    prefixes: dict[str, str]
    samples: dict[str, list[tuple[str, int]]]
    was_split: bool
    notes: tuple[str, ...] = ()

    def listing(self, split: str) -> str:
        """What a list of a split holds: a line with path and label for each image."""
        return ''.join(f'{name} {label}\n' for name, label in self.samples[split])

    def infos(self, split: str) -> list[dict]:
        """Path of each image of a split."""
        folder = self.root / self.prefixes[split]
        return [dict(img_path=str(folder / name)) for name, _ in self.samples[split]]


def find_folders(root: Path, seed: int = 0) -> Folders:
    """Find the images in class folders: ``root/{train,val}/<class>/`` or ``root/<class>/``.

    Args:
        root: the folder.
        seed: of the random split, where the folder is not split already.

    Raises:
        ValueError: if there are no such folders, fewer than two classes, other classes to validate
            than to train on, or classes without an image to train on or, of a split at random, to
            validate.
    """
    names = _folders(root)
    train = find_split(names, TRAIN)
    val = find_split(names, VAL)
    if train and val:
        return _given(root, train, val)
    if train and len(names) == 1:
        return _split(root / train, seed)
    for name in names:
        if 'train' in name.lower() and _holds_folders_alone(root / name):
            raise ValueError(
                f'{str(root)!r}: the folders {names} look like those of a split, and would be '
                'classes: call them train and val'
            )
    return _split(root, seed)


def find_split(names: Sequence[str], words: Sequence[str]) -> str | None:
    """The first of `names` that is one of `words`, in the order of the words, in any case."""
    return next((name for word in words for name in names if name.lower() == word), None)


def _given(root, train, val):
    (trained, left_out), (others, more_left_out) = _classes(root / train), _classes(root / val)
    if trained.keys() != others.keys():
        missing, more = trained.keys() - others.keys(), others.keys() - trained.keys()
        parts = [f'missing {sorted(missing)}'] if missing else []
        parts += [f'besides {sorted(more)}'] if more else []
        raise ValueError(
            f'{str(root)!r}: the class folders of {val} are not those of {train}: '
            f'{", ".join(parts)}. Labels are places among the folders: add the missing ones, empty '
            'if need be, and remove what is no class'
        )
    for folder in (root / train, root / val):
        walk = os.walk(folder, followlinks=True)
        hidden = (
            Path(path, each) for path, folders, _ in walk for each in folders if each[0] == '.'
        )
        if found := next(hidden, None):  # which MMPretrain reads
            raise ValueError(f'{str(found)!r} would be read as the others; remove the folder')
    _check_classes(trained, root / train)
    samples = dict(train=_samples(trained), val=_samples(others))
    notes = [*left_out, *more_left_out]
    if val.lower().startswith('test'):
        notes.append(f'No folder is called val: {val}/ validates.')
    prefixes = dict(train=train, val=val)
    return Folders(root, tuple(trained), prefixes, samples, False, tuple(notes))


def _samples(found):
    return [
        (f'{name}/{file}', i) for i, (name, files) in enumerate(found.items()) for file in files
    ]


def _split(root, seed):
    found, left_out = _classes(root)
    _check_classes(found, root)
    single = [name for name, files in found.items() if len(files) < 2]
    if single:
        raise ValueError(
            f'{str(root)!r}: {len(single)} classes have a single image, the first is '
            f'{single[0]!r}, and none would be left to validate; add images, or split them '
            'yourself into train/ and val/'
        )
    rng = np.random.default_rng(seed)
    samples = dict(train=[], val=[])
    for label, (name, images) in enumerate(found.items()):
        chosen = set(rng.permutation(len(images))[: max(1, len(images) // SHARE)])
        for i, image in enumerate(images):
            _check_name(root, f'{name}/{image}')
            samples['val' if i in chosen else 'train'].append((f'{name}/{image}', label))
    notes = [f'One image in {SHARE} of each class, drawn with seed {seed}, validates.', *left_out]
    prefixes = dict(train='', val='')
    return Folders(root, tuple(found), prefixes, samples, True, tuple(notes))


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
            f'{name} holds no class folders; expected <class>/<image> or '
            '{train,val}/<class>/<image>'
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
            f'{name}: class folders without an image ({", ".join(IMAGE_SUFFIXES)}): {len(empty)}, '
            f'the first is {empty[0]!r}; add some, or remove the folder'
        )


def _classes(root):
    """Images of each class folder, as paths below it, and notes on the other files there.

    Both are sorted as MMPretrain sorts them.
    """
    files = {folder: sorted(_files(root / folder)) for folder in _folders(root)}
    found = {folder: list(filter(_is_image, names)) for folder, names in files.items()}
    others = [name for names in files.values() for name in names if not _is_image(name)]
    notes = [f'Left out in {root.name}/ by suffix: {count_suffixes(others)}.'] if others else []
    return found, notes


def _is_image(name):
    return name.lower().endswith(IMAGE_SUFFIXES)


def _folders(root):
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith('.'))


def _holds_folders_alone(folder):
    """Whether a folder holds folders, and no image beside them."""
    beside = any(_is_image(path.name) for path in folder.iterdir() if path.is_file())
    return bool(_folders(folder)) and not beside


def _files(folder):
    """Paths of the files below a folder; links are followed, and hidden ones left out."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith('.')]
        for name in files:
            if not name.startswith('.'):
                yield Path(place, name).relative_to(folder).as_posix()
