"""Stability of predictions along the frames of a perturbation sequence.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019, section 4. In a noise sequence each later frame is compared with the
first; in the others, with the frame before it.

- Flip probability: mean over videos of the mean over pairs of [the predicted class differs].
- Top-5 distance of a pair: sum over i = 1..5 of abs(min(sigma(i), 6) - i), where sigma(i) is the
  rank in the later frame of the class that the reference frame ranks i-th. Asymmetric; 15 if the
  five are all replaced, at most 18.

mFR and mT5D are the means over the 10 test perturbations of their ratios to a reference network.
A video needs only its own frames, so a benchmark is evaluated one video at a time.
"""

from collections.abc import Iterable
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

PERTURBATIONS = (
    *('gaussian_noise', 'shot_noise', 'motion_blur', 'zoom_blur', 'snow'),
    *('brightness', 'translate', 'rotate', 'tilt', 'scale'),
)

TOP = 5  # ranks compared; a class that leaves them counts as ranked next, however far it falls


def frame_pairs(values: Tensor, noise: bool) -> tuple[Tensor, Tensor]:
    """The frames of a video that are compared.

    Args:
        values: (frames, ...).
        noise: whether it is a noise sequence.

    Returns:
        Values of the reference frames and of the later ones, each (pairs, ...).

    Raises:
        ValueError: if there are fewer than 2 frames.
    """
    if len(values) < 2:
        raise ValueError(f'a video of {len(values)} frames: at least 2 are needed')
    later = values[1:]
    return values[:1].expand_as(later) if noise else values[:-1], later


def flip_probability(predictions: Iterable, noise: bool) -> float:
    """Fraction of the frame pairs of a video with different predictions, averaged over videos.

    Args:
        predictions: predicted classes: (frames,) for one video, (videos, frames), or an iterable of
            videos of any lengths.
        noise: whether the videos are noise sequences.

    Returns:
        A probability in [0, 1].

    Raises:
        ValueError: if there is no video, or a video is too short.
    """
    videos = list(predictions)
    if not videos:
        raise ValueError('predictions: expected at least one video, got none')
    if np.ndim(videos[0]) == 0:
        videos = [videos]
    pairs = (frame_pairs(torch.as_tensor(video), noise) for video in videos)
    return fmean((one != other).double().mean().item() for one, other in pairs)


def top5_distance(reference_logits, later_logits):
    """Top-5 distance between the rankings in a reference frame and in a later frame.

    Rank 1 is the highest logit; of equal logits the lower class index ranks first. With fewer than
    5 classes the sum is over all classes.

    Args:
        reference_logits: (..., K), tensor or array. Pass logits: softmax probabilities can
            underflow to ties.
        later_logits: logits of the later frames, in the same shape.

    Returns:
        Distances, (...) int64, 0 to 18: a tensor for tensors, else an array (a number for (K,)).

    Raises:
        ValueError: for different shapes, or a NaN.
    """
    reference, later = torch.as_tensor(reference_logits), torch.as_tensor(later_logits)
    if reference.shape != later.shape or not reference.ndim:
        raise ValueError(
            'reference_logits and later_logits: expected the same shape (..., K), got '
            f'{tuple(reference.shape)} and {tuple(later.shape)}'
        )
    if reference.isnan().any() or later.isnan().any():
        raise ValueError('reference_logits and later_logits: NaN has no rank')
    # A stable sort keeps equal logits in the order of their class indices.
    top = reference.sort(dim=-1, descending=True, stable=True).indices[..., :TOP]
    logit = later.gather(-1, top)[..., None]  # (..., 5, 1), against all classes (..., 1, K)
    others, index = later[..., None, :], torch.arange(later.shape[-1], device=later.device)
    before = (others > logit) | ((others == logit) & (index < top[..., None]))
    rank = 1 + before.sum(-1)  # in the later frame, (..., 5)
    right = torch.arange(1, top.shape[-1] + 1, device=later.device)
    distance = (rank.clamp(max=TOP + 1) - right).abs().sum(-1)
    return distance if isinstance(later_logits, Tensor) else distance.numpy()[()]


def video_stability(logits, noise: bool) -> tuple[float, float]:
    """Flip probability and mean top-5 distance of one video.

    Args:
        logits: (frames, K).
        noise: whether it is a noise sequence.

    Returns:
        The means over the pairs of the video.

    Raises:
        ValueError: if it is too short, or has a NaN.
    """
    logits = torch.as_tensor(logits)
    distances = top5_distance(*frame_pairs(logits, noise))
    return flip_probability([logits.argmax(-1)], noise), distances.double().mean().item()
