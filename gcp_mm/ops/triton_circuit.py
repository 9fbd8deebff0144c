"""The pooling of :mod:`.circuit` for N < D by fused Triton kernels, forward and backward.

The algorithm is that of circuit.py, preceded by centering; the kernels are this project's own. With
Xh = s (X - mean) and s = (N tau)^(-1/2), W = Xh r and dW its gradient (in memory W carries another
factor tau^(1/4)), what makes them few:

- g = sym(Xh^T dW) gives also <W, dW> = <r, g>. The gradient through tau then needs N x N matrices
  only: dXh = dW r + 2 Xh Qbar_1 + t Xh with t = -<r, g> / 2 - 2 <Q_1, Qbar_1>.
- Xh 1 = 0, hence W 1 = 0, dW 1 = 0, and the rows of dXh have zero mean: the adjoint of centering
  has nothing left to do.
- A vanishing trace sets s = 0, which gives zeros, in the gradient too.

Up to `SMALL` positions one program per image keeps all Q_j in registers. Beyond, the Q_j are in
global memory, and each step is a kernel that computes the tiles of the upper triangle and stores
each also mirrored. Matrices are padded with zeros to P >= N positions, which is exact. Nothing
synchronizes or copies from the host: the launches can be captured in a CUDA graph.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from . import triton_large as large
from . import triton_small as small
from .circuit import Circuit

SMALL = 64  # most positions for which an image's matrices are kept in registers
# Extents of each kernel's tiles (powers of 2, at least 16), and Triton's launch options.
TUNED = dict(
    small_forward=dict(block_d=64, num_warps=4, num_stages=1),
    small_backward=dict(block_d=64, num_warps=4, num_stages=1),
    center=dict(block_d=32, num_warps=8, num_stages=2),
    gram_matrix=dict(block=64, block_k=32, num_warps=4, num_stages=3),
    step=dict(block=64, block_k=32, num_warps=4, num_stages=3),
    features=dict(block_d=128, block_p=64, block_k=32, num_warps=8, num_stages=3),
    outer=dict(block=64, block_k=32, num_warps=4, num_stages=3),
    grad_features=dict(block_d=32, block_p=128, num_warps=4, num_stages=2),
    grad_input=dict(block_d=128, block_p=64, block_k=16, num_warps=8, num_stages=3),
)


def pool_forward(x: Tensor, circuit: Circuit, keep: bool = True) -> tuple[Tensor, list[Tensor]]:
    """The forward of :func:`.backends.find_backend`, for float32 features on a GPU, N < D."""
    x = x.contiguous()
    batch, d, n = x.shape
    a, b, c0 = circuit.a, circuit.b, circuit.c
    with torch.cuda.device_of(x):
        stats = x.new_empty(batch, 2)
        if n <= SMALL:
            p = max(16, triton.next_power_of_2(n))
            w, q1, r = (x.new_empty(batch, rows, p) for rows in (d, p, p))
            constants = dict(a=a, b=b, c0=c0, p=p)
            _launch(small.small_forward, (batch,), x, w, q1, r, stats, d, n, **constants)
            saved = [w, q1, r, stats]
        else:
            p = triton.cdiv(n, 16) * 16
            c, w = x.new_empty(batch, d, p), x.new_empty(batch, d, p)
            q, r = x.new_empty(batch, len(a), p, p), x.new_empty(batch, p, p)
            _launch(large.center, (batch,), x, c, stats, d, n, p, block_n=triton.next_power_of_2(p))
            _launch(large.gram_matrix, _upper(batch, p), c, None, stats, q, d, p, q.stride(0))
            for j in range(1, len(a)):
                _square(q, j, q[:, j], a, b)
            _square(q, len(a), r, a, b, c0)
            _launch(large.features, _tiles(batch, d, p), c, r, stats, w, d, p)
            saved = [w, q, stats]
        out = x.new_empty(batch, d * (d + 1) // 2)
        _launch(large.outer, _upper(batch, d), w, out, d, p)
    return out, saved if keep else []


def pool_backward(circuit: Circuit, grad: Tensor, x: Tensor, saved: list[Tensor]) -> Tensor:
    """The backward of :func:`.backends.find_backend`."""
    x, grad = x.contiguous(), grad.contiguous()
    batch, d, n = x.shape
    a, b, c0 = circuit.a, circuit.b, circuit.c
    w, *kept, stats = saved
    p = w.shape[2]
    dx, dw = torch.empty_like(x), torch.empty_like(w)
    with torch.cuda.device_of(x):
        block_p = min(TUNED['grad_features']['block_p'], triton.next_power_of_2(p))
        _launch(large.grad_features, _tiles(batch, d, p), grad, w, stats, dw, d, p, block_p=block_p)
        if n <= SMALL:
            q1, r = kept
            constants = dict(a=a, b=b, p=p)
            _launch(small.small_backward, (batch,), x, dw, q1, r, stats, dx, d, n, **constants)
            return dx
        (q,) = kept
        s = len(a)
        c, r = torch.empty_like(w), x.new_empty(batch, p, p)
        _launch(large.center, (batch,), x, c, stats, d, n, p, block_n=triton.next_power_of_2(p))
        _square(q, s, r, a, b, c0)
        # g, then the gradients of Q_s, ..., Q_1: each is made of those before it.
        bars = x.new_empty(batch, s + 1, p, p)
        _launch(large.gram_matrix, _upper(batch, p), c, dw, stats, bars, d, p, bars.stride(0))
        parts = x.new_empty(batch, _triangle(p, TUNED['step']['block']))
        for j in range(s, 0, -1):
            made = s + 1 - j
            left, right, out = bars[:, made - 1], q[:, j - 1], bars[:, made]
            last = (r, parts) if j == 1 else (None, None)
            column = tuple(row[j - 1] for row in reversed(b[j - 1 :]))
            _step_launch(left, right, bars, out, *last, a=a[j - 1], b=column, c0=0.0)
        _launch(
            large.grad_input,
            _tiles(batch, d, p),
            *(c, dw, r, bars[:, s], parts, stats, dx),
            *(d, n, p, bars.stride(0), parts.shape[1]),
            block_parts=triton.next_power_of_2(parts.shape[1]),
        )
    return dx


def _square(
    q: Tensor,
    j: int,
    out: Tensor,
    a: tuple[float, ...],
    b: tuple[tuple[float, ...], ...],
    c0: float = 0.0,
) -> None:
    """The j-th step of the circuit, from Q_1 ... Q_j."""
    _step_launch(q[:, j - 1], None, q, out, None, None, a=a[j - 1], b=b[j - 1], c0=c0)


def _step_launch(
    left: Tensor,
    right: Tensor | None,
    stack: Tensor,
    out: Tensor,
    r: Tensor | None,
    parts: Tensor | None,
    **coefficients: Any,
) -> None:
    p = out.shape[2]
    strides = (m.stride(0) if m is not None else 0 for m in (left, right, stack, out))
    args = left, right, stack, out, r, parts, p, *strides
    _launch(large.step, _upper(len(out), p), *args, **coefficients)


def _launch(kernel: Any, grid: Any, *args: Any, **constants: Any) -> None:
    kernel[grid](*args, **(TUNED[kernel.__name__] | constants))


def _upper(batch: int, extent: int) -> Callable[[dict], tuple[int]]:
    """Grid over the tiles of the upper triangle."""
    return lambda meta: (batch * _triangle(extent, meta['block']),)


def _tiles(batch: int, d: int, p: int) -> Callable[[dict], tuple[int]]:
    """Grid over the tiles of D x P matrices."""
    return lambda meta: (batch * triton.cdiv(d, meta['block_d']) * triton.cdiv(p, meta['block_p']),)


def _triangle(extent: int, tile: int) -> int:
    side = triton.cdiv(extent, tile)
    return side * (side + 1) // 2
