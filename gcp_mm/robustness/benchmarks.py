"""ImageNet-C, ImageNet-P and the clean images for mmengine: datasets, test loop and metrics.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019. The preprocessing is part of the datasets: corrupted images are never
resized. The model's data preprocessor normalizes them.

The loop gives the metrics logits: MMPretrain's classifiers predict softmax probabilities, which
underflow, so that classes tie. Of each file a metric keeps a few numbers, not the logits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.registry import DATASETS, LOOPS, METRICS
from mmengine.runner import TestLoop
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as tvf

from ..data.load_image import IMAGE_SUFFIXES, class_files
from ..runtime import unwrap
from .stability import video_stability

# The classes of ILSVRC-2012 in the order of the networks' outputs, which is that of their WordNet
# ids. Names and order agree with MMPretrain's list of class names.
IMAGENET_WNIDS = tuple(Path(__file__).with_name('imagenet_wnids.txt').read_text().split())

GROUPS = 50  # of the sequences, at random; the spread of their means gives the intervals


class ClassFolders(BaseDataset):
    """Files in ``<data_root>/<data_prefix>/<class>/``.

    The classes are the 1000 of ImageNet if a folder has the WordNet id of one of them as its name,
    else the folders, empty ones included, in alphabetical order.

    Args:
        data_root: root of the benchmark.
        data_prefix: folder in `data_root` that holds the class folders.
        crop_size: width and height of the central crop.
        skip_bad: return an unreadable file as a black image, with the reason in the data sample's
            `unreadable`, instead of raising.
        **kwargs: arguments of :class:`mmengine.dataset.BaseDataset`.
    """

    suffixes: tuple[str, ...]  # of the files to evaluate
    folders = False  # whether a folder is a file to evaluate

    def __init__(
        self,
        data_root: str,
        data_prefix: str = '',
        crop_size: int = 224,
        skip_bad: bool = False,
        **kwargs,
    ):
        self.folder = Path(data_root, data_prefix).expanduser()
        self.crop_size, self.skip_bad = crop_size, skip_bad
        super().__init__(data_root=str(self.folder), test_mode=True, **kwargs)

    def read(self, path: Path) -> Tensor:
        """Read a file as (..., 3, H, W) uint8 RGB."""
        raise NotImplementedError

    def load_data_list(self) -> list[dict]:
        """Paths and labels.

        Raises:
            FileNotFoundError: if there is no file.
            ValueError: if some folders are classes of ImageNet and others are not.
        """
        paths = class_files(self.folder, self.suffixes, self.folders)
        folders = sorted(path.name for path in self.folder.glob('[!.]*') if path.is_dir())
        classes = IMAGENET_WNIDS if {*folders} & {*IMAGENET_WNIDS} else tuple(folders)
        if unknown := [name for name in folders if name not in classes]:
            raise ValueError(
                f'{self.folder}: {len(unknown)} folders are none of the {len(classes)} classes of '
                f'ImageNet: {", ".join(unknown[:8])}'
            )
        labels = {name: index for index, name in enumerate(classes)}
        self._metainfo.update(classes=classes, folder=self.folder.name)
        return [dict(img_path=str(path), gt_label=labels[path.parent.name]) for path in paths]

    def prepare_data(self, index: int) -> dict:
        """Read and crop a file.

        Returns:
            `inputs`, (..., 3, crop_size, crop_size) uint8 BGR, and `data_samples`.

        Raises:
            ValueError: if it cannot be evaluated and `skip_bad` is off.
        """
        info = self.get_data_info(index)
        try:
            images = self.read(Path(info['img_path']))
            height, width = images.shape[-2:]
            if min(height, width) < self.crop_size:  # they would be padded
                raise ValueError(
                    f'{width}x{height} pixels are less than crop_size={self.crop_size}'
                )
            # BGR, as MMPretrain's data preprocessors expect
            inputs = tvf.center_crop(images, self.crop_size).flip(-3)
        except Exception as error:  # decoders raise many kinds for a broken file
            info['unreadable'] = f'{info["img_path"]}: {error}'
            if not self.skip_bad:
                raise ValueError(f'{info["unreadable"]}; skip_bad leaves such files out') from error
            inputs = torch.zeros(3, self.crop_size, self.crop_size, dtype=torch.uint8)
        return dict(inputs=inputs, data_samples=BaseDataElement(metainfo=info))


@DATASETS.register_module(force=True)
class ImageNetC(ClassFolders):
    """Labeled images of one corruption and severity, or clean images.

    Args:
        resize: length of the shorter edge after resizing, before the crop (Pillow's antialiased
            bilinear filter). For clean images; None for corrupted images.
        **kwargs: arguments of :class:`ClassFolders`; `data_prefix` is ``<corruption>/<1..5>``.
    """

    suffixes = IMAGE_SUFFIXES

    def __init__(self, *args, resize: int | None = None, **kwargs):
        self.resize = resize
        super().__init__(*args, **kwargs)

    def read(self, path: Path) -> Tensor:
        """Read an image as (3, H, W) uint8 RGB."""
        return tvf.pil_to_tensor(read_image(path, self.resize))


@DATASETS.register_module(force=True)
class ImageNetP(ClassFolders):
    """Sequences of one perturbation; labels are not used.

    A sequence is an ``.mp4`` file, a folder of numbered ``.png`` frames, or an ``.npy`` array
    (frames, height, width, 3) uint8 RGB. It has at least two frames.

    Args:
        **kwargs: arguments of :class:`ClassFolders`; `data_prefix` is ``<perturbation>``.
    """

    suffixes = ('.mp4', '.npy')
    folders = True  # of frames

    def read(self, path: Path) -> Tensor:
        """Read a sequence as (frames, 3, H, W) uint8 RGB."""
        if path.is_dir():
            files = sorted(path.glob('*.png'), key=lambda file: (len(file.name), file.name))
            frames = [np.asarray(read_image(file)) for file in files]
        elif path.suffix.lower() == '.npy':
            frames = np.load(path, mmap_mode='r', allow_pickle=False)  # no larger than the file
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
                raise ValueError(
                    f'{frames.dtype} of shape {frames.shape}; expected uint8 (frames, height, '
                    'width, 3)'
                )
        else:
            frames = read_video(path)
        if len(frames) < 2:
            raise ValueError(f'{len(frames)} frame, and stability needs at least 2')
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def read_image(path: Path, resize: int | None = None) -> Image.Image:
    """An image in RGB, its shorter edge resized to so many pixels (bilinear, antialiased).

    Raises:
        Exception: of many kinds, if it cannot be decoded completely, or has not 8 bits.
    """
    # Unlike cv2, Pillow refuses truncated files. Like torchvision, it ignores the orientation that
    # some of ImageNet's files state.
    with Image.open(path) as image:
        if image.mode[0] in 'IF':
            raise ValueError(f'pixels of mode {image.mode}, not of 8 bits')
        image = image.convert('RGB')
    return tvf.resize(image, resize) if resize else image


def read_video(path: Path) -> list[np.ndarray]:
    """Read the frames of a video, each (height, width, 3) uint8 RGB.

    Raises:
        ValueError: if it cannot be decoded, or ends before the last frame its header counts.
    """
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not video.isOpened():
        raise ValueError('it is no video, truncated, or in a format that OpenCV cannot decode')
    frames = []
    while (step := video.read())[0]:
        frames.append(step[1][..., ::-1])
    expected = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    if len(frames) < expected:
        raise ValueError(f'only {len(frames)} of its {expected} frames can be decoded')
    return frames


@LOOPS.register_module(force=True)
class LogitsLoop(TestLoop):
    """Test loop for a classifier of MMPretrain on images or videos, in float32.

    The `inputs` of an item are an image, (3, H, W) uint8 BGR, or a video, (frames, 3, H, W). All
    have the same height and width. The data sample gets `logits`, (K,) or (frames, K) float32. The
    dataloader must collate with `pseudo_collate`.
    """

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Compute the logits of a batch, and pass them to the evaluator.

        Raises:
            TypeError: if the model does not return one vector per image.
        """
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        inputs, samples = data_batch['inputs'], data_batch['data_samples']
        videos = [item if item.ndim == 4 else item[None] for item in inputs]
        model = unwrap(self.runner.model)
        data = model.data_preprocessor(dict(inputs=torch.cat(videos)), training=False)
        logits = model(data['inputs'], mode='tensor')
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise TypeError(f'{type(model).__name__}: expected one vector of logits per image')
        parts = logits.float().split([len(video) for video in videos])
        for item, sample, part in zip(inputs, samples, parts, strict=True):
            sample.set_field(part if item.ndim == 4 else part[0], 'logits')
        self.evaluator.process(data_samples=samples, data_batch=data_batch)
        self.runner.call_hook(
            'after_test_iter', batch_idx=idx, data_batch=data_batch, outputs=samples
        )


class FileMetric(BaseMetric):
    """Mean over files of the numbers that :meth:`measure` gives.

    Args:
        skip_bad: leave out and list the files that are unreadable or give NaN, instead of raising.
        **kwargs: arguments of :class:`mmengine.evaluator.BaseMetric`.
    """

    def __init__(self, skip_bad: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.skip_bad = skip_bad
        self.groups: dict[str, list[float]] = {}  # too long for the log that metrics go to

    def measure(self, logits: Tensor, sample: dict) -> dict[str, float]:
        """The numbers of one file."""
        raise NotImplementedError

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Measure a batch.

        Args:
            data_batch: not used.
            data_samples: with `img_path` and `logits`, or `unreadable`, the reason why there are
                none.

        Raises:
            ValueError: for a file that is unreadable or gives NaN, unless `skip_bad`; for another
                number of classes than the data's.
        """
        for sample in data_samples:
            reason, numbers = sample.get('unreadable'), None
            if not reason and sample['logits'].isnan().any():
                reason = f'{sample["img_path"]}: the network gives NaN'
            if not reason:
                numbers = self.measure(sample['logits'], sample)
            elif not self.skip_bad:
                raise ValueError(f'{reason}; skip_bad leaves such files out')
            self.results.append((numbers, dict(file=sample['img_path'], reason=reason)))

    def compute_metrics(self, results: list) -> dict:
        """Means over the files.

        Returns:
            The means, the number of `files` they are over, and `skipped`: a list of
            ``{file, reason}``.

        Raises:
            ValueError: if no file is left.
        """
        measured = [numbers for numbers, _ in results if numbers]
        skipped = [file for numbers, file in results if not numbers]
        if not measured:
            raise ValueError(f'all {len(skipped)} files were skipped; {skipped[0]["reason"]}')
        return dict(means_of(measured), files=len(measured), skipped=skipped)


@METRICS.register_module(force=True)
class CorruptionError(FileMetric):
    """Top-1 error on images with labels, as a fraction.

    Args:
        **kwargs: arguments of :class:`FileMetric`.
    """

    default_prefix = 'corruption'

    def measure(self, logits, sample):
        classes = self.dataset_meta['classes']
        if len(logits) != len(classes):
            raise ValueError(
                f'the network has {len(logits)} classes and the data {len(classes)} '
                f'({", ".join(classes[:3])}, ...): make an empty folder for each class of the '
                'network that the data lack; the alphabetical order of the folders has to be that '
                'of its outputs'
            )
        return dict(error=float(logits.argmax() != sample['gt_label']))


@METRICS.register_module(force=True)
class PerturbationStability(FileMetric):
    """Flip probability and top-5 distance of the sequences of a perturbation.

    Args:
        **kwargs: arguments of :class:`FileMetric`.
    """

    default_prefix = 'perturbation'

    def measure(self, logits, sample):
        flips, distance = video_stability(logits, noise='noise' in self.dataset_meta['folder'])
        return dict(flip_probability=flips, top5_distance=distance)

    def compute_metrics(self, results: list) -> dict:
        """As :class:`FileMetric`; sets `groups`, the means over random groups of files, by number.

        The groups are the same in all perturbations of as many files, those that were left out
        counted. There are none where all files of a group were left out.
        """
        order = np.random.default_rng(0).permutation(len(results))
        groups = [
            [results[i][0] for i in group if results[i][0]]
            for group in np.array_split(order, min(GROUPS, len(order)))
        ]
        means = [means_of(group) for group in groups] if all(groups) else []
        self.groups = {name: [each[name] for each in means] for name in (means or [{}])[0]}
        return super().compute_metrics(results)


def means_of(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over files."""
    return {name: fmean(numbers[name] for numbers in measured) for name in measured[0]}
