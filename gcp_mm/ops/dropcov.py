r"""DropCov: adaptive channel dropout in place of a matrix normalization.

Wang et al., DropCov: A Simple yet Effective Method for Improving Deep Architectures, NeurIPS 2022,
https://openreview.net/forum?id=QLGuUwDx4S.
In training, channels are scaled by an attention y, and then whole channels are dropped with the
probability

    p = clamp(1 - 10 / log2(D) mean_b cos(y_b, Cov(x_b) 1), 0, 1 - 1/D).

At test time nothing is left of it: the pooling is that of the plain covariance.
"""

import math

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cosine_similarity

from .covariance import center, flatten_positions
from .precision import full_precision


@torch.no_grad()
@full_precision
def dropcov_probability(x: Tensor, attention: Tensor, scale: Tensor | None = None) -> Tensor:
    """Probability to drop a channel, from how well attention and covariance agree.

    Args:
        x: features after the scaling, (B, D, H, W) or (B, D, N).
        attention: (B, D), the factor of each channel.
        scale: (B, D), factors that `x` is still to be multiplied by. None: it has been scaled.

    Returns:
        A scalar, from 0 to 1 - 1/D: the method's p without its 1, which would drop every channel.
        It is on the device of `x` (nothing waits for it), without gradient, and in a distributed
        run the same in all processes: cosines are averaged over all of their samples.

    Raises:
        TypeError: if `x` is not a floating-point tensor.
        ValueError: if the shapes do not go together, or there is one channel only.
    """
    x = flatten_positions(x)
    d = x.shape[1]
    if scale is None:
        scale = torch.ones_like(attention)
    if not x.shape[:2] == attention.shape == scale.shape or d < 2:
        raise ValueError(
            'x, attention, scale: expected (B, D, N), (B, D) and (B, D) with D of 2 or more, got '
            f'{tuple(x.shape)}, {tuple(attention.shape)} and {tuple(scale.shape)}'
        )
    # Row sums of S C S, where C is the covariance of x and S = diag(scale), without a D x D matrix.
    # It suffices to center one factor of C, and there the sums over the channels.
    scale = scale.to(x.dtype)
    x = x - x[:, :, :1]  # exactly zero where x is constant, see center()
    sums = center(scale[:, None] @ x)  # (B, 1, N)
    row_sums = scale * (x @ sums.mT)[:, :, 0]  # (B, D), times N: cosines do not depend on it
    cosines = cosine_similarity(attention.to(x.dtype), row_sums)
    total = torch.stack([cosines.sum(), cosines.new_tensor(float(len(cosines)))])
    if in_several_processes():
        distributed.all_reduce(total)
    return (1 - 10 / math.log2(d) * total[0] / total[1]).clamp(0, 1 - 1 / d)


def in_several_processes() -> bool:
    """Whether there are other processes to exchange numbers with, which wait for this one."""
    return distributed.is_available() and distributed.is_initialized()


class DropCov(nn.Module):
    """Scaling and dropout of channels in training; nothing at test time.

    For 64 channels or more, before :func:`gcp_mm.ops.global_covariance_pooling` with
    ``norm='none'``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Conv1d(1, 1, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and drop channels.

        Args:
            x: (B, D, H, W).

        Returns:
            (B, D, H, W): in evaluation mode `x` itself.
        """
        if not self.training:
            return x
        y = self.attention(x.mean((2, 3))[:, None]).softmax(-1)[:, 0]
        scale = 1 + y
        p = dropcov_probability(x, y, scale)
        kept = torch.rand(y.shape, device=x.device) >= p
        return x * (scale * (kept / (1 - p))).to(x.dtype)[:, :, None, None]
