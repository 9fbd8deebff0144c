"""Files in COCO's format with their images, training and validation apart or to be split."""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checks.annotations import read_annotations, reason_left_out
from .folders import SHARE, TRAIN, VAL

# Keys that a JSON file of another kind lacks
PARTS = {'images', 'annotations', 'categories'}


@dataclass(frozen=True)
class Objects:
    """Images with objects.

    Attributes:
        root: the folder of the dataset.
        classes: names of the categories that have an object to train on, as the files order them.
        annotation_files: of the training and of the validation, below `root`; {} where the images
            of one file were split at random.
        prefixes: folder of their images, below `root`.
        contents: what the files hold.
        notes: what whoever trains with them should know, a sentence each.
    """

    root: Path
    classes: tuple[str, ...]
    annotation_files: dict[str, str]
    prefixes: dict[str, str]
    contents: dict[str, dict]
    notes: tuple[str, ...] = ()

    def listing(self, split: str) -> str:
        """What a file of a split holds."""
        return json.dumps(self.contents[split])

    @property
    def was_split(self) -> bool:
        """Whether the images of one file were split."""
        return not self.annotation_files

    def infos(self, split: str) -> list[dict]:
        """Path, height and width of the images of a split."""
        folder = self.root / self.prefixes[split]
        return [
            dict(
                img_path=str(folder / image['file_name']),
                height=image['height'],
                width=image['width'],
            )
            for image in self.contents[split]['images']
        ]

    def objects(self, split: str) -> list[dict]:
        """Annotations of a split that MMDetection trains on or evaluates by, of the classes."""
        content = self.contents[split]
        return [each for name, each in _used(content) if name in self.classes]


def find_objects(root: Path, seed: int = 0, own: Sequence[Path] = ()) -> Objects:
    """Find a dataset in COCO's format: files for training and validation, or one to be split.

    Args:
        root: folder that holds the files, in it or in a folder of it, and the images.
        seed: of the random split.
        own: files of an earlier split, which are none of the dataset's.

    Raises:
        ValueError: if there are no such files or several of a kind, for what MMDetection would
            fail at or misread in them, or if there is no object to train on or no image.
    """
    read, notes = {}, []
    files = _find_files(root, read, {path.resolve() for path in own})
    given = 'val' in files
    contents = {
        split: _content(path, read, evaluated=given and split == 'val')
        for split, path in files.items()
    }
    if given and not _says(root, files['val'], 'val'):
        notes.append(f'No file is called val: {files["val"].name} validates.')
    classes, unused = _classes(contents['train'])
    if not classes:
        raise ValueError(f'{str(files["train"])!r} holds no object to train on')
    if unused:
        notes.append(f'Left out are categories without an object to train on: {unused}.')
    if given:
        _check_order(files, contents, classes)
    else:
        contents = _split(contents['train'], root, seed)
        files['val'] = files['train']
        notes.append(f'One image in {SHARE}, drawn with seed {seed}, validates.')
    prefixes = {
        split: _prefix(root, path, contents[split], split if given else '')
        for split, path in files.items()
    }
    names = {split: path.relative_to(root).as_posix() for split, path in files.items()}
    given_files = names if given else {}
    return Objects(root, classes, given_files, prefixes, contents, tuple(notes))


def _find_files(root, read, own):
    """The annotation files by split; the one file under 'train' where there is one alone."""
    found = sorted([*root.glob('*.json'), *root.glob('*/*.json')])
    found = [path for path in found if path.resolve() not in own]
    found = [path for path in found if path.name.startswith('instances')] or found
    found = [path for path in found if _is_coco(path, read)]
    if not found:
        raise ValueError(
            f"{str(root)!r} holds no file in COCO's format; expected annotations/instances_train"
            '.json and annotations/instances_val.json, or one file beside the images'
        )
    if len(found) == 1:
        return dict(train=found[0])
    by_split = dict(train=[path for path in found if _says(root, path, 'train')])
    others = [path for path in found if path not in by_split['train']]
    # A test set beside a validation set is for later.
    by_split['val'] = [path for path in others if _says(root, path, 'val')]
    by_split['val'] = by_split['val'] or [p for p in others if _says(root, p, 'test', 'dev')]
    for split, paths in by_split.items():
        if len(paths) != 1:
            got = [path.relative_to(root).as_posix() for path in paths or found]
            raise ValueError(
                f"{str(root)!r}: expected one file in COCO's format with {split!r} in its name or "
                f'folder, got {got}; rename or remove others'
            )
    return {split: path for split, (path,) in by_split.items()}


def _says(root, path, *words):
    """Whether a word of a file's name, or of its folder's, begins with one of `words`."""
    name = path.relative_to(root).as_posix().lower()
    return any(part.startswith(words) for part in re.split('[^a-z]+', name))


def _is_coco(path, read):
    """Whether a JSON file has the keys of COCO's format; others are not kept in `read`."""
    content, _ = read_annotations(str(path), read)
    if isinstance(content, dict) and content.keys() >= PARTS:
        return True
    read.pop(os.path.realpath(path), None)
    return False


def _content(path, read, evaluated):
    content, fault = read_annotations(str(path), read, evaluated)
    if fault:
        raise ValueError(fault)
    return content


def _split(content, root, seed):
    """One image in :data:`SHARE` for the validation, of those with objects and of the others.

    A category keeps an image to train on.
    """
    names = Counter(image['file_name'] for image in content['images'])
    if repeated := [name for name, count in names.items() if count > 1]:
        raise ValueError(
            f'{str(root)!r}: {len(repeated)} files are listed as several images, the first is '
            f'{repeated[0]!r}, and a split would put one into both parts; merge them'
        )
    categories = defaultdict(set)  # by image
    for name, each in _used(content):
        categories[each['image_id']].add(name)
    left = Counter(name for names in categories.values() for name in names)
    images = sorted(content['images'], key=lambda image: str(image['id']))
    groups = [[], []]
    for image in images:
        groups[image['id'] in categories].append(image['id'])
    if len(groups[1]) < 2:
        raise ValueError(f'{str(root)!r}: {len(groups[1])} images have objects, expected two')
    rng, chosen = np.random.default_rng(seed), set()
    for group in filter(None, groups):
        wanted = len(chosen) + max(1, len(group) // SHARE)
        for i in rng.permutation(len(group)):
            names = categories.get(group[i], ())
            if len(chosen) < wanted and all(left[name] > 1 for name in names):
                chosen.add(group[i])
                left.subtract(names)
    split = {name: dict(content, images=[], annotations=[]) for name in ('train', 'val')}
    for part, key in (('images', 'id'), ('annotations', 'image_id')):
        for entry in content[part]:
            entry = {'iscrowd': 0, **entry} if part == 'annotations' else entry  # to evaluate by
            split['val' if entry[key] in chosen else 'train'][part].append(entry)
    return split


def _used(content):
    """Category and annotation of each object that MMDetection trains on."""
    names = {each['id']: each['name'] for each in content['categories']}
    images = {each['id']: each for each in content['images']}
    for each in content['annotations']:
        known = each['category_id'] in names and not each.get('iscrowd')
        if known and not reason_left_out(each, images[each['image_id']]):
            yield names[each['category_id']], each


def _check_order(files, contents, classes):
    """Raise unless both files have the classes in one order, by which MMDetection gives labels."""
    names = [each['name'] for each in contents['val']['categories'] if each['name'] in classes]
    if names != list(classes):
        raise ValueError(
            f'{str(files["val"])!r} has the categories {names}, expected those of '
            f'{str(files["train"])!r} in their order, {list(classes)}: add or sort them; their ids '
            'can stay'
        )


def _prefix(root, path, content, split):
    """The folder, below `root`, that holds the images of a file, of a split or, for '', of all."""
    images = content['images']
    if not images:
        raise ValueError(f'{str(path)!r} lists no image')
    name, stem = images[0]['file_name'], path.stem.removeprefix('instances_')
    places = [stem, f'images/{stem}', path.parent.relative_to(root).as_posix(), 'images', '.']
    for word in dict(train=TRAIN, val=VAL).get(split, TRAIN + VAL):
        if _says(root, path, word) or (not split and word in path.stem.lower()):
            places = [word, f'images/{word}', *places]
    if Path(name).is_absolute():
        places = ['.']
    folder = next((place for place in places if (root / place / name).is_file()), None)
    if folder is None:
        raise ValueError(
            f'{str(path)!r}: its first image, {name!r}, is in none of '
            f'{", ".join(repr(str(root / place)) for place in dict.fromkeys(places))}'
        )
    return '' if folder == '.' else folder


def _classes(content):
    """Names of the categories with objects, in the file's order, and of those without."""
    counts = Counter(name for name, _ in _used(content))
    names = [each['name'] for each in content['categories']]
    return tuple(n for n in names if counts[n]), [n for n in names if not counts[n]]
