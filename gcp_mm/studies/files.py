"""Picture and video files to read, and where what is drawn of them goes."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import mmcv
import numpy as np
from tqdm import tqdm

from ..data import check_image_file

# What drawings are written as; the first of each kind where the input is of another.
PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.ppm', '.tif', '.tiff', '.webp')
VIDEOS = ('.mp4',)
ALL_PICTURES = (*PICTURES, '.pgm')
ALL_VIDEOS = (*VIDEOS, '.avi', '.m4v', '.mkv', '.mov', '.mpeg', '.mpg', '.webm')


def is_video(file: Path) -> bool:
    """Whether a file is taken for a video, by its name."""
    return file.suffix.lower() in ALL_VIDEOS


def find_inputs(paths: list[str]) -> dict[Path, Path]:
    """The pictures and videos that arguments name.

    Args:
        paths: files, and folders that are searched with their sub-folders.

    Returns:
        {file: its path below the folder that holds all of them}. Two files never share one.

    Raises:
        FileNotFoundError: for a path that does not exist.
        ValueError: for a folder without pictures and videos, or a file of another kind.
    """
    suffixes = (*ALL_PICTURES, *ALL_VIDEOS)
    known = f'pictures and videos end in {", ".join(suffixes)}'
    files, folders = {}, []
    for path in map(Path, paths):
        if path.is_dir():
            # Hidden ones are other programs' previews and lists.
            found = [
                file
                for file in sorted(path.rglob('*'))
                if file.suffix.lower() in suffixes
                and not file.is_dir()
                and not any(part.startswith('.') for part in file.relative_to(path).parts)
            ]
            if not found:
                raise ValueError(f'input {str(path)!r}: no picture or video is in it; {known}')
        elif not path.exists():
            raise FileNotFoundError(f'input {str(path)!r} does not exist')
        elif path.suffix.lower() not in suffixes:
            raise ValueError(f'input {str(path)!r}: no known kind of file; {known}')
        else:
            found = [path]
        folders.append(os.path.abspath(path if path.is_dir() else path.parent))
        for file in found:
            files.setdefault(os.path.abspath(file), file)
    common = os.path.commonpath(folders)
    return {file: Path(os.path.relpath(full, common)) for full, file in files.items()}


def plan_outputs(
    inputs: dict[Path, Path], out_dir: Path, force: bool = False
) -> dict[Path, tuple[Path, Path]]:
    """Where the drawing of each input goes, and its covariance (for a video a folder).

    Args:
        inputs: from :func:`find_inputs`.
        out_dir: folder to write to.
        force: whether it may hold something already.

    Returns:
        {file: (path of the drawing, path of the covariance)}.

    Raises:
        ValueError: if `out_dir` is a file, holds an input or, without `force`, anything, or if two
            inputs would be written to one place.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise ValueError(f'--out-dir {str(out_dir)!r} is a file; name a folder')
    if out_dir.is_dir() and any(out_dir.iterdir()) and not force:
        raise ValueError(
            f'--out-dir {str(out_dir)!r} is not empty; name another folder, or write over what is '
            'in it with --force'
        )
    outputs, taken = {}, {}
    for file, path in inputs.items():
        if Path(os.path.abspath(out_dir)) in Path(os.path.abspath(file)).parents:
            raise ValueError(
                f'input {str(file)!r} is in --out-dir {str(out_dir)!r}, where it could be written '
                'over; name another folder'
            )
        drawing = _written_as(path, VIDEOS if is_video(file) else PICTURES)
        covariance = path if is_video(file) else _written_as(path, PICTURES[:1])
        outputs[file] = out_dir / 'vis' / drawing, out_dir / 'covariance' / covariance
        for place in outputs[file]:
            if taken.setdefault(place, file) is not file:
                raise ValueError(
                    f'inputs {str(taken[place])!r} and {str(file)!r} would both be written to '
                    f'{str(place)!r}; rename one of them'
                )
    return outputs


def _written_as(path, suffixes):
    """`path`, with the first of `suffixes` added if it has none of them."""
    known = path.suffix.lower() in suffixes
    return path if known else path.with_name(path.name + suffixes[0])


def count_frames(files: dict[Path, Path]) -> dict[Path, int]:
    """Frames of each video, 1 for a picture.

    Raises:
        ValueError: naming those that cannot be read.
    """
    counts, unreadable = {}, []
    for file in tqdm(files, desc='check', unit='file'):
        try:
            counts[file] = _count_frames(file)
        except Exception as error:  # whatever decoding arbitrary bytes comes to
            unreadable.append(f'{str(file)!r} ({error})')
    if unreadable:
        more = f' and {len(unreadable) - 5} more' if len(unreadable) > 5 else ''
        raise ValueError(
            f'inputs: {len(unreadable)} of {len(files)} cannot be read: '
            f'{", ".join(unreadable[:5])}{more}; remove or replace them'
        )
    return counts


def _count_frames(file):
    if is_video(file):
        with mmcv.VideoReader(str(file)) as video:
            if video.read() is None:
                raise ValueError('OpenCV finds no frame in it')
            return max(1, video.frame_cnt)
    check_image_file(file)
    return 1


def read_pictures(files: Iterator[Path]) -> Iterator[tuple[Path, None, np.ndarray]]:
    """Yield (file, None, (H, W, 3) uint8 BGR)."""
    for file in files:
        image = mmcv.imread(str(file))
        if image is None:
            raise ValueError(f'input {str(file)!r}: OpenCV cannot read it; convert it to .png')
        yield file, None, image


def read_video(file: Path, count: int) -> Iterator[tuple[Path, int, np.ndarray]]:
    """Yield (file, number of the frame, (H, W, 3) uint8 BGR)."""
    number = -1
    with mmcv.VideoReader(str(file)) as video:
        for number, image in enumerate(video):
            yield file, number, image
    if number + 1 < count:
        tqdm.write(f'{file}: {number + 1} of {count} frames could be read')


class VideoOutput:
    """Writes frames as an .mp4, or as pictures where OpenCV has no encoder for that.

    Args:
        source: the video they come from, whose rate they get.
    """

    def __init__(self, source: Path):
        with mmcv.VideoReader(str(source)) as video:
            self.fps = video.fps or 25  # some files do not say
        self.writer, self.count = None, 0

    def write(self, image: np.ndarray, path: Path) -> Path:
        """Add a frame, (H, W, 3) uint8 BGR, to the video `path`. Returns where it went."""
        if self.writer is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter_fourcc(*'mp4v')
            self.writer = cv2.VideoWriter(str(path), codec, self.fps, image.shape[1::-1])
            if not self.writer.isOpened():
                path.unlink(missing_ok=True)  # of an earlier run
                tqdm.write(f'OpenCV cannot write {path}: its frames are written as pictures')
        if self.writer.isOpened():
            self.writer.write(image)
        else:
            path = path.with_name(path.name + '.frames') / f'{self.count:06d}.png'
            mmcv.imwrite(image, str(path))
        self.count += 1
        return path

    def close(self) -> None:
        if self.writer is not None:
            self.writer.release()
