"""Files in COCO's format with their pictures, training and validation apart or to be split."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checks.annotations import read_annotations
from .folders import SHARE, TRAIN, VAL

# Keys that a JSON file of another kind lacks
PARTS = {'images', 'annotations', 'categories'}


@dataclass(frozen=True)
class Objects:
    """Pictures with objects.

    Attributes:
        root: the folder of the dataset.
        classes: names of the categories that have an object to train on, as the files order them.
        files: annotation file of the training and of the validation, below `root`; {} where the
            pictures of one file were split at random.
        prefixes: folder of their pictures, below `root`.
        contents: what the files hold.
        sources: the files that were read.
        notes: what whoever trains with them should know, a sentence each.
    """

    root: Path
    classes: tuple[str, ...]
    files: dict[str, str]
    prefixes: dict[str, str]
    contents: dict[str, dict]
    sources: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    suffix = '.json'  # of a file of a split

    def listing(self, split: str) -> str:
        """What a file of a split holds."""
        return json.dumps(self.contents[split])

    @property
    def was_split(self) -> bool:
        """Whether the pictures of one file were split."""
        return not self.files

    def paths(self, split: str) -> list[Path]:
        """Paths of the pictures of a split."""
        folder = self.root / self.prefixes[split]
        return [folder / image['file_name'] for image in self.contents[split]['images']]

    def objects(self, split: str) -> list[dict]:
        """Annotations of a split that are not crowds, of the classes."""
        names = {each['id']: each['name'] for each in self.contents[split]['categories']}
        return [
            each
            for each in self.contents[split]['annotations']
            if not each.get('iscrowd') and names.get(each['category_id']) in self.classes
        ]


def find_objects(root: Path, masks: bool, seed: int = 0) -> Objects:
    """Find a dataset in COCO's format: files for training and validation, or one to be split.

    Args:
        root: folder that holds the files, in it or in a folder of it, and the pictures.
        masks: whether each object needs a mask.
        seed: of the random split.

    Raises:
        ValueError: if there are no such files or several of a kind, for what MMDetection would
            fail at or misread in them, or if pictures, objects or masks are missing.
    """
    read, notes = {}, []
    files = _files(root, read)
    contents = {split: _content(path, read) for split, path in files.items()}
    if 'val' not in contents:
        contents = _split(contents['train'], root, seed)
        files['val'] = files['train']
        notes.append(f'One picture in {SHARE}, drawn with seed {seed}, validates.')
    prefixes = {split: _prefix(root, path, contents[split]) for split, path in files.items()}
    classes, unused = _classes(contents['train'])
    if not classes:
        raise ValueError(f'{str(files["train"])!r} holds no object to train on')
    if unused:
        notes.append(f'Left out are categories without an object to train on: {unused}.')
    where = {split: path.relative_to(root).as_posix() for split, path in files.items()}
    where = {} if files['val'] == files['train'] else where
    sources = tuple(files.values())
    found = Objects(root, classes, where, prefixes, contents, sources, tuple(notes))
    for split, path in files.items():
        _check(found, split, path, masks)
    return found


def _files(root, read):
    """The annotation files by split; the one file under 'train' where there is one alone."""
    found = sorted([*root.glob('*.json'), *root.glob('*/*.json')])
    found = [path for path in found if path.name.startswith('instances')] or found
    found = [path for path in found if _is_coco(path, read)]
    if not found:
        raise ValueError(
            f"{str(root)!r} holds no file in COCO's format; expected annotations/instances_train"
            '.json and annotations/instances_val.json, or one file beside the pictures'
        )
    by_split = {'train': [], 'val': []}
    for path in found:
        name = path.relative_to(root).as_posix().lower()
        split = next((s for s, words in _WORDS for word in words if word in name), None)
        if split:
            by_split[split].append(path)
    if len(found) == 1:
        return dict(train=found[0])
    # A test set beside a validation set is for later.
    validating = [path for path in by_split['val'] if 'val' in path.as_posix().lower()]
    by_split['val'] = validating or by_split['val']
    for split, paths in by_split.items():
        if len(paths) != 1:
            names = [path.relative_to(root).as_posix() for path in paths or found]
            raise ValueError(
                f"{str(root)!r}: expected one file in COCO's format with {split!r} in its name or "
                f'folder, got {names}; rename or remove others'
            )
    return {split: path for split, (path,) in by_split.items()}


_WORDS = (('train', TRAIN), ('val', VAL))


def _is_coco(path, read):
    """Whether a JSON file has the keys of COCO's format."""
    content, _ = read_annotations(str(path), read)
    return isinstance(content, dict) and content.keys() >= PARTS


def _content(path, read):
    content, fault = read_annotations(str(path), read)
    if fault:
        raise ValueError(fault)
    return content


def _split(content, root, seed):
    """One picture in :data:`SHARE` for the validation, of those with objects and of the others."""
    with_objects = {each['image_id'] for each in content['annotations']}
    images = sorted(content['images'], key=lambda image: str(image['id']))
    groups = [[], []]
    for image in images:
        groups[image['id'] in with_objects].append(image)
    if len(groups[1]) < 2:
        raise ValueError(f'{str(root)!r}: {len(groups[1])} pictures have objects, expected two')
    rng, chosen = np.random.default_rng(seed), set()
    for group in groups:
        number = max(1, len(group) // SHARE) if group else 0
        chosen |= {group[i]['id'] for i in rng.permutation(len(group))[:number]}
    return {
        split: dict(
            images=[image for image in content['images'] if (image['id'] in chosen) == validates],
            annotations=[
                a for a in content['annotations'] if (a['image_id'] in chosen) == validates
            ],
            categories=content['categories'],
        )
        for split, validates in (('train', False), ('val', True))
    }


def _prefix(root, path, content):
    """The folder, below `root`, that holds the pictures of a file."""
    images = content['images']
    if not images:
        raise ValueError(f'{str(path)!r} lists no picture')
    name, stem = images[0]['file_name'], path.stem.removeprefix('instances_')
    places = [stem, f'images/{stem}', path.parent.relative_to(root).as_posix(), 'images', '.']
    for split in (*TRAIN, *VAL):
        if split in path.relative_to(root).as_posix().lower():
            places = [split, f'images/{split}', *places]
    folder = next((place for place in places if (root / place / name).is_file()), None)
    if folder is None:
        raise ValueError(
            f'{str(path)!r}: its first picture, {name!r}, is in none of '
            f'{", ".join(repr(str(root / place)) for place in dict.fromkeys(places))}'
        )
    return '' if folder == '.' else folder


def _classes(content):
    """Names of the categories with objects, in the file's order, and of those without."""
    counts = Counter(a['category_id'] for a in content['annotations'] if not a.get('iscrowd'))
    names = [(each['name'], counts[each['id']]) for each in content['categories']]
    return tuple(n for n, count in names if count), [n for n, count in names if not count]


def _check(found, split, path, masks):
    """Raise for pictures that are absent, and if there is nothing to learn from or evaluate by."""
    absent = [each for each in found.paths(split) if not each.is_file()]
    if absent:
        raise ValueError(
            f'{str(path)!r}: {len(absent):,} of {len(found.contents[split]["images"]):,} pictures '
            f'do not exist, the first is {str(absent[0])!r}'
        )
    objects = found.objects(split)
    if not objects:
        raise ValueError(
            f'{str(path)!r}: there is no object of {found.classes} for the {split} set'
        )
    without = sum(not each.get('segmentation') for each in objects)
    if masks and without:
        raise ValueError(
            f'--task segment: {without:,} of {len(objects):,} objects in {str(path)!r} have no '
            'segmentation; take --task detect, or add the masks'
        )
