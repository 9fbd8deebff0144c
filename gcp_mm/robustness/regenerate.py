"""Sets like ImageNet-C and ImageNet-P, made from a folder of clean images.

Every file depends only on its own path in the set and its image, so a set comes out the same to the
byte with any number of processes and in any order. Files are written atomically: a run that was
stopped continues with the missing ones.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import functional as tvf
from tqdm import tqdm

from .._io import check_made_with, read_json, sha256, write_atomically
from .._lock import locked
from ..data.load_image import IMAGE_SUFFIXES, class_files
from ..ops.arguments import check_integer
from .benchmarks import read_image
from .corruptions import SMALLEST, corrupt, seeded, versions
from .errors import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from .perturbations import perturb
from .results import STAMP
from .stability import PERTURBATIONS

NOTE = 'regenerated, not official: not comparable with results on ImageNet-C and ImageNet-P'
NAMES = {'c': CORRUPTIONS + EXTRA_CORRUPTIONS, 'p': PERTURBATIONS}


@dataclass
class Recipe:
    """Settings of a set.

    Args:
        kind: 'c', corruptions as JPEGs of quality 85, or 'p', perturbation sequences as .npy
            arrays, (frames, size, size, 3) uint8 RGB.
        names: the corruptions or perturbations; by default all.
        size: width and height of the results in pixels, at least 64. ImageNet-C and -P have 224.
        resize: short side to which images are resized, bilinear, before the central crop; by
            default 256 / 224 of `size`.

    Raises:
        TypeError, ValueError: for a wrong value.
    """

    kind: str
    names: Sequence[str] | None = None
    size: int = 224
    resize: int | None = None

    def __post_init__(self):
        self.names = self.names or NAMES[self.kind]
        if unknown := set(self.names) - set(NAMES[self.kind]):
            raise ValueError(f'names: {unknown} are none of {", ".join(NAMES[self.kind])}')
        check_integer('size', self.size, SMALLEST)
        if self.resize is None:
            self.resize = round(256 / 224 * self.size)
        check_integer('resize', self.resize, self.size)

    def files(self, image: str) -> dict[Path, tuple]:
        """Files made of an image, given as <class>/<file>: path in the set -> (name, severity)."""
        stem = Path(image).with_suffix('')
        if self.kind == 'p':
            return {Path(name, f'{stem}.npy'): (name, None) for name in self.names}
        return {
            Path(name, str(severity), f'{stem}.JPEG'): (name, severity)
            for name in self.names
            for severity in SEVERITIES
        }

    def make(self, image: Image.Image, key: str, name: str, severity: int | None) -> bytes:
        """Content of one of the files of an image, which is resized and not cropped."""
        rng, file = seeded(self.kind, name, severity, key), io.BytesIO()
        if self.kind == 'c':
            cropped = np.asarray(tvf.center_crop(image, self.size))
            corrupted = Image.fromarray(corrupt(cropped, name, severity, rng))
            corrupted.save(file, 'JPEG', quality=85, optimize=True)
        else:
            np.save(file, perturb(np.asarray(image), name, self.size, rng))
        return file.getvalue()


def make_set(
    recipe: Recipe, source: Path, target: Path, workers: int = 1, skip_bad: bool = False
) -> dict:
    """Write the missing files of a set.

    Corruptions go to ``target/<corruption>/<severity>/<class>/<stem>.JPEG``, sequences to
    ``target/<perturbation>/<class>/<stem>.npy``, settings and versions to
    ``target/GENERATED.json``.

    Args:
        recipe: what to make.
        source: folder of the clean images, ``<class>/<image>``.
        target: folder to write into. It can be filled in several runs, by name, if the other
            settings are the same.
        workers: number of processes; 1: this one.
        skip_bad: leave out images that cannot be read, instead of stopping at the first.

    Returns:
        ``dict(made=..., found=..., skipped={image: reason})``: numbers of files made and found, and
        the images left out, which are also listed in ``GENERATED.json``.

    Raises:
        BlockingIOError: if another process writes into `target`.
        OSError: if `source` holds no images, or one that cannot be opened.
        ModuleNotFoundError: if the package imagecorruptions-imaug is not installed.
        ValueError: for images of the same name, a `target` made otherwise or of other images, or an
            image that cannot be read.
        RuntimeError: if a process died.
    """
    source, target = Path(source), Path(target)
    images = find_images(source)
    settings = dict(kind=recipe.kind, size=recipe.size, resize=recipe.resize, **versions())
    digest = hashlib.sha256()
    for image in tqdm(images, desc=str(source)):
        digest.update(f'{image} {sha256(source / image)}\n'.encode())
    content = dict(images=len(images), sha256=digest.hexdigest())
    made_with = dict(settings, source=content)
    with locked(target, folder=True):
        check_target(target, made_with)
        write_stamp(target, made_with, {})
        made, found, skipped = 0, 0, {}
        loader = DataLoader(
            images,
            batch_size=None,
            num_workers=0 if workers == 1 else workers,
            collate_fn=partial(make_files, recipe, source, target),
            worker_init_fn=one_thread,
            # Forks of a process with threads can hang.
            multiprocessing_context='spawn' if workers > 1 else None,
        )
        for image, (new, old, reason) in tqdm(
            zip(images, loader, strict=True), desc=str(target), total=len(images)
        ):
            if reason and not skip_bad:
                raise ValueError(
                    f'{source / image}: {reason}; replace or remove it, or leave such images out '
                    'with --skip-bad'
                )
            if reason:
                skipped[image] = reason
            made, found = made + new, found + old
        write_stamp(target, made_with, skipped)
    if len(skipped) == len(images):
        raise ValueError(f'{source}: none of the {len(images)} images can be read')
    return dict(made=made, found=found, skipped=skipped)


def find_images(source: Path) -> list[str]:
    """Images of a folder as <class>/<file>, sorted.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if two differ only in their suffix.
    """
    images = [path.relative_to(source).as_posix() for path in class_files(source, IMAGE_SUFFIXES)]
    stem, count = Counter(str(Path(image).with_suffix('')) for image in images).most_common(1)[0]
    if count > 1:
        raise ValueError(f'{source}: {count} images {stem}.* would become one file; rename them')
    return images


def check_target(target: Path, made_with: dict) -> None:
    """Check that a folder holds nothing but a set made with the same settings and images.

    Args:
        target: the folder.
        made_with: settings, versions and source of this run.

    Raises:
        ValueError: if it holds something else.
    """
    path = target / STAMP
    if path.is_file():
        check_made_with(target, read_json(path, made_with=dict)['made_with'], made_with)
    elif any(target.glob('[!.]*')):
        raise ValueError(f'{target} was not made by this program; name another folder')


def write_stamp(target: Path, made_with: dict, skipped: dict) -> None:
    """Write ``GENERATED.json``."""
    stamp = dict(note=NOTE, made_with=made_with, skipped=skipped)
    write_atomically(target / STAMP, (json.dumps(stamp, indent=2) + '\n').encode())


def make_files(
    recipe: Recipe, source: Path, target: Path, image: str
) -> tuple[int, int, str | None]:
    """Write the missing files of an image.

    Returns:
        Numbers of files made and found, and why the image cannot be read, or None.
    """
    files = recipe.files(image)
    missing = {path: what for path, what in files.items() if not (target / path).exists()}
    found = len(files) - len(missing)
    if not missing:
        return 0, found, None
    try:
        resized = read_image(source / image, recipe.resize)
    except Exception as error:  # decoders raise many kinds for a broken file
        return 0, found, f'cannot be read ({error})'
    for path, what in missing.items():
        write_atomically(target / path, recipe.make(resized, image, *what))
    return len(missing), found, None


def one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
