"""Global covariance pooling with matrix square-root normalization.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.1.

By default float32 features take the circuit: this module chooses what computes it, and
:mod:`.circuit_pooling` computes it with PyTorch.
"""

import functools
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import circuit_pooling, extension
from .circuit import Circuit, find_circuit
from .covariance import covariance, flatten_positions
from .eigh import matrix_sqrt_eigh
from .newton_schulz import check_iterations
from .newton_schulz_pooling import pool_by_newton_schulz
from .precision import autocast_off, full_precision
from .tracing import is_traced
from .triangle import triu_vector

MATRIX_NORMS = ('newton_schulz', 'eigh', 'none')
METHODS = ('auto', 'circuit', 'newton_schulz')
SAVES = ('activations', 'input')
BACKENDS = ('auto', 'pytorch', 'triton', 'cpp')


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
        iterations: Newton-Schulz iterations, 1 to 12; used by `norm='newton_schulz'` only. More
            would amplify rounding errors: for the exact root take `norm='eigh'`.
        norm: normalization of the covariance matrix: 'newton_schulz' (the paper's layer,
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
        backend: what computes `method='circuit'`: 'pytorch', 'triton' (NVIDIA GPUs, N < D) or
            'cpp' (CPUs; compiled at the first use). 'auto' takes Triton where it can run, 'cpp'
            where the environment has GCP_MM_EXTENSION=1, else PyTorch. Second derivatives are
            computed by PyTorch.

    Returns:
        (B, D(D+1)/2), float32 or, for float64 input, float64: the row-major upper triangle, see
        :func:`triu_vector`. Features that are constant over the positions give zeros, and zero
        gradients. So do float32 features whose variances sum to less than 1.2e-38 (standard
        deviations of 1e-19); from about 1e19 on the variances overflow, which gives NaN.

    Raises:
        TypeError: if `x` is not a floating-point tensor or `iterations` not an integer.
        ValueError: for another shape, `iterations` out of range, an unknown `norm`, `method`,
            `save` or `backend`, one of the last three beside another `norm` than 'newton_schulz',
            a number of iterations that `method='circuit'` has no circuit for, or a named `backend`
            beside another method than 'circuit' or where it cannot run.
        torch.linalg.LinAlgError: for NaN or infinity with `norm='eigh'`; else they give NaN.
    """
    check_options(iterations, norm, method, save, backend)
    if norm == 'none':
        return triu_vector(covariance(x))
    if norm == 'eigh':
        return triu_vector(matrix_sqrt_eigh(covariance(x)))

    x = flatten_positions(x)
    circuit = find_circuit('gram' if x.shape[2] < x.shape[1] else 'covariance', iterations)
    iterate = method == 'newton_schulz' or (method == 'auto' and x.dtype != torch.float32)
    if iterate or circuit is None:
        return pool_by_newton_schulz(x, iterations, save)
    module = find_backend(backend, x, circuit)
    if is_traced(x):
        return circuit_pooling.pool_plainly(x, circuit)
    keep = save != 'input' and x.requires_grad and torch.is_grad_enabled()
    return _CircuitPool.apply(x, circuit, module, keep)


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
    if backend != 'auto' and method != 'circuit':
        raise ValueError(
            f"backend={backend!r}: it computes method='circuit' only, got method={method!r}; set "
            "method='circuit', or leave out backend"
        )
    if method == 'circuit' and find_circuit('gram', iterations) is None:
        raise ValueError(
            f"method='circuit': there is none for iterations={iterations}; take method='auto', "
            'which falls back to the iteration'
        )


def find_backend(name: str, x: Tensor, circuit: Circuit) -> ModuleType:
    """The module that computes the circuit for these features.

    Args:
        name: one of :data:`BACKENDS`.
        x: (B, D, N) features, float32 or float64.
        circuit: of the kind 'gram' if N < D, else 'covariance'.

    Returns:
        A module with two functions. `pool_forward(x, circuit, keep)` gives the upper triangle of
        sqrt(tr) p(Sigma / tr), (B, D(D+1)/2) in the dtype of `x`, and a list of what the backward
        needs besides `x`, which is empty unless `keep`. `pool_backward(circuit, grad, x, saved)`
        takes the gradient of that triangle and gives the gradient of `x`, (B, D, N); with an empty
        `saved` it computes the forward again. Neither is differentiable, or checks its arguments.

    Raises:
        ValueError: if the named back end cannot compute such features here.
    """
    fused = not is_traced(x) and x.dtype == torch.float32 and len(x) > 0
    triton = name in ('auto', 'triton') and fused and x.is_cuda and circuit.kind == 'gram'
    if triton and _has_triton(x.device):
        from . import triton_circuit

        return triton_circuit
    cpp = fused and x.device.type == 'cpu'
    if cpp and (name == 'cpp' or (name == 'auto' and extension.is_wanted())):
        return extension
    if name in ('auto', 'pytorch'):
        return circuit_pooling
    needs = dict(
        triton='a CUDA GPU with TF32, Triton 3.6, and fewer positions than channels',
        cpp='a CPU',
    )[name]
    raise ValueError(
        f'backend={name!r}: needs float32 features, a batch that is not empty, {needs}, and no '
        f'compiler or exporter; got {x.dtype}, {tuple(x.shape)}, on {x.device}; take '
        "backend='auto'"
    )


@functools.cache
def _has_triton(device: torch.device) -> bool:
    """Whether Triton is there, of a version the kernels were written for, and TF32 products."""
    if importlib.util.find_spec('triton') is None or torch.version.cuda is None:
        return False
    import triton

    version = tuple(int(part) for part in triton.__version__.split('.')[:2])
    return version >= (3, 6) and torch.cuda.get_device_capability(device) >= (8, 0)


class _CircuitPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, circuit: Circuit, backend: ModuleType, keep: bool) -> Tensor:
        out, saved = backend.pool_forward(x, circuit, keep)
        ctx.circuit, ctx.backend = circuit, backend
        ctx.save_for_backward(x, *saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        with autocast_off(grad.device.type):
            if torch.is_grad_enabled():  # to be differentiated again: by autograd
                with torch.enable_grad():
                    out = circuit_pooling.pool_plainly(x, ctx.circuit)
                dx = torch.autograd.grad(out, x, grad, create_graph=True)[0]
            else:
                dx = ctx.backend.pool_backward(ctx.circuit, grad, x, saved)
        return dx, None, None, None
