"""Non-maximum suppression of boxes, (N, 4) as x1, y1, x2, y2."""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.ops import nms as hard_nms

from .common import single


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Non-maximum suppression.

    Args:
        boxes: (N, 4), as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: boxes that overlap a better one by more are left out.
        offset: width is x2 - x1 + offset.

    Returns:
        Indices of the boxes kept, best first.
    """
    boxes = _with_offset(boxes, offset)
    return hard_nms(boxes, scores.to(boxes.dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (https://arxiv.org/abs/1704.04503): overlap lowers the score of a box.

    Args:
        boxes: (N, 4).
        scores: (N,).
        dets: (N, 5), written: the boxes that remain and their scores, best first.
        iou_threshold: overlap from which methods 0 and 1 lower a score.
        sigma: width of the Gaussian of method 2.
        min_score: boxes whose lowered score is less are left out.
        method: 0 'naive', 1 'linear', 2 'gaussian'.
        offset: width is x2 - x1 + offset.

    Returns:
        Indices of the boxes that remain.
    """
    x, left = _with_offset(boxes, offset), single(scores.detach()).numpy()
    indices = np.arange(len(left))
    kept, kept_scores = [], []
    while len(indices):
        best = left.argmax()
        kept.append(indices[best])
        kept_scores.append(left[best])
        overlap = box_iou(x[kept[-1:]], x[indices])[0].numpy()  # NaN where neither has an area
        indices, left, overlap = (np.delete(values, best) for values in (indices, left, overlap))
        if method == 2:
            left = left * np.exp(-(overlap**2) / np.float32(sigma))
        else:
            weight = 1 - overlap if method == 1 else 0
            left = left * np.where(overlap >= iou_threshold, weight, np.float32(1))
        stays = ~(left < min_score)
        indices, left = indices[stays], left[stays]
    kept = torch.tensor(kept, dtype=torch.long)
    dets[: len(kept), :4] = boxes[kept]
    dets[: len(kept), 4] = torch.tensor(kept_scores)
    return kept


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group boxes by the one that suppresses them.

    Args:
        dets: (N, 5), boxes and scores.
        iou_threshold: overlap from which a box is suppressed.

    Returns:
        For each box kept, best first, its index and those of the boxes it suppresses.
    """
    x = _with_offset(dets[:, :4], 0)
    order = dets[:, 4].sort(descending=True).indices.numpy()
    groups = []
    while len(order):
        suppressed = box_iou(x[order[:1]], x[order[1:]])[0].numpy() >= iou_threshold
        groups.append([int(order[0]), *order[1:][suppressed].tolist()])
        order = order[1:][~suppressed]
    return groups


def _with_offset(boxes, offset):
    """Boxes in float32 whose x2 - x1 is the width."""
    boxes = single(boxes.detach())
    return torch.cat([boxes[:, :2], boxes[:, 2:] + offset], 1)
