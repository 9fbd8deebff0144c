"""Sample covariance of a feature map, eq. (1) of https://arxiv.org/abs/2003.11241."""

import torch
from torch import Tensor

from .precision import full_precision


@full_precision
def covariance(x: Tensor) -> Tensor:
    r"""Biased sample covariance of the channels over the positions.

    Paper eq. (1): :math:`\Sigma = X^T J X,\ J = \frac{1}{N}(I - \frac{1}{N} 1 1^T)` for
    :math:`X \in R^{N \times D}`. J is applied by subtracting the mean, never built.

    Args:
        x: features, (B, D, H, W) or (B, D, N), in any memory layout. float16 and bfloat16 are
            computed in float32.

    Returns:
        (B, D, D), float32 or, for float64 input, float64: symmetric, positive semi-definite,
        exactly zero for channels that are constant over the positions.

    Raises:
        TypeError: if `x` is not a floating-point tensor.
        ValueError: if `x` has another number of dimensions, no channel or no position.
    """
    x = centre(x)
    return x @ x.mT / x.shape[2]


def centre(x: Tensor) -> Tensor:
    """Subtract from each channel its mean over the positions: the J of eq. (1), but for 1/N.

    Args:
        x: features, (B, D, H, W) or (B, D, N).

    Returns:
        (B, D, N), exactly zero for channels that are constant over the positions.

    Raises:
        ValueError: if `x` has another number of dimensions, no channel or no position.
    """
    if x.dim() not in (3, 4):
        raise ValueError(
            f'x: expected (B, D, H, W) or (B, D, N) features, got shape {tuple(x.shape)}'
        )
    x = x.flatten(2)
    if 0 in x.shape[1:]:
        raise ValueError(
            f'x: expected at least one channel and one position, got (B, D, N) = {tuple(x.shape)}'
        )
    # var_mean and not mean: its running update leaves the mean of N equal numbers equal to them,
    # where a sum divided by N is off by a rounding error that normalisation would blow up.
    return x - torch.var_mean(x, dim=2, correction=0, keepdim=True)[1]
