"""Sigmoid focal loss (https://arxiv.org/abs/1708.02002)."""

import torch
from torch import Tensor

from .common import single

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


def _probabilities(input, target):
    """Sigmoid of the scores, and which of them is of the target's class, both (N, C)."""
    classes = torch.arange(input.shape[1], device=input.device)
    return single(input).sigmoid(), target[:, None] == classes


def _class_weight(weight, target):
    return weight[target][:, None] if weight.numel() else 1
