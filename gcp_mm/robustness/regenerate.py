"""Sets like ImageNet-C and ImageNet-P, made from a folder of clean images.

Every file depends on the seed, its own place in the set and its image alone, so a set comes out the
same to the byte with any number of processes and in any order. A file that is there is whole: it is
written under another name first. So a run that was stopped goes on where it was.
"""

import hashlib
import json
import multiprocessing
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import functional as tvf
from tqdm import tqdm

import gcp_mm

from .._io import check_integer
from .corruptions import PACKAGE, SMALLEST, check_package, corrupt
from .errors import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from .perturbations import crop, perturb
from .stability import PERTURBATIONS, VALIDATION_PERTURBATIONS

STAMP = 'GENERATED.json'
NOTE = 'regenerated, not official: not comparable with results on ImageNet-C and ImageNet-P'
NAMES = {
    'c': CORRUPTIONS + EXTRA_CORRUPTIONS,
    'p': PERTURBATIONS + VALIDATION_PERTURBATIONS,
}
FORMATS = ('png', 'npy', 'mp4')
# Distributions that the content of a set depends on.
PACKAGES = {
    'c': ('numpy', 'scipy', 'pillow', 'torchvision', 'scikit-image', PACKAGE),
    'p': ('numpy', 'scipy', 'pillow', 'torchvision'),
}


@dataclass
class Recipe:
    """What a set is made of.

    Args:
        kind: 'c', corruptions as JPEGs of quality 85, or 'p', perturbation sequences.
        names: of the corruptions or perturbations; None: all 19, or the 10 that count.
        severities: of the corruptions, 1 to 5.
        size: width and height of the results in pixels, at least 64. Only 224 is ImageNet-C's and
            -P's.
        resize: short side to which images are resized, bilinear, before the centre is cut out;
            None: 256 / 224 of `size`.
        seed: what all randomness is derived from, together with each file's place in the set.
        frames: how a sequence is stored: 'png', a folder of frames; 'npy', one array (n, size,
            size, 3) uint8 RGB; 'mp4', H.264 as the official set's, with its losses.

    Raises:
        TypeError, ValueError: for a wrong value.
        ModuleNotFoundError: if a package that it takes is not installed.
    """

    kind: str
    names: Sequence[str] | None = None
    severities: Sequence[int] = SEVERITIES
    size: int = 224
    resize: int | None = None
    seed: int = 0
    frames: str = 'png'

    def __post_init__(self):
        if self.kind not in NAMES:
            raise ValueError(f"kind: expected 'c' or 'p', got {self.kind!r}")
        usual = NAMES['c'] if self.kind == 'c' else PERTURBATIONS
        self.names = usual if self.names is None else tuple(dict.fromkeys(self.names))
        wrong = set(self.names) - set(NAMES[self.kind])
        if wrong or not self.names:
            raise ValueError(
                f'names: expected some of {", ".join(NAMES[self.kind])}, got {sorted(wrong)}'
            )
        self.severities = tuple(dict.fromkeys(self.severities))
        if not self.severities or set(self.severities) - set(SEVERITIES):
            raise ValueError(f'severities: expected some of 1 to 5, got {self.severities}')
        check_integer('size', self.size, SMALLEST)
        if self.resize is None:
            self.resize = round(256 / 224 * self.size)
        check_integer('resize', self.resize, self.size)
        check_integer('seed', self.seed, 0)
        if self.frames not in FORMATS:
            raise ValueError(f'frames: expected one of {", ".join(FORMATS)}, got {self.frames!r}')
        if self.kind == 'c':
            check_package()
        elif self.frames == 'mp4':
            ffmpeg()

    def files(self, image: str) -> dict[Path, tuple]:
        """Results of an image given as <class>/<file>: path in the set -> (name, severity)."""
        place = Path(image).with_suffix('')
        if self.kind == 'c':
            return {
                Path(name, str(severity), f'{place}.JPEG'): (name, severity)
                for name in self.names
                for severity in self.severities
            }
        suffix = '' if self.frames == 'png' else f'.{self.frames}'
        return {Path(name, f'{place}{suffix}'): (name, None) for name in self.names}

    def describe(self) -> dict:
        """What determines the content of each file, versions included, as JSON types."""
        stored = 'JPEG, quality 85' if self.kind == 'c' else self.frames
        packages = PACKAGES[self.kind] + (('imageio-ffmpeg',) if stored == 'mp4' else ())
        return dict(
            kind=self.kind,
            size=self.size,
            resize=self.resize,
            seed=self.seed,
            stored=stored,
            gcp_mm=gcp_mm.__version__,
            opencv=cv2.__version__,
            **{package: metadata.version(package) for package in packages},
        )


def make_set(
    recipe: Recipe, source: Path, target: Path, workers: int = 1, skip_bad: bool = False
) -> dict:
    """Write a set, or what is missing of it.

    Corruptions go to ``target/<corruption>/<severity>/<class>/<stem>.JPEG``, sequences to
    ``target/<perturbation>/<class>/<stem>``, a folder of PNGs, or the same with .npy or .mp4, and
    what they were made with to ``target/GENERATED.json``.

    Args:
        recipe: what to make.
        source: folder of the clean images, ``<class>/<image>``.
        target: folder to write into. It can be filled in several runs, by name and severity, if all
            else is the same.
        workers: number of processes; 1: this one.
        skip_bad: leave out images that cannot be read, instead of stopping at the first.

    Returns:
        ``dict(made=..., found=..., skipped={image: reason})``: numbers of files (sequences) made
        and found there, and the images left out, also listed in ``GENERATED.json``.

    Raises:
        FileNotFoundError: if there is no `source`.
        ValueError: for another layout of `source`, a `target` made otherwise or not by this
            function, or an image that cannot be read.
        RuntimeError: if a process died.
    """
    check_integer('workers', workers, 1)
    source, target = Path(source), Path(target)
    images = find_images(source)
    stamp = claim(target, source, dict(recipe.describe(), source=fingerprint(images)))
    missing = {image: len(missing_files(recipe, target, image)) for image in images}
    todo = [image for image in images if missing[image]]
    total = len(images) * len(recipe.files(images[0]))
    found = total - sum(missing.values())
    made, skipped = 0, {}
    progress = tqdm(desc=str(target), unit='file', total=total, initial=found)
    reasons = run_all(partial(make_files, recipe, source, target), todo, workers)
    with closing(reasons), progress:
        for image, reason in zip(todo, reasons, strict=True):
            if reason is None:
                made += missing[image]
            elif skip_bad:
                skipped[image] = reason
            else:
                raise ValueError(
                    f'{source / image}: {reason}; mend or remove it, or leave such images out '
                    'with --skip-bad'
                )
            progress.update(missing[image])
    write(target / STAMP, partial(write_json, dict(stamp, skipped=skipped)))
    if len(skipped) == len(images):
        raise ValueError(f'{source}: none of the {len(images)} images can be read')
    return dict(made=made, found=found, skipped=skipped)


def find_images(source: Path) -> list[str]:
    """Images of a folder as <class>/<file>, sorted; raises where the layout is another one."""
    layout = 'expected <class>/<image>'
    if not source.is_dir():
        raise FileNotFoundError(f'{source}: no such folder; {layout} in it')
    images = []
    for folder in sorted(source.iterdir()):
        if folder.name.startswith('.'):
            continue
        if not folder.is_dir():
            if folder.suffix.lower() in IMG_EXTENSIONS:
                raise ValueError(
                    f'{source}: {layout} and found the image {folder.name} in no class'
                )
            continue
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
        found = [path for path in inside if path.suffix.lower() in IMG_EXTENSIONS]
        if not found:
            deeper = [path.name for path in inside if path.is_dir()]
            remedy = f': did you mean {folder}?' if deeper else ''
            raise ValueError(f'{source}: {layout} and found no image in {folder.name}/{remedy}')
        stems = {}
        for path in found:
            other = stems.setdefault(path.stem, path)
            if other is not path:
                raise ValueError(f'{other} and {path.name} would become one file; rename one')
            images.append(f'{folder.name}/{path.name}')
    if not images:
        raise ValueError(f'{source}: {layout} and found no image')
    return images


def fingerprint(images):
    """Number and digest of the images' names, to tell one source from another."""
    return dict(images=len(images), sha256=hashlib.sha256('\n'.join(images).encode()).hexdigest())


def claim(target, source, made_with):
    """Write the stamp, or check that it is the same; returns its content.

    Raises ValueError if `target` holds anything else, or one folder lies in the other.
    """
    ends = target.resolve(), source.resolve()
    if any(one == other or one in other.parents for one, other in (ends, ends[::-1])):
        raise ValueError(f'{target} and {source} lie in one another; name another folder')
    stamp = dict(note=NOTE, made_with=made_with, skipped={})
    path = target / STAMP
    if target.exists() and not target.is_dir():
        raise ValueError(f'{target} is a file; name another folder')
    if not path.is_file():
        if target.is_dir() and any(target.iterdir()):
            raise ValueError(f'{target} was not made by this program; name another folder')
        target.mkdir(parents=True, exist_ok=True)
        write(path, partial(write_json, stamp))
        return stamp
    before = json.loads(path.read_text())['made_with']
    differ = [key for key in made_with if made_with[key] != before.get(key)]
    if differ:
        was, now = ({key: made.get(key) for key in differ} for made in (before, made_with))
        raise ValueError(
            f'{target} was made with {was}, and this is {now}; remove it or name another folder'
        )
    return stamp


def run_all(job, images, workers) -> Iterator:
    """Results of `job` for each image, in their order."""
    if workers == 1 or not images:
        yield from map(job, images)
        return
    # A fork server imports once for all; plain forks of a process with threads can hang.
    server = 'forkserver' in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context('forkserver' if server else 'spawn')
    if server:
        context.set_forkserver_preload([__name__, 'imagecorruptions'])
    pool = ProcessPoolExecutor(workers, context, initializer=start_worker)
    try:
        yield from pool.map(job, images)
    except BrokenProcessPool as error:
        raise RuntimeError(
            'a process was killed, perhaps for its memory: the same command goes on from here, '
            'with fewer --workers if need be'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def start_worker():
    cv2.setNumThreads(1)
    threading.Thread(target=leave_with_parent, daemon=True).start()


def leave_with_parent():
    """End this process when its parent has ended: else it would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def missing_files(recipe: Recipe, target: Path, image: str) -> dict[Path, tuple]:
    """Those of an image's files that are not there yet, as :meth:`Recipe.files`."""
    return {
        path: what for path, what in recipe.files(image).items() if not (target / path).exists()
    }


def make_files(recipe: Recipe, source: Path, target: Path, image: str) -> str | None:
    """Write what is missing of an image; returns why it cannot be read, or None."""
    try:
        pixels = read_image(source / image, recipe.resize)
    except Exception as error:  # decoders raise many kinds for a broken file
        return f'cannot be read ({error})'
    for path, (name, severity) in missing_files(recipe, target, image).items():
        rng = np.random.default_rng(seed_of(recipe.seed, recipe.kind, name, severity, image))
        if recipe.kind == 'c':
            content = corrupt(crop(pixels, recipe.size), name, severity, rng)
            writer = write_jpeg
        else:
            content = perturb(pixels, name, recipe.size, rng)
            writer = dict(png=write_pngs, npy=write_npy, mp4=partial(write_mp4, name))[
                recipe.frames
            ]
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        write(target / path, partial(writer, content))
    return None


def read_image(path: Path, resize: int) -> np.ndarray:
    """An image of any 8-bit mode as (H, W, 3) uint8 RGB, its short side `resize` pixels."""
    with Image.open(path) as image:
        if image.mode[0] in 'IF':
            raise ValueError(f'pixels of mode {image.mode}, not of 8 bits')
        return np.asarray(tvf.resize(image.convert('RGB'), resize))


def seed_of(*parts) -> int:
    """A seed of 128 bits that is the same in every process and on every machine."""
    text = '/'.join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'little')


def write(path: Path, writer) -> None:
    """Have `writer` write a file or folder that appears at `path` when it is whole."""
    partial_path = path.with_name(f'.{path.name}.part')
    writer(partial_path)
    partial_path.replace(path)


def write_json(content, path):
    path.write_text(json.dumps(content, indent=2) + '\n')


def write_jpeg(image, path):
    Image.fromarray(image).save(path, 'JPEG', quality=85, optimize=True)


def write_npy(frames, path):
    with path.open('wb') as file:
        np.save(file, frames)


def write_pngs(frames, path):
    path.mkdir(exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f'{number:02d}.png', compress_level=1)


def write_mp4(name, frames, path):
    """H.264 with the official set's options, in one thread: more would change the bytes."""
    size = f'{frames.shape[2]}x{frames.shape[1]}'
    quality = ('-tune', 'grain') if 'noise' in name else ('-crf', '20')
    command = [
        *(ffmpeg(), '-loglevel', 'error', '-y'),
        *('-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', size, '-r', '1', '-i', 'pipe:'),
        *('-c:v', 'libx264', *quality, '-preset', 'veryslow', '-threads', '1', '-f', 'mp4'),
        str(path),
    ]
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f'ffmpeg could not write {path}: {done.stderr.decode().strip()}')


def ffmpeg() -> str:
    """The ffmpeg that imageio-ffmpeg brings: it has libx264, OpenCV's wheels have not."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'mp4 needs an H.264 encoder: pip install imageio-ffmpeg, or choose png or npy'
        ) from None
    return get_ffmpeg_exe()
