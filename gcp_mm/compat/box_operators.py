"""mmcv's operators on boxes and regions: NMS, RoIAlign, RoIPool. See :mod:`.mmcv_ext`."""

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.ops import box_iou

from .precision import single, vjp, write


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
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)


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


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign with average pooling: :func:`torchvision.ops.roi_align`.

    Args:
        input: (B, C, H, W).
        rois: (K, 5), index into the batch and box.
        output: (K, C, aligned_height, aligned_width), written.
        argmax_y: used by max-pooling only, as `argmax_x`.
    """
    _check_average(pool_mode)
    size = aligned_height, aligned_width
    x = single(input)
    output.copy_(
        torchvision.ops.roi_align(
            x, rois.to(x.dtype), size, spatial_scale, sampling_ratio, bool(aligned)
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Backward of :func:`roi_align_forward`; `grad_input` is written."""
    _check_average(pool_mode)
    size = aligned_height, aligned_width
    grad = single(grad_output)
    boxes = rois.to(grad.dtype)
    if not torch.are_deterministic_algorithms_enabled():
        grad_input.copy_(
            torch.ops.torchvision._roi_align_backward(
                *(grad, boxes, spatial_scale, *size, *grad_input.shape, sampling_ratio),
                bool(aligned),
            )
        )
        return

    def pool(x):
        return torchvision.ops.roi_align(x, boxes, size, spatial_scale, sampling_ratio, aligned)

    # The gradient does not depend on the features, which are not given.
    write(vjp(pool, (torch.zeros_like(grad_input),), grad), (grad_input,))


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """RoI max-pooling. Unlike torchvision's, mmcv's does not round the boxes to whole positions.

    Args:
        input: (B, C, H, W).
        rois: (K, 5), index into the batch and box, its right and lower edge included.
        output: (K, C, pooled_height, pooled_width), written; 0 for a bin outside the map.
        argmax: int32 of that shape, written: position of the maximum in the map, -1 for none.
    """
    height, width = input.shape[2:]
    boxes = single(rois[:, 1:])
    edges = torch.cat([boxes[:, :2], boxes[:, 2:] + 1], 1) * spatial_scale
    columns = _bins(edges[:, 0], edges[:, 2], pooled_width, width)  # (K, pw, W)
    rows = _bins(edges[:, 1], edges[:, 3], pooled_height, height)  # (K, ph, H)
    low, high = edges[:, :2].floor().long().tolist(), edges[:, 2:].ceil().long().tolist()
    images = rois[:, 0].long().tolist()
    for k, (image, (x1, y1), (x2, y2)) in enumerate(zip(images, low, high, strict=True)):
        x1, y1 = max(x1, 0), max(y1, 0)
        part = input[image, :, y1 : max(y2, 0), x1 : max(x2, 0)]
        if not part.numel():
            output[k], argmax[k] = 0, -1
            continue
        # First over the columns of each bin, then over its rows.
        outside = ~columns[k, :, x1:x2], ~rows[k, :, None, y1:y2]
        x, column = part[:, :, None].masked_fill(outside[0], -torch.inf).max(-1)
        x, row = x.mT[:, None].masked_fill(outside[1], -torch.inf).max(-1)
        empty = x == -torch.inf
        output[k] = x.masked_fill(empty, 0)
        position = (row + y1) * width + column.gather(1, row) + x1
        argmax[k] = position.masked_fill(empty, -1)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Backward of :func:`roi_pool_forward`; `grad_input` is written."""
    channels = grad_input.shape[1]
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)  # (K, C)
    position = plane[..., None, None] * grad_input[0, 0].numel() + argmax
    found = argmax >= 0
    total = torch.zeros_like(single(grad_input))
    total.view(-1).index_add_(0, position[found], single(grad_output)[found])
    grad_input.copy_(total)


def _check_average(pool_mode):
    if pool_mode != 1:
        raise RuntimeError(
            "roi_align with pool_mode='max' has no equivalent in torchvision: use "
            "pool_mode='avg', or install a compiled mmcv"
        )


def _with_offset(boxes, offset):
    """Boxes in float32 whose x2 - x1 is the width."""
    boxes = single(boxes.detach())
    return torch.cat([boxes[:, :2], boxes[:, 2:] + offset], 1)


def _bins(start, end, count, size):
    """Which of `size` positions lie in each of the `count` bins of boxes' sides: (K, count, size).

    Args:
        start, end: of the sides, in positions, (K,).
    """
    edges = torch.arange(count + 1, device=start.device) * ((end - start) / count)[:, None]
    edges = (edges + start[:, None])[..., None]
    position = torch.arange(size, device=start.device)
    return (position >= edges[:, :-1].floor()) & (position < edges[:, 1:].ceil())
