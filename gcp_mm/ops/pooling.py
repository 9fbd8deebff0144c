"""Global covariance pooling with matrix square-root normalisation.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.1.
"""

from torch import Tensor

from .covariance import covariance
from .eigh import matrix_sqrt_eigh
from .newton_schulz import check_iterations, matrix_sqrt_newton_schulz
from .triangle import triu_vector

MATRIX_NORMS = ('newton_schulz', 'eigh', 'none')


def global_covariance_pooling(
    x: Tensor, iterations: int = 5, norm: str = 'newton_schulz'
) -> Tensor:
    """Represent each feature map by the square root of its channel covariance.

    Args:
        x: features, (B, D, H, W) or (B, D, N), in any memory layout. float16 and bfloat16 are
            computed in float32, also under autocast.
        iterations: Newton-Schulz iterations; used by `norm='newton_schulz'` only.
        norm: normalisation of the covariance matrix: 'newton_schulz' (the paper's layer,
            :func:`matrix_sqrt_newton_schulz`), 'eigh' (the exact root,
            :func:`matrix_sqrt_eigh`) or 'none' (the plain covariance).

    Returns:
        (B, D(D+1)/2), float32 or, for float64 input, float64: the row-major upper triangle, see
        :func:`triu_vector`. Features that are constant over the positions give zeros, and zero
        gradients.

    Raises:
        TypeError: if `x` is not a floating-point tensor or `iterations` not an integer.
        ValueError: for another shape, `iterations` < 1 or an unknown `norm`.
        torch.linalg.LinAlgError: for NaN or infinity with `norm='eigh'`; else they give NaN.
    """
    check_norm(norm)
    check_iterations(iterations)
    sigma = covariance(x)
    if norm == 'newton_schulz':
        sigma = matrix_sqrt_newton_schulz(sigma, iterations)
    elif norm == 'eigh':
        sigma = matrix_sqrt_eigh(sigma)
    return triu_vector(sigma)


def check_norm(norm: str) -> None:
    """Raise ValueError unless `norm` is one of :data:`MATRIX_NORMS`."""
    if norm not in MATRIX_NORMS:
        raise ValueError(f'norm: expected one of {MATRIX_NORMS}, got {norm!r}')
