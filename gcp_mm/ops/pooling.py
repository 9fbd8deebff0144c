"""Global covariance pooling with matrix square-root normalisation.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.1.
"""

import torch
from torch import Tensor

from .circuit import find_circuit, normalise, pool_by_circuit
from .covariance import centre
from .eigh import matrix_sqrt_eigh
from .newton_schulz import check_iterations, matrix_sqrt_newton_schulz, newton_schulz
from .precision import full_precision
from .triangle import triu_vector

MATRIX_NORMS = ('newton_schulz', 'eigh', 'none')
METHODS = ('auto', 'circuit', 'newton_schulz')


@full_precision
def global_covariance_pooling(
    x: Tensor, iterations: int = 5, norm: str = 'newton_schulz', method: str = 'auto'
) -> Tensor:
    """Represent each feature map by the square root of its channel covariance.

    Args:
        x: features, (B, D, H, W) or (B, D, N), in any memory layout. float16 and bfloat16 are
            computed in float32, also under autocast.
        iterations: Newton-Schulz iterations; used by `norm='newton_schulz'` only.
        norm: normalisation of the covariance matrix: 'newton_schulz' (the paper's layer,
            :func:`matrix_sqrt_newton_schulz`), 'eigh' (the exact root,
            :func:`matrix_sqrt_eigh`) or 'none' (the plain covariance).
        method: how `norm='newton_schulz'` is computed: 'newton_schulz' runs the iteration, on the
            Gram matrix of the positions where that is smaller; 'circuit' evaluates the same
            function to float32's accuracy with fewer products (see :mod:`gcp_mm.ops.circuit`);
            'auto' takes the circuit for float32 where there is one for so many iterations.

    Returns:
        (B, D(D+1)/2), float32 or, for float64 input, float64: the row-major upper triangle, see
        :func:`triu_vector`. Features that are constant over the positions give zeros, and zero
        gradients.

    Raises:
        TypeError: if `x` is not a floating-point tensor or `iterations` not an integer.
        ValueError: for another shape, `iterations` < 1, an unknown `norm` or `method`, or a
            number of iterations that `method='circuit'` has no circuit for.
        torch.linalg.LinAlgError: for NaN or infinity with `norm='eigh'`; else they give NaN.
    """
    check_norm(norm)
    check_iterations(iterations)
    if method not in METHODS:
        raise ValueError(f'method: expected one of {METHODS}, got {method!r}')
    x = centre(x)
    d, n = x.shape[1:]
    if norm == 'newton_schulz':
        circuit = find_circuit('gram' if n < d else 'covariance', iterations)
        if method == 'auto':
            method = 'circuit' if circuit and x.dtype == torch.float32 else 'newton_schulz'
        if method == 'circuit':
            if circuit is None:
                raise ValueError(
                    f"iterations={iterations} has no circuit: take method='newton_schulz'"
                )
            return pool_by_circuit(x, circuit)
        if n < d:
            x, tau = normalise(x)
            _, z, t = newton_schulz(x.mT @ x, iterations)
            return triu_vector(x @ (t @ z) @ x.mT * tau.sqrt())  # p(x x^T) = x Z_K(x^T x) x^T
    sigma = x @ x.mT / n
    if norm == 'newton_schulz':
        sigma = matrix_sqrt_newton_schulz(sigma, iterations)
    elif norm == 'eigh':
        sigma = matrix_sqrt_eigh(sigma)
    return triu_vector(sigma)


def check_norm(norm: str) -> None:
    """Raise ValueError unless `norm` is one of :data:`MATRIX_NORMS`."""
    if norm not in MATRIX_NORMS:
        raise ValueError(f'norm: expected one of {MATRIX_NORMS}, got {norm!r}')
