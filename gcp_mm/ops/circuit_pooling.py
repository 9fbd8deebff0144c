"""Global covariance pooling by a circuit, with a backward written by hand.

See :mod:`.circuit` for the mathematics. For N < D, with x the features centred and scaled to unit
trace tau, r = r(x^T x), w = tau^(1/4) x r and the output w w^T, the backward is::

    dw = (G + G^T) w;  dr = tau^(1/4) sym(x^T dw);  dx = tau^(1/4) dw r + 2 x dQ_1 + t x

where dQ_1 is the circuit's gradient for dr, and t the gradient through tau, which comes from n x n
matrices alone: <w, dw> = <r, dr> and <x, x dQ_1> = <Q_1, dQ_1>. The rows of x sum to zero, and so
do those of dx: the adjoint of centring has nothing left to do.

Three back ends compute this: PyTorch (this module), Triton kernels for GPUs
(:mod:`.triton_circuit`) and C++ for CPUs (:mod:`.extension`).
"""

import functools
import importlib.util
import math
from itertools import chain, islice
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from . import extension
from .circuit import Circuit
from .covariance import centre, normaliser, scatter
from .precision import autocast_off
from .tracing import is_traced
from .triangle import triu_vector, triu_vector_adjoint

BACKENDS = ('auto', 'pytorch', 'triton', 'cpp')

# On a CPU so much of a batch is computed at a time that it stays in the last level of the cache.
CHUNK_BYTES = 16 << 20


class Backend(Protocol):
    """Forward and backward of the pooling of (B, D, N) features; modules and objects serve."""

    def pool_forward(
        self, x: Tensor, circuit: Circuit, keep: bool
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """The output, and if `keep` what the backward needs besides `x`, for each chunk of x."""

    def pool_backward(
        self, circuit: Circuit, grad: Tensor, x: Tensor, saved: list[tuple[Tensor, ...]]
    ) -> Tensor:
        """The gradient of `x`; with an empty `saved` the back end computes it again."""


def pool_by_circuit(
    x: Tensor, circuit: Circuit, save: str = 'activations', backend: str = 'auto'
) -> Tensor:
    """Pooling of features, differentiable any number of times.

    Args:
        x: (B, D, N) features, float32 or float64.
        circuit: of the kind 'gram' if N < D, else 'covariance'; see :func:`find_circuit`.
        save, backend: see :func:`.pooling.global_covariance_pooling`.

    Returns:
        (B, D(D+1)/2), the upper triangle of sqrt(tr) p(Sigma / tr).

    Raises:
        ValueError: if the named back end cannot compute such features here.
    """
    if is_traced(x):
        return pool_plainly(x, circuit)
    keep = save != 'input' and x.requires_grad and torch.is_grad_enabled()
    return _Pool.apply(x, circuit, find_backend(backend, x, circuit), keep)


class _Pool(Function):
    @staticmethod
    def forward(ctx, x, circuit, backend, keep):
        out, chunks = backend.pool_forward(x, circuit, keep)
        ctx.circuit, ctx.backend = circuit, backend
        ctx.lengths = [len(chunk) for chunk in chunks]
        ctx.save_for_backward(x, *chain(*chunks))
        return out

    @staticmethod
    def backward(ctx, grad):
        x, *saved = ctx.saved_tensors
        with autocast_off(grad.device.type):
            if torch.is_grad_enabled():  # to be differentiated again: by autograd
                with torch.enable_grad():
                    out = pool_plainly(x, ctx.circuit)
                dx = torch.autograd.grad(out, x, grad, create_graph=True)[0]
            else:
                saved = iter(saved)
                chunks = [tuple(islice(saved, length)) for length in ctx.lengths]
                dx = ctx.backend.pool_backward(ctx.circuit, grad, x, chunks)
        return dx, None, None, None


def find_backend(name: str, x: Tensor, circuit: Circuit) -> Backend:
    """The back end of this name for such features; the fastest available for 'auto'."""
    fused = x.dtype == torch.float32 and len(x) > 0
    triton = name in ('auto', 'triton') and fused and x.is_cuda and circuit.kind == 'gram'
    if triton and _has_triton(x.device):
        from . import triton_circuit

        return triton_circuit
    cpp = fused and x.device.type == 'cpu'
    if cpp and (name == 'cpp' or (name == 'auto' and extension.is_wanted())):
        return extension.load()
    if name in ('auto', 'pytorch'):
        return PYTORCH
    needs = dict(
        triton='a CUDA GPU with TF32, Triton 3.6, and fewer positions than channels',
        cpp='a CPU',
    )[name]
    raise ValueError(
        f'backend={name!r}: needs float32 features, a batch that is not empty, and {needs}; got '
        f"{x.dtype}, {tuple(x.shape)}, on {x.device}; take backend='auto'"
    )


@functools.cache
def _has_triton(device):
    """Whether Triton is there, of a version the kernels were written for, and TF32 products."""
    if importlib.util.find_spec('triton') is None or torch.version.cuda is None:
        return False
    import triton

    version = tuple(int(part) for part in triton.__version__.split('.')[:2])
    return version >= (3, 6) and torch.cuda.get_device_capability(device) >= (8, 0)


class PyTorchBackend:
    """The pooling by PyTorch's batched products, a chunk of the batch at a time."""

    def pool_forward(self, x, circuit, keep):
        out = x.new_empty(len(x), x.shape[1] * (x.shape[1] + 1) // 2)
        size = _chunk_size(x)
        saved = []
        for part, packed in zip(x.split(size), out.split(size), strict=True):
            factors = _evaluate(part, circuit)
            tau, _, value, w, *_ = factors
            if circuit.kind == 'gram':
                triu_vector(w @ w.mT, out=packed)
            else:
                triu_vector(value, out=packed).mul_(tau[:, :, 0].sqrt())
            if keep:
                saved.append(factors)
        return out, saved

    def pool_backward(self, circuit, grad, x, saved):
        dx = torch.empty_like(x)
        # The chunks of the forward, though the number of threads may have changed since.
        size = max(1, len(saved[0][0])) if saved else _chunk_size(x)
        parts = zip(x.split(size), grad.split(size), dx.split(size), strict=True)
        for i, (part, packed, out) in enumerate(parts):
            factors = saved[i] if saved else _evaluate(part, circuit)
            _pool_backward(circuit, packed, part, *factors, out=out)
        return dx


PYTORCH = PyTorchBackend()


def _chunk_size(x):
    """Samples computed at a time."""
    b, d, n = x.shape
    if b == 0 or x.device.type != 'cpu':
        return max(1, b)
    sample = x.element_size() * (8 * min(d, n) ** 2 + 4 * d * n + d**2)
    chunks = math.ceil(b / max(torch.get_num_threads(), CHUNK_BYTES // sample))
    return math.ceil(b / chunks)


def _evaluate(x, circuit):
    """tau, 1 / sqrt(N tau), the circuit's value (times the scale of w), w or None, Q_1 ... Q_s.

    The features are centred and never scaled: what they are multiplied to is smaller.
    """
    x = centre(x)
    # transpose and not mT, which the older ONNX exporter does not know
    q1 = x.transpose(1, 2) @ x if circuit.kind == 'gram' else scatter(x)
    trace = q1.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    tau, scale = normaliser(trace, x.shape[2])
    value, q = circuit.forward(q1 * scale.square())
    if circuit.kind == 'gram':
        value = value * (tau**0.25 * scale)
        return tau, scale, value, x @ value, *q
    return tau, scale, value, None, *q


def pool_plainly(x: Tensor, circuit: Circuit) -> Tensor:
    """The reference: operations that autograd, compilers and exporters follow."""
    tau, _, value, w, *_ = _evaluate(x, circuit)
    if circuit.kind == 'gram':
        return triu_vector(w @ w.transpose(1, 2))
    return triu_vector(value * tau.sqrt())


def _pool_backward(circuit, grad, x, tau, scale, value, w, *q, out):
    """Gradient with respect to the features, written to `out`."""
    x = centre(x)
    if circuit.kind == 'gram':
        dw = triu_vector_adjoint(grad) @ w
        g = x.mT @ dw
        g = g + g.mT
        t = -_inner(value, g) / 4
        dq = circuit.backward(g.mul_(tau**0.25 * scale), q)  # of twice dr
    else:
        g = triu_vector_adjoint(grad * tau[:, :, 0].sqrt())
        t = _inner(value, g) / 2
        dq = circuit.backward(g, q)
    t = t - _inner(q[0], dq)
    dq.diagonal(dim1=1, dim2=2).add_(t[:, 0])
    dq.mul_(scale.square())
    if circuit.kind == 'gram':
        torch.bmm(dw, value, out=out).baddbmm_(x, dq)
    else:
        torch.bmm(dq, x, out=out)


def _inner(a, b):
    """Frobenius inner products of two batches of matrices, (B, 1, 1)."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))[:, None, None]
