"""Global covariance pooling with matrix square-root normalization.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.1.

Other normalizations of the covariance are options of the same function.
"""

import torch
from torch import Tensor

from .arguments import check_integer, check_number
from .backends import pool_by_circuit
from .circuit import find_circuit
from .covariance import covariance, flatten_positions
from .eigenvalues import Log, Power
from .eigh import matrix_sqrt_eigh
from .log_cholesky import log_cholesky
from .newton_schulz import MAX_ITERATIONS
from .newton_schulz_pooling import pool_by_newton_schulz
from .precision import full_precision
from .signed_sqrt import second_moment, signed_sqrt_l2
from .spectral import pool_by_spectrum
from .triangle import triu_vector

MATRIX_NORMS = (
    'newton_schulz',
    'eigh',
    'power',
    'log',
    'cholesky',
    'signed_sqrt_l2',
    'none',
)
METHODS = ('auto', 'newton_schulz', 'circuit', 'triton', 'cpp')


@full_precision
def global_covariance_pooling(
    x: Tensor,
    iterations: int = 5,
    norm: str = 'newton_schulz',
    method: str = 'auto',
    exponent: float = 0.5,
) -> Tensor:
    """Represent each feature map by its channel covariance, normalized: by default, its root.

    Args:
        x: features, (B, D, H, W) or (B, D, N), in any memory layout. float16 and bfloat16 are
            computed in float32, also under autocast.
        iterations: Newton-Schulz iterations, 1 to 12; used by `norm='newton_schulz'` only. More
            would amplify rounding errors: for the exact root take `norm='eigh'`.
        norm: normalization of the covariance matrix: 'newton_schulz' (the paper's layer,
            :func:`matrix_sqrt_newton_schulz`), 'eigh' (the exact root, :func:`matrix_sqrt_eigh`),
            'power' (:func:`matrix_power`), 'log' (:func:`matrix_log`), 'cholesky'
            (:func:`log_cholesky`), 'signed_sqrt_l2' (:func:`signed_sqrt_l2` of the second moment,
            without centering: bilinear pooling) or 'none' (the plain covariance). 'power', 'log'
            and 'cholesky' are computed in float64; 'power' and 'log' on the Gram matrix of the
            positions where that is smaller, and they can be differentiated once.
        method: how `norm='newton_schulz'` is computed, always the same function. 'newton_schulz'
            runs the iteration. 'circuit' evaluates it to float32's accuracy with fewer products
            (see :mod:`gcp_mm.ops.circuit`), for 3 and 5 iterations; in float64 it is still only
            accurate to `Circuit.max_error`. Both work on the Gram matrix of the positions where
            that is smaller. 'triton' (NVIDIA GPUs, N < D) and 'cpp' (CPUs; compiled at the first
            use) compute the circuit of float32 features in kernels of their own, its second
            derivatives apart. 'auto' takes the fastest for float32 where there is a circuit for
            so many iterations: Triton where it can run, 'cpp' where the environment has
            GCP_MM_EXTENSION=1, else 'circuit'. For other features it takes the iteration.
        exponent: of `norm='power'`, above 0.

    Returns:
        (B, D(D+1)/2), float32 or, for float64 input, float64: the row-major upper triangle, see
        :func:`triu_vector`. Features that are constant over the positions give zeros, and zero
        gradients. So do float32 features whose variances sum to less than 1.2e-38 (standard
        deviations of 1e-19); from about 1e19 on the variances overflow, which gives NaN.

    Raises:
        TypeError: if `x` is not a floating-point tensor, `iterations` not an integer or `exponent`
            not a number.
        ValueError: for another shape, `iterations` or `exponent` out of range, an unknown `norm`
            or `method`, a `method` beside another `norm` than 'newton_schulz', an `exponent`
            beside another than 'power', a number of iterations that there is no circuit for, or
            'triton' or 'cpp' where it cannot run.
        torch.linalg.LinAlgError: for NaN or infinity with 'eigh', 'power', 'log' and 'cholesky';
            else they give NaN.
    """
    check_options(iterations, norm, method, exponent)
    if norm == 'newton_schulz':
        return _pool_by_root(flatten_positions(x), iterations, method)
    matrix = dict(
        eigh=lambda: matrix_sqrt_eigh(covariance(x)),
        power=lambda: pool_by_spectrum(x, Power(float(exponent))),
        log=lambda: pool_by_spectrum(x, Log()),
        cholesky=lambda: log_cholesky(covariance(x.double())).to(x.dtype),
        signed_sqrt_l2=lambda: signed_sqrt_l2(second_moment(x)),
        none=lambda: covariance(x),
    )[norm]()
    return triu_vector(matrix)


def _pool_by_root(x: Tensor, iterations: int, method: str) -> Tensor:
    circuit = find_circuit('gram' if x.shape[2] < x.shape[1] else 'covariance', iterations)
    iterate = method == 'newton_schulz' or (method == 'auto' and x.dtype != torch.float32)
    if iterate or circuit is None:
        return pool_by_newton_schulz(x, iterations)
    return pool_by_circuit(x, circuit, method)


def check_options(iterations: int, norm: str, method: str, exponent: float = 0.5) -> None:
    """Raise as :func:`global_covariance_pooling` would for these options."""
    check_integer('iterations', iterations, high=MAX_ITERATIONS)
    for name, value, known in (('norm', norm, MATRIX_NORMS), ('method', method, METHODS)):
        if value not in known:
            raise ValueError(f'{name}: expected one of {known}, got {value!r}')
    if norm != 'newton_schulz' and method != 'auto':
        raise ValueError(
            f"method={method!r}: it chooses how norm='newton_schulz' is computed; leave it out "
            f'with norm={norm!r}'
        )
    check_number('exponent', exponent)
    if norm != 'power' and exponent != 0.5:
        raise ValueError(f"exponent={exponent!r}: it is that of norm='power', got norm={norm!r}")
    circuit = method not in ('auto', 'newton_schulz')
    if circuit and find_circuit('gram', iterations) is None:
        raise ValueError(
            f'method={method!r}: there is no circuit for iterations={iterations}; take '
            "method='auto', which falls back to the iteration"
        )
