"""Sample covariance of a feature map, eq. (1) of https://arxiv.org/abs/2003.11241."""

from torch import Tensor

from .newton_schulz import guard_trace
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
    x = center(flatten_positions(x))
    return scatter(x) / x.shape[2]


@full_precision
def cross_covariance(x: Tensor, y: Tensor) -> Tensor:
    """Biased sample cross-covariance of two sets of channels over tokens.

    Args:
        x: (..., N, p), N tokens of p channels. float16 and bfloat16 are computed in float32.
        y: (..., N, q).

    Returns:
        (..., p, q), float32 or, for float64 input, float64.
    """
    x, y = (tokens - tokens.mean(-2, keepdim=True) for tokens in (x, y.to(x.dtype)))
    return x.transpose(-2, -1) @ y / x.shape[-2]


def flatten_positions(x: Tensor) -> Tensor:
    """Features as (B, D, N).

    Args:
        x: features, (B, D, H, W) or (B, D, N).

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
    return x


def center(x: Tensor) -> Tensor:
    """Subtract from each channel its mean over the positions: the J of eq. (1), but for 1/N.

    Args:
        x: (B, D, N) features.

    Returns:
        (B, D, N), exactly zero for channels that are constant over the positions.
    """
    # The mean of N equal numbers is off by a rounding error, which normalization would blow up.
    # Differences to the first position are exactly zero, and so is their mean.
    x = x - x[:, :, :1]
    return x - x.mean(2, keepdim=True)


def scatter(x: Tensor) -> Tensor:
    """Scatter matrix x x^T of centered features.

    Args:
        x: (B, D, N) centered features.

    Returns:
        (B, D, D).
    """
    # A long sum of squares in float32 drifts to one side by many times its rounding error: the
    # positions are summed piecewise.
    first, *others = x.chunk((x.shape[2] + 63) // 64, dim=2)
    total = first @ first.transpose(1, 2)
    for part in others:
        total.baddbmm_(part, part.transpose(1, 2))
    return total


def normalizer(trace: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The factor that scales centered features to unit trace of their covariance.

    Args:
        trace: of the features' scatter matrix or Gram matrix, (B, 1, 1).
        n: number of positions N.

    Returns:
        The trace tau of the covariance and the factor 1 / sqrt(N tau), both (B, 1, 1). Where the
        trace vanishes it counts as 1 and the factor is 0.
    """
    tau, present = guard_trace(trace / n)
    return tau, (tau * n).rsqrt() * present
