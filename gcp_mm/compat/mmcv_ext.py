"""mmcv's compiled operators, computed by torchvision and PyTorch.

`gcp_mm.compat` loads this file as the module `mmcv._ext` where the installed mmcv has no compiled
part (`mmcv-lite`). Names, arguments and results are those of mmcv's C++ interface, which writes
into tensors that it is given; mmcv's own `mmcv.ops` calls it. Half precision is computed in
float32. Operators that are not here raise when they are called.

It answers open-mmlab/mmdetection issues 3271, 11475, 11983 and 12426 and open-mmlab/mmpretrain
issue 1966: "No module named 'mmcv._ext'".
"""

import functools

import numpy as np
import torch
import torchvision
from mmengine.logging import print_log
from torch import Tensor
from torchvision.ops import deform_conv2d

FLOAT_MIN = torch.finfo(torch.float32).tiny  # what mmcv's kernels clamp probabilities to


def __getattr__(name: str):
    """Make an operator that raises, for each name that mmcv.ops looks up and that is not here."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise RuntimeError(
            f'the installed mmcv has no compiled operators, and {name!r} has no equivalent in '
            'torchvision: install an mmcv with compiled operators in its place, see '
            'https://mmcv.readthedocs.io/en/2.x/get_started/installation.html'
        )

    return missing


def get_compiler_version() -> str:
    """Compiler of the operators, which mmcv and mmdet print."""
    return f'none, operators of torchvision {torchvision.__version__}'


def get_compiling_cuda_version() -> str:
    """CUDA version of torchvision's operators."""
    return torchvision.version.cuda or 'not available'


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
    boxes = _single(boxes)
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], 1)
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
    x, left = (_single(values.detach()).numpy() for values in (boxes, scores))
    indices = np.arange(len(left))
    kept, kept_scores = [], []
    while len(indices):
        best = left.argmax()
        kept.append(indices[best])
        kept_scores.append(left[best])
        overlap = _overlap(x[kept[-1]], x[indices], offset)
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
    x = _single(dets.detach()).numpy()
    order = dets[:, 4].sort(descending=True).indices.numpy()
    groups = []
    while len(order):
        suppressed = _overlap(x[order[0]], x[order[1:]], 0) >= iou_threshold
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
    x = _single(input)
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
    grad = _single(grad_output)
    rois = rois.to(grad.dtype)
    size = aligned_height, aligned_width
    if torch.are_deterministic_algorithms_enabled():  # torchvision has another way to compute it

        def pool(x):
            return torchvision.ops.roi_align(x, rois, size, spatial_scale, sampling_ratio, aligned)

        # The gradient does not depend on the features, which are not given.
        _write(_vjp(pool, (torch.zeros_like(grad_input),), grad), (grad_input,))
        return
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            *(grad, rois, spatial_scale, *size, *grad_input.shape, sampling_ratio, bool(aligned))
        )
    )


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
    boxes = _single(rois[:, 1:])
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
        place = (row + y1) * width + column.gather(1, row) + x1
        argmax[k] = place.masked_fill(empty, -1)


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
    place = plane[..., None, None] * grad_input[0, 0].numel() + argmax
    found = argmax >= 0
    total = torch.zeros_like(_single(grad_input))
    total.view(-1).index_add_(0, place[found], _single(grad_output)[found])
    grad_input.copy_(total)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss (https://arxiv.org/abs/1708.02002) of each score.

    Args:
        input: (N, C), scores before the sigmoid.
        target: (N,), class indices; C is background.
        weight: (C,), of each class, or empty.
        output: (N, C), written.
    """
    p, own = _probabilities(input, target)
    positive = -alpha * (1 - p) ** gamma * p.clamp_min(FLOAT_MIN).log()
    negative = -(1 - alpha) * p**gamma * (1 - p).clamp_min(FLOAT_MIN).log()
    output.copy_(torch.where(own, positive, negative) * _class_weight(weight, target))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of each loss of :func:`sigmoid_focal_loss_forward`, into `grad_input`."""
    p, own = _probabilities(input, target)
    log_p, log_q = p.clamp_min(FLOAT_MIN).log(), (1 - p).clamp_min(FLOAT_MIN).log()
    positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * log_p)
    negative = -(1 - alpha) * p**gamma * (gamma * (1 - p) * log_q - p)
    grad_input.copy_(torch.where(own, positive, negative) * _class_weight(weight, target))


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **geometry: int,
) -> None:
    """Deformable convolution (https://arxiv.org/abs/1703.06211).

    Args:
        input: (B, C, H, W).
        weight: (C_out, C / groups, kH, kW).
        offset: (B, 2 deform_groups kH kW, H_out, W_out).
        output: (B, C_out, H_out, W_out), written.
        columns: work space of mmcv's kernels, as `ones`; not used.
        **geometry: dH, dW (stride), padH, padW, dilationH, dilationW; the rest follows from the
            shapes.
    """
    output.copy_(_deform_conv(_geometry(**geometry))(input, offset, weight))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """Gradients of :func:`deform_conv_forward` at its input and offsets, written."""
    conv = _deform_conv(_geometry(**geometry))
    _write(_vjp(conv, (input, offset, weight), grad_output)[:2], (grad_input, grad_offset))


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float = 1.0,
    **geometry: int,
) -> None:
    """Gradient of :func:`deform_conv_forward` at its weight, times `scale`, written."""
    conv = _deform_conv(_geometry(**geometry))
    # It does not depend on the weight, which is not given.
    grads = _vjp(conv, (input, offset, torch.zeros_like(grad_weight)), grad_output)
    grad_weight.copy_(grads[2] * scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Modulated deformable convolution (https://arxiv.org/abs/1811.11168).

    Args:
        bias: (C_out,), used if `with_bias`.
        mask: (B, deform_groups kH kW, H_out, W_out).
        output: written. The others are as in :func:`deform_conv_forward`.
        **geometry: stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w.
    """
    conv = _deform_conv(_modulated_geometry(**geometry))
    output.copy_(conv(input, offset, weight, mask, bias if with_bias else None))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Gradients of :func:`modulated_deform_conv_forward`, written."""
    conv = _deform_conv(_modulated_geometry(**geometry))
    grads = _vjp(conv, (input, offset, weight, mask), grad_output)
    _write(grads, (grad_input, grad_offset, grad_weight, grad_mask))
    if with_bias:
        grad_bias.copy_(_single(grad_output).sum((0, 2, 3)))


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (https://arxiv.org/abs/2010.04159), by mmcv's PyTorch form.

    Args:
        value: (B, keys, heads, channels).
        value_spatial_shapes: (levels, 2), height and width.
        sampling_locations: (B, queries, heads, levels, points, 2).
        attention_weights: (B, queries, heads, levels, points).

    Returns:
        (B, queries, heads * channels), in the dtype of `value`.
    """
    inputs = [_single(x) for x in (value, sampling_locations, attention_weights)]
    return _attention(value_spatial_shapes, *inputs).to(value.dtype)


def ms_deform_attn_backward(
    value,
    value_spatial_shapes,
    value_level_start_index,
    sampling_locations,
    attention_weights,
    grad_output,
    grad_value,
    grad_sampling_loc,
    grad_attn_weight,
    im2col_step,
) -> None:
    """Gradients of :func:`ms_deform_attn_forward`, written."""

    def attend(*inputs):
        return _attention(value_spatial_shapes, *inputs)

    grads = _vjp(attend, (value, sampling_locations, attention_weights), grad_output)
    _write(grads, (grad_value, grad_sampling_loc, grad_attn_weight))


@functools.cache
def _log_once():
    """Say in the log of a run, at the first call of an operator, where it comes from."""
    print_log(
        f'mmcv has no compiled operators: those of torchvision {torchvision.__version__} are used',
        logger='current',
    )


def _single(x):
    """`x` in float32, or in float64 where it is that."""
    _log_once()
    return x if x.dtype == torch.float64 else x.float()


def _vjp(function, inputs, grad_output):
    """Gradients of `function` at `inputs`, in float32 and with autocast off."""
    with torch.enable_grad(), torch.autocast(grad_output.device.type, enabled=False):
        inputs = [_single(x).detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(function(*inputs), inputs, _single(grad_output))


def _check_average(pool_mode):
    if pool_mode != 1:
        raise RuntimeError(
            "roi_align with pool_mode='max' has no equivalent in torchvision: use "
            "pool_mode='avg', or install a compiled mmcv"
        )


def _write(values, tensors):
    """Copy each value into the tensor that the caller gave for it."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _overlap(box, boxes, offset):
    """IoU of a box, (4,), with others, (N, 4); NaN where both have no area."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:4], boxes[:, 2:4])
    intersection = np.maximum(high - low + offset, 0).prod(1)
    area, areas = ((b[..., 2:4] - b[..., :2] + offset).prod(-1) for b in (box, boxes))
    with np.errstate(divide='ignore', invalid='ignore'):
        return intersection / (area + areas - intersection)


def _bins(start, end, count, size):
    """Which of `size` positions lie in each of the `count` bins of boxes' sides: (K, count, size).

    Args:
        start, end: of the sides, in positions, (K,).
    """
    edges = torch.arange(count + 1, device=start.device) * ((end - start) / count)[:, None]
    edges = (edges + start[:, None])[..., None]
    position = torch.arange(size, device=start.device)
    return (position >= edges[:, :-1].floor()) & (position < edges[:, 1:].ceil())


def _probabilities(input, target):
    """Sigmoid of the scores, and which of them is of the target's class, both (N, C)."""
    classes = torch.arange(input.shape[1], device=input.device)
    return _single(input).sigmoid(), target[:, None] == classes


def _class_weight(weight, target):
    return weight[target][:, None] if weight.numel() else 1


def _geometry(dH, dW, padH, padW, dilationH, dilationW, **_):  # noqa: N803  mmcv's names
    return dict(stride=(dH, dW), padding=(padH, padW), dilation=(dilationH, dilationW))


def _modulated_geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, **_):
    return _geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w)


def _deform_conv(geometry):
    """The convolution of input, offset, weight and, where it has them, mask and bias."""

    def conv(input, offset, weight, mask=None, bias=None):
        input, offset, weight = _single(input), _single(offset), _single(weight)
        mask, bias = (None if x is None else _single(x) for x in (mask, bias))
        return deform_conv2d(input, offset, weight, bias, mask=mask, **geometry)

    return conv


def _attention(shapes, value, locations, weights):
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)
