"""Global covariance pooling with matrix square-root normalisation.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.1.
"""

import torch
from torch import Tensor

from .circuit import find_circuit
from .circuit_pooling import BACKENDS, pool_by_circuit
from .covariance import covariance, flatten_positions
from .eigh import matrix_sqrt_eigh
from .newton_schulz import check_iterations
from .newton_schulz_pooling import pool_by_newton_schulz
from .precision import full_precision
from .triangle import triu_vector

MATRIX_NORMS = ('newton_schulz', 'eigh', 'none')
METHODS = ('auto', 'circuit', 'newton_schulz')
SAVES = ('activations', 'input')


@full_precision
def global_covariance_pooling(
    x: Tensor,
    iterations: int = 5,
    norm: str = 'newton_schulz',
    method: str = 'auto',
    save: str = 'activations',
    backend: str = 'auto',
) -> Tensor:
    """Represent each feature map by the square root of its channel covariance.

    Args:
        x: features, (B, D, H, W) or (B, D, N), in any memory layout. float16 and bfloat16 are
            computed in float32, also under autocast.
        iterations: Newton-Schulz iterations; used by `norm='newton_schulz'` only.
        norm: normalisation of the covariance matrix: 'newton_schulz' (the paper's layer,
            :func:`matrix_sqrt_newton_schulz`), 'eigh' (the exact root,
            :func:`matrix_sqrt_eigh`) or 'none' (the plain covariance).
        method: how `norm='newton_schulz'` is computed, always the same function. 'newton_schulz'
            runs the iteration; 'circuit' evaluates it to float32's accuracy with fewer products
            (see :mod:`gcp_mm.ops.circuit`), for 3 and 5 iterations. Both work on the Gram matrix
            of the positions where that is smaller. 'auto' takes the circuit for float32 where
            there is one for so many iterations, else the iteration. In float64 the circuit is
            still only accurate to `Circuit.max_error`.
        save: what `norm='newton_schulz'` keeps for the backward: 'activations', or 'input' to
            keep `x` alone, in float32 if it is of half precision, and compute the forward's
            products a second time.
        backend: what computes the circuit: 'pytorch', 'triton' (NVIDIA GPUs, N < D) or 'cpp'
            (CPUs; compiled at the first use). 'auto' takes Triton where it can run, 'cpp' where
            the environment has GCP_MM_EXTENSION=1, else PyTorch.

    Returns:
        (B, D(D+1)/2), float32 or, for float64 input, float64: the row-major upper triangle, see
        :func:`triu_vector`. Features that are constant over the positions give zeros, and zero
        gradients.

    Raises:
        TypeError: if `x` is not a floating-point tensor or `iterations` not an integer.
        ValueError: for another shape, `iterations` < 1, an unknown `norm`, `method`, `save` or
            `backend`, one of the last three beside another `norm` than 'newton_schulz', a number
            of iterations that `method='circuit'` has no circuit for, or a `backend` that cannot
            run here.
        torch.linalg.LinAlgError: for NaN or infinity with `norm='eigh'`; else they give NaN.
    """
    check_options(iterations, norm, method, save, backend)
    if norm == 'none':
        return triu_vector(covariance(x))
    if norm == 'eigh':
        return triu_vector(matrix_sqrt_eigh(covariance(x)))

    x = flatten_positions(x)
    circuit = find_circuit('gram' if x.shape[2] < x.shape[1] else 'covariance', iterations)
    if method == 'auto':
        method = 'circuit' if circuit and x.dtype == torch.float32 else 'newton_schulz'
    if method == 'newton_schulz':
        return pool_by_newton_schulz(x, iterations, save)
    return pool_by_circuit(x, circuit, save, backend)


def check_options(
    iterations: int, norm: str, method: str, save: str, backend: str = 'auto'
) -> None:
    """Raise as :func:`global_covariance_pooling` would for these options."""
    check_iterations(iterations)
    for name, value, known in (
        ('norm', norm, MATRIX_NORMS),
        ('method', method, METHODS),
        ('save', save, SAVES),
        ('backend', backend, BACKENDS),
    ):
        if value not in known:
            raise ValueError(f'{name}: expected one of {known}, got {value!r}')
    if norm != 'newton_schulz' and (method, save, backend) != ('auto', 'activations', 'auto'):
        raise ValueError(
            f'method={method!r}, save={save!r}, backend={backend!r}: these choose how '
            f"norm='newton_schulz' is computed; leave them out with norm={norm!r}"
        )
    if method == 'newton_schulz' and backend != 'auto':
        raise ValueError(f'backend={backend!r}: only the circuit has it, not method={method!r}')
    if method == 'circuit' and find_circuit('gram', iterations) is None:
        raise ValueError(
            f"method='circuit': there is none for iterations={iterations}; take method='auto', "
            'which falls back to the iteration'
        )
