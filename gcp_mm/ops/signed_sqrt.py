"""Bilinear pooling with signed square roots, the classical baseline.

Lin et al., Bilinear CNN Models for Fine-grained Visual Recognition, ICCV 2015,
https://arxiv.org/abs/1504.07889: the outer products of the features, summed over the positions
without subtracting a mean; then the signed square root of each entry; then length 1.
"""

import torch
from torch import Tensor

from .arguments import check_square
from .covariance import flatten_positions, scatter
from .precision import full_precision

EPS = 1e-10  # under the square root, whose slope at zero is infinite


@full_precision
def second_moment(x: Tensor) -> Tensor:
    """Mean outer product of the channels over the positions, the mean of the features left in.

    Args:
        x: features, (B, D, H, W) or (B, D, N). float16 and bfloat16 are computed in float32.

    Returns:
        (B, D, D), float32 or, for float64 input, float64: symmetric, positive semi-definite.

    Raises:
        TypeError: if `x` is not a floating-point tensor.
        ValueError: if `x` has another number of dimensions, no channel or no position.
    """
    x = flatten_positions(x)
    return scatter(x) / x.shape[2]


@full_precision
def signed_sqrt_l2(m: Tensor, /) -> Tensor:
    """Signed square root of each entry, sign(m) sqrt(abs(m) + 1e-10), and matrices of norm 1.

    Args:
        m: (..., D, D). 1e-10 is in its units: scale features whose squares are that small.

    Returns:
        (..., D, D), float32 or, for float64 input, float64, of Frobenius norm 1. Zero matrices
        give zeros, and zero gradients.

    Raises:
        TypeError: if `m` is not a floating-point tensor.
        ValueError: if the matrices are not square.
    """
    check_square(m)
    root = m.sign() * (m.abs() + EPS).sqrt()
    return torch.nn.functional.normalize(root.flatten(-2), dim=-1).view_as(m)
