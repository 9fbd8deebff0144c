"""ImageNet-C, ImageNet-P and the clean images to compare with, as data sets of MMPretrain.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019. The preprocessing is the benchmarks' own and part of the data sets:
corrupted images are never resized. The normalisation is that of the model's data preprocessor.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmengine.registry import DATASETS
from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.transforms import PackInputs
from mmpretrain.structures import DataSample

from .errors import SEVERITIES

# The classes of ILSVRC-2012 in the order of the networks' outputs, which is that of their WordNet
# ids. Names and order agree with MMPretrain's list of class names.
IMAGENET_WNIDS = tuple(Path(__file__).with_name('imagenet_wnids.txt').read_text().split())
IMAGES = ('.jpeg', '.jpg', '.png')
VIDEOS = ('.mp4', '.npy')


class BadFileError(ValueError):
    """A file that cannot be evaluated; the message names it and says why."""


class FolderDataset(BaseDataset):
    """What the data sets of this module share: ``<folder>/<class>/<file>``.

    Args:
        folder: holds one folder per class.
        layout: of the whole set, for messages.
        pipeline: transforms of one image.
        crop_size: images are cropped to the centre of this width and height.
        skip_bad: return a file that cannot be evaluated as one without inputs, whose data sample
            says why under `unreadable`, instead of raising.
        **kwargs: of :class:`mmpretrain.datasets.BaseDataset`.
    """

    def __init__(self, folder, layout, pipeline, crop_size, skip_bad=False, **kwargs):
        self.folder, self.layout = Path(folder).expanduser(), layout
        self.crop_size, self.skip_bad = crop_size, skip_bad
        crop = dict(type='CenterCrop', crop_size=crop_size)
        kwargs = dict(ann_file='', test_mode=True, **kwargs)
        super().__init__(pipeline=[*pipeline, crop], **kwargs)

    def class_folders(self) -> list[Path]:
        """The folders of the classes in the order of their names.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: if it holds no folder.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f'there is no folder {str(self.folder)!r}; expected {self.layout}'
            )
        folders = sorted(path for path in self.folder.iterdir() if path.is_dir())
        if not folders:
            raise ValueError(
                f'{str(self.folder)!r} holds no folders of classes; expected {self.layout}'
            )
        return folders

    def found(self, samples: list[dict]) -> list[dict]:
        """`samples`, of which there has to be one.

        Raises:
            ValueError: if there is none.
        """
        if not samples:
            raise ValueError(
                f'the classes in {str(self.folder)!r} hold no file; expected {self.layout}'
            )
        return samples

    def prepare_data(self, index: int) -> dict:
        """Read a file.

        Returns:
            `inputs`, and its `data_samples`.

        Raises:
            BadFileError: if it cannot be evaluated and `skip_bad` is off.
        """
        info = self.get_data_info(index)
        try:
            info['img'] = self.read(info['img_path'])
        except Exception as error:  # decoders raise many kinds for a broken file
            reason = f'{info["img_path"]}: {error}'
            if not self.skip_bad:
                raise BadFileError(f'{reason}; skip_bad leaves such files out') from error
            meta = dict(img_path=info['img_path'], sample_idx=index, unreadable=reason)
            return dict(inputs=None, data_samples=DataSample(metainfo=meta))
        return PackInputs()(info)

    def cropped(self, image: np.ndarray) -> np.ndarray:
        """Send an (H, W, 3) image through the pipeline.

        Raises:
            ValueError: if it is smaller than the crop.
        """
        image = self.pipeline(dict(img=image))['img']
        if image.shape[:2] != (self.crop_size, self.crop_size):
            height, width = image.shape[:2]
            raise ValueError(f'{width}x{height} pixels are less than crop_size={self.crop_size}')
        return image


class ClassifiedImages(FolderDataset):
    """Images with labels: ``<folder>/<class>/<image>``.

    The labels of a part of ImageNet's classes are those among all 1000. Where the folders are
    not named by WordNet ids of ImageNet, their order is that of the classes; name the classes
    where some have no folder.

    Args:
        folder, layout, crop_size, skip_bad, kwargs: of :class:`FolderDataset`; `classes` among
            the last names all classes in order, or a text file with one a line.
        pipeline: transforms of an image before it is cropped.
    """

    def load_data_list(self) -> list[dict]:
        """Paths and labels.

        Raises:
            FileNotFoundError, ValueError: for another layout, or a class that is not known.
        """
        folders = self.class_folders()
        labels = label_map([path.name for path in folders], self.CLASSES)
        self._metainfo['classes'] = tuple(labels)
        return self.found(
            [
                dict(img_path=str(path), gt_label=labels[folder.name])
                for folder in folders
                for path in sorted(folder.iterdir())
                if path.suffix.lower() in IMAGES
            ]
        )

    def read(self, path: str) -> np.ndarray:
        """An image, (crop_size, crop_size, 3) uint8 BGR."""
        return self.cropped(read_image(path))


# force: the classes take the place of the functions that imported this module.
@DATASETS.register_module(force=True)
class ImageNetClean(ClassifiedImages):
    """Clean images as the benchmarks' authors evaluate them: ``<data_root>/<wnid>/*.JPEG``.

    The shorter edge is resized (bilinear, Pillow's antialiased), then the centre is cropped.

    Args:
        data_root: holds one folder per class.
        resize: length of the shorter edge; None leaves the images as they are.
        crop_size: width and height.
        **kwargs: of :class:`ClassifiedImages`.
    """

    def __init__(self, data_root: str, resize: int | None = 256, crop_size: int = 224, **kwargs):
        edge = dict(
            type='ResizeEdge',
            scale=resize,
            edge='short',
            backend='pillow',
            interpolation='bilinear',
        )
        super().__init__(
            folder=data_root,
            layout='<root>/<wnid>/*.JPEG',
            pipeline=[edge] if resize else [],
            crop_size=crop_size,
            **kwargs,
        )


@DATASETS.register_module(force=True)
class ImageNetC(ClassifiedImages):
    """A corruption at a severity: ``<data_root>/<corruption>/<1..5>/<wnid>/*.JPEG``.

    Args:
        data_root: folder of the whole set.
        corruption: name of its folder.
        severity: 1 to 5.
        crop_size: width and height; the official images have 224 already.
        **kwargs: of :class:`ClassifiedImages`.
    """

    def __init__(
        self, data_root: str, corruption: str, severity: int, crop_size: int = 224, **kwargs
    ):
        if severity not in SEVERITIES:
            raise ValueError(f'severity: expected 1 to 5, got {severity!r}')
        super().__init__(
            folder=Path(data_root) / corruption / str(severity),
            layout='<root>/<corruption>/<severity>/<wnid>/*.JPEG',
            pipeline=[],
            crop_size=crop_size,
            **kwargs,
        )


@DATASETS.register_module(force=True)
class ImageNetP(FolderDataset):
    """The sequences of a perturbation: ``<data_root>/<perturbation>/<wnid>/<stem>.mp4``.

    In place of an ``.mp4`` a sequence can be a folder of ``.png`` frames in the order of their
    numbers, or an ``.npy`` array, (frames, height, width, 3) uint8 RGB. It has at least two frames.
    An item's `inputs` are all frames of a sequence, (frames, 3, crop_size, crop_size); labels play
    no role.

    Args:
        data_root: folder of the whole set.
        perturbation: name of its folder.
        crop_size: width and height; the official frames have 224 already.
        **kwargs: of :class:`FolderDataset`.
    """

    def __init__(self, data_root: str, perturbation: str, crop_size: int = 224, **kwargs):
        super().__init__(
            folder=Path(data_root) / perturbation,
            layout='<root>/<perturbation>/<wnid>/<stem>.mp4',
            pipeline=[],
            crop_size=crop_size,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Paths of the sequences.

        Raises:
            FileNotFoundError, ValueError: for another layout.
        """
        self._metainfo['perturbation'] = self.folder.name
        return self.found(
            [
                dict(img_path=str(path))
                for folder in self.class_folders()
                for path in sorted(folder.iterdir())
                if path.suffix.lower() in VIDEOS or path.is_dir()
            ]
        )

    def read(self, path: str) -> np.ndarray:
        """The frames of a sequence, (frames, 3, crop_size, crop_size) uint8 BGR."""
        frames = read_frames(Path(path))
        if len(frames) < 2:
            raise ValueError(f'{len(frames)} frame, and stability needs at least 2')
        return np.stack([self.cropped(frame) for frame in frames]).transpose(0, 3, 1, 2)


def label_map(folders: Sequence[str], classes: Sequence[str] | None = None) -> dict[str, int]:
    """Which class each name of a folder stands for.

    Args:
        folders: names of the folders there are.
        classes: names of all classes in the order of the network's outputs. By default all 1000
            WordNet ids of ImageNet if those of `folders` are among them, else `folders`.

    Returns:
        ``{class: index}``, of all classes.

    Raises:
        ValueError: if a folder is none of the classes.
    """
    if classes is None:
        known = IMAGENET_WNIDS if set(folders) & set(IMAGENET_WNIDS) else folders
    else:
        known = classes
    unknown = [name for name in folders if name not in known]
    if unknown:
        raise ValueError(
            f'folders that are none of the {len(known)} classes: {", ".join(unknown[:8])}'
            + (f' and {len(unknown) - 8} more' if len(unknown) > 8 else '')
        )
    return {name: index for index, name in enumerate(known)}


def read_frames(path: Path) -> Sequence[np.ndarray]:
    """Read a sequence.

    Args:
        path: an ``.mp4`` or ``.npy`` file or a folder of ``.png`` files.

    Returns:
        Its frames, each (height, width, 3) uint8 BGR.

    Raises:
        Exception: of many kinds, if it cannot be read as a whole.
    """
    if path.is_dir():
        files = sorted(path.glob('*.png'), key=lambda file: (len(file.name), file.name))
        return [read_image(file) for file in files]
    if path.suffix.lower() == '.npy':
        frames = np.load(path, allow_pickle=False)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(
                f'{frames.dtype} of shape {frames.shape}; expected uint8 (frames, height, width, 3)'
            )
        return frames[..., ::-1]
    return read_video(path)


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as (height, width, 3) uint8 BGR.

    Raises:
        OSError, SyntaxError: if it is no image, or truncated.
    """
    # Unlike Pillow, cv2 makes an image of a truncated file. torchvision too ignores the orientation
    # that some of ImageNet's files state.
    return mmcv.imread(path, flag='color_ignore_orientation', backend='pillow')


def read_video(path: Path) -> list[np.ndarray]:
    """Read the frames of a video, each (height, width, 3) uint8 BGR.

    Raises:
        ValueError: if it cannot be decoded, or ends before the last frame its header counts.
    """
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not video.isOpened():
            raise ValueError('it is no video, truncated, or in a format that OpenCV cannot decode')
        frames = []
        while (step := video.read())[0]:
            frames.append(step[1])
        expected = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        if len(frames) < expected:
            raise ValueError(f'only {len(frames)} of its {expected} frames can be decoded')
        return frames
    finally:
        video.release()
