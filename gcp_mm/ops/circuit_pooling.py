"""Global covariance pooling by a circuit, with a backward written by hand.

See :mod:`.circuit` for the mathematics. For N < D, with x the features centered and scaled to unit
trace tau, r = r(x^T x), w = tau^(1/4) x r and the output w w^T, the backward is::

    dw = (G + G^T) w;  dr = tau^(1/4) sym(x^T dw);  dx = tau^(1/4) dw r + 2 x dQ_1 + t x

where dQ_1 is the circuit's gradient for dr, and t the gradient through tau, which comes from n x n
matrices alone: <w, dw> = <r, dr> and <x, x dQ_1> = <Q_1, dQ_1>. The rows of x sum to zero, and so
do those of dx: the adjoint of centering has nothing left to do.

This module computes it with PyTorch; :mod:`.triton_circuit` does for GPUs, :mod:`.extension` in C++
for CPUs.
"""

import math
from typing import Any

import torch
from torch import Tensor

from .circuit import Circuit
from .covariance import center, normalizer, scatter
from .triangle import triu_vector, triu_vector_adjoint

# On a CPU so much of a batch is computed at a time that it stays in the last level of the cache.
CHUNK_BYTES = 16 << 20


def pool_forward(x: Tensor, circuit: Circuit, keep: bool) -> tuple[Tensor, list[Tensor | None]]:
    """The forward of :func:`.backends.find_backend`, a chunk of the batch at a time."""
    out = x.new_empty(len(x), x.shape[1] * (x.shape[1] + 1) // 2)
    size = _chunk_size(x)
    saved: list[Tensor | None] = []
    for part, packed in zip(x.split(size), out.split(size), strict=True):
        factors = _evaluate(part, circuit)
        tau, _, value, w, *_ = factors
        if circuit.kind == 'gram':
            triu_vector(w @ w.mT, out=packed)
        else:
            triu_vector(value, out=packed).mul_(tau[:, :, 0].sqrt())
        if keep:
            saved += factors
    return out, saved


def pool_backward(circuit: Circuit, grad: Tensor, x: Tensor, saved: list[Tensor | None]) -> Tensor:
    """The backward of :func:`.backends.find_backend`."""
    dx = torch.empty_like(x)
    # The chunks of the forward, though the number of threads may have changed since.
    chunks = list(zip(*[iter(saved)] * (4 + len(circuit.a)), strict=True))
    size = max(1, len(chunks[0][0]))
    parts = zip(x.split(size), grad.split(size), dx.split(size), chunks, strict=True)
    for part, packed, out, factors in parts:
        _backward_of_chunk(circuit, packed, part, *factors, out=out)
    return dx


def _chunk_size(x: Tensor) -> int:
    """Samples computed at a time."""
    b, d, n = x.shape
    if b == 0 or x.device.type != 'cpu':
        return max(1, b)
    sample = x.element_size() * (8 * min(d, n) ** 2 + 4 * d * n + d**2)
    chunks = math.ceil(b / max(torch.get_num_threads(), CHUNK_BYTES // sample))
    return math.ceil(b / chunks)


def _evaluate(x: Tensor, circuit: Circuit) -> tuple[Any, ...]:
    """tau, 1 / sqrt(N tau), the circuit's value (times the scale of w), w or None, Q_1 ... Q_s.

    The features are centered and never scaled: what they are multiplied to is smaller.
    """
    x = center(x)
    # transpose and not mT, which the older ONNX exporter does not know
    q1 = x.transpose(1, 2) @ x if circuit.kind == 'gram' else scatter(x)
    trace = q1.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    tau, scale = normalizer(trace, x.shape[2])
    value, q = circuit.forward(q1 * scale.square())
    if circuit.kind == 'gram':
        value = value * (tau**0.25 * scale)
        return tau, scale, value, x @ value, *q
    return tau, scale, value, None, *q


def pool_plainly(x: Tensor, circuit: Circuit) -> Tensor:
    """The same in plain operations that autograd, compilers and exporters follow."""
    tau, _, value, w, *_ = _evaluate(x, circuit)
    if circuit.kind == 'gram':
        return triu_vector(w @ w.transpose(1, 2))
    return triu_vector(value * tau.sqrt())


def _backward_of_chunk(
    circuit: Circuit,
    grad: Tensor,
    x: Tensor,
    tau: Tensor,
    scale: Tensor,
    value: Tensor,
    w: Tensor | None,
    *q: Tensor,
    out: Tensor,
) -> None:
    """Gradient with respect to the features, written to `out`."""
    x = center(x)
    if w is not None:  # the kind 'gram'
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
    if w is not None:
        torch.bmm(dw, value, out=out).baddbmm_(x, dq)
    else:
        torch.bmm(dq, x, out=out)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Frobenius inner products of two batches of matrices, (B, 1, 1)."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))[:, None, None]
