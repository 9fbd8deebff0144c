"""What computes the circuit: PyTorch, Triton's kernels, or the C++ extension."""

import functools
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import circuit_pooling, extension
from .circuit import Circuit
from .precision import full_products
from .tracing import is_traced


def pool_by_circuit(x: Tensor, circuit: Circuit, method: str) -> Tensor:
    """Pooling of features by a circuit.

    Args:
        x: (B, D, N) features, float32 or float64.
        circuit: of the kind 'gram' if N < D, else 'covariance'.
        method: 'auto', 'circuit', 'triton' or 'cpp'.

    Returns:
        (B, D(D+1)/2), in the dtype of `x`.

    Raises:
        ValueError: if the named method cannot compute such features here.
    """
    module = find_backend(method, x, circuit)
    if is_traced(x):
        return circuit_pooling.pool_plainly(x, circuit)
    keep = x.requires_grad and torch.is_grad_enabled()
    return _CircuitPool.apply(x, circuit, module, keep)


def find_backend(method: str, x: Tensor, circuit: Circuit) -> ModuleType:
    """The module that computes the circuit for these features.

    Args:
        method: 'auto', 'circuit', 'triton' or 'cpp'.
        x: (B, D, N) features, float32 or float64.
        circuit: of the kind 'gram' if N < D, else 'covariance'.

    Returns:
        A module with two functions. `pool_forward(x, circuit, keep)` gives the upper triangle of
        sqrt(tr) p(Sigma / tr), (B, D(D+1)/2) in the dtype of `x`, and a list of what the backward
        needs besides `x`, which is empty unless `keep`. `pool_backward(circuit, grad, x, saved)`
        takes the gradient of that triangle and that list, and gives the gradient of `x`, (B, D, N).
        Neither is differentiable, or checks its arguments.

    Raises:
        ValueError: if the named method cannot compute such features here.
    """
    fused = not is_traced(x) and x.dtype == torch.float32 and len(x) > 0
    triton = method in ('auto', 'triton') and fused and x.is_cuda and circuit.kind == 'gram'
    if triton and _has_triton(x.device):
        from . import triton_circuit

        return triton_circuit
    cpp = fused and x.device.type == 'cpu'
    if cpp and (method == 'cpp' or (method == 'auto' and extension.is_wanted())):
        return extension
    if method in ('auto', 'circuit'):
        return circuit_pooling
    needs = dict(
        triton='a CUDA GPU with TF32, Triton 3.6, and fewer positions than channels',
        cpp='a CPU',
    )[method]
    raise ValueError(
        f'method={method!r}: needs float32 features, a batch that is not empty, {needs}, and no '
        f'compiler, exporter or torch.func; got {x.dtype}, {tuple(x.shape)}, on {x.device}; take '
        "method='auto'"
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
        with full_products(grad):
            if torch.is_grad_enabled():  # to be differentiated again: by autograd
                with torch.enable_grad():
                    out = circuit_pooling.pool_plainly(x, ctx.circuit)
                dx = torch.autograd.grad(out, x, grad, create_graph=True)[0]
            else:
                dx = ctx.backend.pool_backward(ctx.circuit, grad, x, saved)
        return dx, None, None, None
