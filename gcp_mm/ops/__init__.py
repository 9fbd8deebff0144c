"""Global covariance pooling, functions and a layer; needs PyTorch and NumPy only."""

from .covariance import covariance
from .dropcov import DropCov, dropcov_probability
from .eigh import matrix_sqrt_eigh
from .log_cholesky import log_cholesky
from .newton_schulz import matrix_sqrt_newton_schulz
from .pool2d import GlobalCovariancePool2d
from .pooling import MATRIX_NORMS, METHODS, global_covariance_pooling
from .signed_sqrt import second_moment, signed_sqrt_l2
from .spectral import matrix_log, matrix_power
from .svpn import svpn
from .triangle import triu_vector, triu_vector_inverse

__all__ = [
    'MATRIX_NORMS',
    'METHODS',
    'DropCov',
    'GlobalCovariancePool2d',
    'covariance',
    'dropcov_probability',
    'global_covariance_pooling',
    'log_cholesky',
    'matrix_log',
    'matrix_power',
    'matrix_sqrt_eigh',
    'matrix_sqrt_newton_schulz',
    'second_moment',
    'signed_sqrt_l2',
    'svpn',
    'triu_vector',
    'triu_vector_inverse',
]
