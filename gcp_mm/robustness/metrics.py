"""The robustness metrics of one part of a benchmark, as metrics of mmengine.

A part is a corruption at a severity, or a perturbation. A file leaves a few numbers, never its
logits, so parts of any length fit into memory; the processes' numbers are put together in the order
of the data set, without those that a distributed sampler repeats.
"""

from collections.abc import Sequence
from statistics import fmean

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from .stability import is_noise, video_stability


class FileMetric(BaseMetric):
    """Mean over files of the numbers that :meth:`measure` gives.

    Args:
        skip_bad: leave out and list the files that are unreadable or give NaN, instead of raising.
        **kwargs: of :class:`mmengine.evaluator.BaseMetric`.
    """

    def __init__(self, skip_bad: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.skip_bad = skip_bad

    def measure(self, logits: torch.Tensor, sample: dict) -> dict[str, float]:
        """The numbers of one file."""
        raise NotImplementedError

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Measure a batch.

        Args:
            data_batch: not used.
            data_samples: with `sample_idx`, `img_path` and `logits` (or `pred_score`), or with
                `unreadable`, the reason why there are none.

        Raises:
            ValueError: for a file that is unreadable or gives NaN, unless `skip_bad`; for another
                number of classes than the data's.
        """
        for sample in data_samples:
            reason, numbers = sample.get('unreadable'), None
            if not reason:
                logits = sample['logits'] if 'logits' in sample else sample['pred_score']
                if logits.isnan().any():
                    reason = f'{sample["img_path"]}: the network gives NaN'
                else:
                    numbers = self.measure(logits, sample)
            if reason and not self.skip_bad:
                raise ValueError(f'{reason}; skip_bad leaves such files out')
            self.results.append((sample['sample_idx'], numbers, sample['img_path'], reason))

    def compute_metrics(self, results: list) -> dict:
        """Means over the files.

        Returns:
            The means, the number of `files` they are over, and `skipped`: a list of
            ``{file, reason}``.

        Raises:
            ValueError: if no file is left.
        """
        ordered = sorted({index: rest for index, *rest in results}.items())
        measured = [numbers for _, (numbers, _, _) in ordered if numbers]
        skipped = [dict(file=path, reason=reason) for _, (_, path, reason) in ordered if reason]
        if not measured:
            raise ValueError(f'all {len(skipped)} files were skipped; {skipped[0]["reason"]}')
        means = {name: fmean(numbers[name] for numbers in measured) for name in measured[0]}
        return dict(means, files=len(measured), skipped=skipped)


@METRICS.register_module()
class CorruptionError(FileMetric):
    """Top-1 error, a fraction, on images with labels.

    Args:
        **kwargs: of :class:`FileMetric`.
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
        return dict(error=float(logits.argmax() != sample['gt_label'].item()))


@METRICS.register_module()
class PerturbationStability(FileMetric):
    """Flip probability and top-5 distance of the sequences of a perturbation.

    Args:
        difficulty: distance of the frames that are compared, except in noise sequences.
        **kwargs: of :class:`FileMetric`.
    """

    default_prefix = 'perturbation'

    def __init__(self, difficulty: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.difficulty = difficulty

    def measure(self, logits, sample):
        noise = is_noise(self.dataset_meta['perturbation'])
        flips, distance = video_stability(logits, noise, self.difficulty)
        return dict(flip_probability=flips, top5_distance=distance)
