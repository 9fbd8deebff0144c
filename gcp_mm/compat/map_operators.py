"""mmcv's focal loss, deformable convolution and attention. See :mod:`.mmcv_ext`."""

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from .precision import single, vjp, write

FLOAT_MIN = torch.finfo(torch.float32).tiny  # what mmcv's kernels clamp probabilities to


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
    write(vjp(conv, (input, offset, weight), grad_output)[:2], (grad_input, grad_offset))


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
    grads = vjp(conv, (input, offset, torch.zeros_like(grad_weight)), grad_output)
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
    grads = vjp(conv, (input, offset, weight, mask), grad_output)
    write(grads, (grad_input, grad_offset, grad_weight, grad_mask))
    if with_bias:
        grad_bias.copy_(single(grad_output).sum((0, 2, 3)))


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
    inputs = [single(x) for x in (value, sampling_locations, attention_weights)]
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

    grads = vjp(attend, (value, sampling_locations, attention_weights), grad_output)
    write(grads, (grad_value, grad_sampling_loc, grad_attn_weight))


def _probabilities(input, target):
    """Sigmoid of the scores, and which of them is of the target's class, both (N, C)."""
    classes = torch.arange(input.shape[1], device=input.device)
    return single(input).sigmoid(), target[:, None] == classes


def _class_weight(weight, target):
    return weight[target][:, None] if weight.numel() else 1


def _geometry(dH, dW, padH, padW, dilationH, dilationW, **_):  # noqa: N803  mmcv's names
    return dict(stride=(dH, dW), padding=(padH, padW), dilation=(dilationH, dilationW))


def _modulated_geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, **_):
    return _geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w)


def _deform_conv(geometry):
    """The convolution of input, offset, weight and, where it has them, mask and bias."""

    def conv(input, offset, weight, mask=None, bias=None):
        input, offset, weight = single(input), single(offset), single(weight)
        mask, bias = (None if x is None else single(x) for x in (mask, bias))
        return deform_conv2d(input, offset, weight, bias, mask=mask, **geometry)

    return conv


def _attention(shapes, value, locations, weights):
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)
