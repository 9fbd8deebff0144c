"""The test loop and the metrics of one part of a benchmark, for mmengine.

A part is a corruption at a severity, or a perturbation. The loop gives the metrics logits:
MMPretrain's classifiers predict softmax probabilities, which underflow, so that classes tie. Of
each file a metric keeps a few numbers, not the logits.
"""

from collections.abc import Sequence
from statistics import fmean

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import LOOPS, METRICS
from mmengine.runner import TestLoop
from torch import Tensor

from ..runtime import unwrap
from .stability import is_noise, video_stability


@LOOPS.register_module()
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
        means = {name: fmean(numbers[name] for numbers in measured) for name in measured[0]}
        return dict(means, files=len(measured), skipped=skipped)


@METRICS.register_module()
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
                f'({", ".join(classes[:3])}, ...): name all classes of the network, in the order '
                'of its outputs, in a file, and give it as `classes`'
            )
        return dict(error=float(logits.argmax() != sample['gt_label']))


@METRICS.register_module()
class PerturbationStability(FileMetric):
    """Flip probability and top-5 distance of the sequences of a perturbation.

    Args:
        difficulty: distance of the compared frames, except in noise sequences.
        **kwargs: arguments of :class:`FileMetric`.
    """

    default_prefix = 'perturbation'

    def __init__(self, difficulty: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.difficulty = difficulty

    def measure(self, logits, sample):
        noise = is_noise(self.dataset_meta['folder'])
        flips, distance = video_stability(logits, noise, self.difficulty)
        return dict(flip_probability=flips, top5_distance=distance)
