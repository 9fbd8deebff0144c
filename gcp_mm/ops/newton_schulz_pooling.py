"""Global covariance pooling by the Newton-Schulz iteration itself, in plain operations.

The generic form, for any number of iterations, dtype and order of derivative, and the reference
the faster ones are held to.
"""

from torch import Tensor

from .covariance import center, normalizer, scatter
from .newton_schulz import newton_schulz
from .triangle import triu_vector


def pool_by_newton_schulz(x: Tensor, iterations: int) -> Tensor:
    """Pooling of features, on the Gram matrix of the positions where that is the smaller one.

    Args:
        x: (B, D, N) features, float32 or float64.
        iterations: Newton-Schulz iterations.

    Returns:
        (B, D(D+1)/2), the upper triangle of sqrt(tr) p(Sigma / tr).
    """
    d, n = x.shape[1:]
    x = center(x)
    tau, scale = normalizer(x.square().sum((1, 2), keepdim=True), n)
    x = x * scale
    if n < d:
        _, z, t = newton_schulz(x.transpose(1, 2) @ x, iterations)
        root = x @ (t @ z) @ x.transpose(1, 2)  # p(x x^T) = x Z_K(x^T x) x^T
    else:
        y, _, t = newton_schulz(scatter(x), iterations)
        root = y @ t
    return triu_vector(root * tau.sqrt())
