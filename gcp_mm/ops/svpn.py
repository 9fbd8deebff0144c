"""Singular value power normalization of cross-covariance matrices, by one power iteration.

Xie et al., So-ViT: Mind Visual Tokens for Vision Transformer, https://arxiv.org/abs/2104.10935.
"""

from torch import Tensor
from torch.nn.functional import normalize

from .arguments import check_number
from .precision import full_precision

EPS = 1e-5


@full_precision
def svpn(x: Tensor, v: Tensor, exponent: float = 0.5) -> Tensor:
    """Raise the largest singular value of matrices to a power; scale the others as it was scaled.

    With u = X v and v = X^T u, both scaled to length 1, and s = u^T X v::

        Y = s^a u v^T + (X - s u v^T) / (s^(1 - a) + 1e-5)

    Args:
        x: (B, m, n), such as cross-covariances.
        v: (n,), where the power iteration starts; learned, not zero.
        exponent: a, above 0 and at most 1.

    Returns:
        (B, m, n), float32 or, for float64 input, float64.

    Raises:
        TypeError: if `x` is not a floating-point tensor or `exponent` not a number.
        ValueError: if the shapes do not go together, or for another exponent.
    """
    check_number('exponent', exponent, high=1)
    if x.dim() != 3 or v.shape != x.shape[2:]:
        raise ValueError(
            f'x, v: expected (B, m, n) and (n,), got {tuple(x.shape)} and {tuple(v.shape)}'
        )
    u = normalize(x @ v.to(x.dtype), dim=1)
    projected = (u[:, None] @ x)[:, 0]
    right = normalize(projected, dim=1)
    s = (projected * right).sum(1)  # (B,)
    power = s.clamp(min=EPS**2) ** (1 - exponent)  # s^a = s / power: its slope stays finite at 0
    # Y = f X + (s^a - f s) u v^T with f = 1 / (s^(1 - a) + 1e-5)
    factor = 1 / (power + EPS)
    left = u * (s / power - factor * s)[:, None]
    return (factor[:, None, None] * x).addcmul(left[..., None], right[:, None])
