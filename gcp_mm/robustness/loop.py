"""A test loop that gives the metrics logits: a class by class ranking has to have no ties.

MMPretrain's classifiers predict softmax probabilities, which underflow; half precision rounds.
"""

from collections.abc import Sequence

import torch
from mmengine.registry import LOOPS
from mmengine.runner import TestLoop
from torch import nn

from ..runtime import unwrap


@LOOPS.register_module()
class LogitsLoop(TestLoop):
    """Test a classifier of MMPretrain on images or on videos.

    An item of the data set is an image, (3, H, W), a video, (frames, 3, H, W), or None where its
    file is unreadable. Its data sample gets `logits`, (K,) or (frames, K) float32. The dataloader
    has to collate with `pseudo_collate`.
    """

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Give the logits of a batch to the evaluator."""
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        model = unwrap(self.runner.model)
        samples = data_batch['data_samples']
        for sample, logits in zip(samples, logits_of(model, data_batch['inputs']), strict=True):
            if logits is not None:
                sample.set_field(logits, 'logits')
        self.evaluator.process(data_samples=samples, data_batch=data_batch)
        self.runner.call_hook(
            'after_test_iter', batch_idx=idx, data_batch=data_batch, outputs=samples
        )


def logits_of(model: nn.Module, inputs: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """The logits of images and videos of the same height and width, in one pass.

    Args:
        model: classifier of MMPretrain, with its data preprocessor.
        inputs: per item (3, H, W) or (frames, 3, H, W) uint8 BGR, or None.

    Returns:
        Per item (K,) or (frames, K) float32, or None.

    Raises:
        TypeError: if the model gives anything but one vector per image.
    """
    frames = [item if item.ndim == 4 else item[None] for item in inputs if item is not None]
    if not frames:
        return [None] * len(inputs)
    data = model.data_preprocessor(dict(inputs=torch.cat(frames)), training=False)
    logits = model(data['inputs'], mode='tensor')
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise TypeError(
            f'{type(model).__name__}: expected a classifier that gives one vector of logits per '
            'image'
        )
    parts = iter(logits.float().split([len(item) for item in frames]))
    return [None if x is None else next(parts) if x.ndim == 4 else next(parts)[0] for x in inputs]
