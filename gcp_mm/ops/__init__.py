"""Global covariance pooling, functions and a layer; needs PyTorch and NumPy only."""

from .covariance import covariance
from .eigh import matrix_sqrt_eigh
from .newton_schulz import matrix_sqrt_newton_schulz
from .pool2d import GlobalCovariancePool2d
from .pooling import MATRIX_NORMS, METHODS, global_covariance_pooling
from .triangle import triu_vector, triu_vector_inverse

__all__ = [
    'MATRIX_NORMS',
    'METHODS',
    'GlobalCovariancePool2d',
    'covariance',
    'global_covariance_pooling',
    'matrix_sqrt_eigh',
    'matrix_sqrt_newton_schulz',
    'triu_vector',
    'triu_vector_inverse',
]
