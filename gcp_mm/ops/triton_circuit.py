"""The pooling of :mod:`.circuit` for N < D by fused Triton kernels, forward and backward.

The algorithm is that of circuit.py, preceded by centring; the kernels are this project's own. With
Xh = s (X - mean) and s = (N tau)^(-1/2), W = Xh r and dW its gradient (in memory W carries another
factor tau^(1/4)), what makes them few:

- g = sym(Xh^T dW) gives also <W, dW> = <r, g>. The gradient through tau then needs N x N matrices
  only: dXh = dW r + 2 Xh Qbar_1 + t Xh with t = -<r, g> / 2 - 2 <Q_1, Qbar_1>.
- Xh 1 = 0, hence W 1 = 0, dW 1 = 0, and the rows of dXh have zero mean: the adjoint of centring
  has nothing left to do.
- A vanishing trace sets s = 0, which gives zeros, in the gradient too.

Up to `SMALL` positions one program per image keeps all Q_j in registers. Beyond, the Q_j are in
global memory, and each step is a kernel that computes the tiles of the upper triangle and stores
each also mirrored. Matrices are padded with zeros to P >= N positions, which is exact. Nothing
synchronises or copies from the host: the launches can be captured in a CUDA graph.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .circuit import Circuit

PRECISION = 'tf32x3'  # of the products: three TF32 products replace one of float32
SMALL = 64  # most positions for which an image's matrices are kept in registers
# Extents of each kernel's tiles (powers of 2, at least 16), and Triton's launch options.
TUNED = dict(
    small_forward=dict(block_d=64, num_warps=4, num_stages=1),
    small_backward=dict(block_d=64, num_warps=4, num_stages=1),
    centre=dict(block_d=32, num_warps=8, num_stages=2),
    gram=dict(block=64, block_k=32, num_warps=4, num_stages=3),
    step=dict(block=64, block_k=32, num_warps=4, num_stages=3),
    features=dict(block_d=128, block_p=64, block_k=32, num_warps=8, num_stages=3),
    outer=dict(block=64, block_k=32, num_warps=4, num_stages=3),
    grad_features=dict(block_d=32, block_p=128, num_warps=4, num_stages=2),
    grad_input=dict(block_d=128, block_p=64, block_k=16, num_warps=8, num_stages=3),
)


def pool_forward(
    x: Tensor, circuit: Circuit, keep: bool = True
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """Pooling of features with fewer positions than channels.

    Args:
        x: (B, D, N) features, not centred, N < D, float32.
        circuit: of the kind 'gram', see :func:`.circuit.find_circuit`.
        keep: whether to return the tensors for the backward.

    Returns:
        (B, D(D+1)/2) float32, the upper triangle of sqrt(tr) p(Sigma / tr), and the tensors
        that :func:`pool_backward` needs besides `x`, in one chunk.
    """
    x = x.contiguous()
    batch, d, n = x.shape
    a, b, c0 = circuit.a, circuit.b, circuit.c
    with torch.cuda.device_of(x):
        stats = x.new_empty(batch, 2)
        if n <= SMALL:
            p = max(16, triton.next_power_of_2(n))
            w, q1, r = (x.new_empty(batch, rows, p) for rows in (d, p, p))
            constants = dict(a=a, b=b, c0=c0, p=p)
            _launch(_small_forward, (batch,), x, w, q1, r, stats, d, n, **constants)
            saved = w, q1, r, stats
        else:
            p = triton.cdiv(n, 16) * 16
            c, w = x.new_empty(batch, d, p), x.new_empty(batch, d, p)
            q, r = x.new_empty(batch, len(a), p, p), x.new_empty(batch, p, p)
            _launch(_centre, (batch,), x, c, stats, d, n, p, block_n=triton.next_power_of_2(p))
            _launch(_gram, _upper(batch, p), c, None, stats, q, d, p, q.stride(0))
            for j in range(1, len(a)):
                _square(q, j, q[:, j], a, b)
            _square(q, len(a), r, a, b, c0)
            _launch(_features, _tiles(batch, d, p), c, r, stats, w, d, p)
            saved = w, q, stats
        out = x.new_empty(batch, d * (d + 1) // 2)
        _launch(_outer, _upper(batch, d), w, out, d, p)
    return out, [saved] if keep else []


def pool_backward(
    circuit: Circuit, grad: Tensor, x: Tensor, saved: list[tuple[Tensor, ...]]
) -> Tensor:
    """Gradient of :func:`pool_forward` with respect to the features.

    Args:
        circuit: that of the forward.
        grad: (B, D(D+1)/2) float32, gradient of the output.
        x: (B, D, N) float32, the features given to the forward.
        saved: what it returned; if empty, the forward runs again.

    Returns:
        (B, D, N) float32.
    """
    x, grad = x.contiguous(), grad.contiguous()
    batch, d, n = x.shape
    a, b, c0 = circuit.a, circuit.b, circuit.c
    ((w, *kept, stats),) = saved or pool_forward(x, circuit)[1]
    p = w.shape[2]
    dx, dw = torch.empty_like(x), torch.empty_like(w)
    with torch.cuda.device_of(x):
        block_p = min(TUNED['grad_features']['block_p'], triton.next_power_of_2(p))
        _launch(_grad_features, _tiles(batch, d, p), grad, w, stats, dw, d, p, block_p=block_p)
        if n <= SMALL:
            q1, r = kept
            constants = dict(a=a, b=b, p=p)
            _launch(_small_backward, (batch,), x, dw, q1, r, stats, dx, d, n, **constants)
            return dx
        (q,) = kept
        s = len(a)
        c, r = torch.empty_like(w), x.new_empty(batch, p, p)
        _launch(_centre, (batch,), x, c, stats, d, n, p, block_n=triton.next_power_of_2(p))
        _square(q, s, r, a, b, c0)
        # g, then the gradients of Q_s, ..., Q_1: each is made of those before it.
        bars = x.new_empty(batch, s + 1, p, p)
        _launch(_gram, _upper(batch, p), c, dw, stats, bars, d, p, bars.stride(0))
        parts = x.new_empty(batch, _triangle(p, TUNED['step']['block']))
        for j in range(s, 0, -1):
            made = s + 1 - j
            left, right, out = bars[:, made - 1], q[:, j - 1], bars[:, made]
            coefficients = dict(a=a[j - 1], b=tuple(row[j - 1] for row in reversed(b[j - 1 :])))
            last = (r, parts) if j == 1 else (None, None)
            _step_launch(left, right, bars, out, *last, **coefficients, c0=0.0)
        _launch(
            _grad_input,
            _tiles(batch, d, p),
            *(c, dw, r, bars[:, s], parts, stats, dx),
            *(d, n, p, bars.stride(0), parts.shape[1]),
            block_parts=triton.next_power_of_2(parts.shape[1]),
        )
    return dx


def _square(q, j, out, a, b, c0=0.0):
    """The j-th step of the circuit, from Q_1 ... Q_j."""
    _step_launch(q[:, j - 1], None, q, out, None, None, a=a[j - 1], b=b[j - 1], c0=c0)


def _step_launch(left, right, stack, out, r, parts, **coefficients):
    p = out.shape[2]
    strides = (m.stride(0) if m is not None else 0 for m in (left, right, stack, out))
    args = left, right, stack, out, r, parts, p, *strides
    _launch(_step, _upper(len(out), p), *args, **coefficients)


def _launch(kernel, grid, *args, **constants):
    tuned = TUNED[kernel.__name__.lstrip('_')]
    kernel[grid](*args, **(tuned | constants), precision=PRECISION)


def _upper(batch, extent):
    """Grid over the tiles of the upper triangle."""
    return lambda meta: (batch * _triangle(extent, meta['block']),)


def _tiles(batch, d, p):
    """Grid over the tiles of D x P matrices."""
    return lambda meta: (batch * triton.cdiv(d, meta['block_d']) * triton.cdiv(p, meta['block_p']),)


def _triangle(extent, tile):
    side = triton.cdiv(extent, tile)
    return side * (side + 1) // 2


# What follows runs on the device. Offsets within an image are int32, those of the image int64.


@triton.jit
def _load(m, rows, cols, height, width):
    """Tile of the contiguous matrix `m`, zero outside."""
    mask = (rows < height)[:, None] & (cols < width)[None, :]
    return tl.load(m + rows[:, None] * width + cols[None, :], mask, 0.0)


@triton.jit
def _store(m, rows, cols, height, width, value):
    mask = (rows < height)[:, None] & (cols < width)[None, :]
    tl.store(m + rows[:, None] * width + cols[None, :], value, mask)


@triton.jit
def _load_rows(x, rows, cols, d, n):
    """Whole rows less their means: a tile of Xh / s."""
    mask = (rows < d)[:, None] & (cols < n)[None, :]
    values = tl.load(x + rows[:, None] * n + cols[None, :], mask, 0.0)
    # Less the first element, since a sum over n is rounded: constant rows shall give zeros.
    first = tl.load(x + rows * n, rows < d, 0.0)
    values = tl.where(mask, values - first[:, None], 0.0)
    return tl.where(mask, values - (tl.sum(values, 1) / n)[:, None], 0.0)


@triton.jit
def _scales(square_sum, n):
    """s and tau^(1/4)."""
    tau = square_sum / n
    vanishing = tau < 1.1754943508222875e-38
    s = tl.div_rn(1.0, tl.sqrt_rn(tl.where(vanishing, 1.0, square_sum)))
    return tl.where(vanishing, 0.0, s), tl.sqrt_rn(tl.sqrt_rn(tau))


@triton.jit
def _upper_tile(extent, block: tl.constexpr):
    """Image, row and column of the program's tile; column by column, rows up to the diagonal."""
    side = tl.cdiv(extent, block)
    count = side * (side + 1) // 2
    pid = tl.program_id(0)
    t = pid % count
    # 2 and not 1, lest an approximate square root fall short of the integer.
    j = ((tl.sqrt(8.0 * t + 2) - 1) / 2).to(tl.int32)
    return (pid // count).to(tl.int64), t - j * (j + 1) // 2, j


@triton.jit
def _tile(height, width, block_h: tl.constexpr, block_w: tl.constexpr):
    """Image, row and column of the program's tile."""
    across = tl.cdiv(width, block_w)
    count = tl.cdiv(height, block_h) * across
    pid = tl.program_id(0)
    t = pid % count
    return (pid // count).to(tl.int64), t // across, t % across


@triton.jit
def _row_start(rows, d):
    """Where column 0 of each row would stand in the packed triangle."""
    return rows * d - rows * (rows + 1) // 2


@triton.jit
def _combine(m, a: tl.constexpr, b: tl.constexpr, q, j: tl.constexpr):
    """a_j M + sum_i b_{j,i} Q_i, with indices from 0."""
    total = m * a[j]
    for i in tl.static_range(j + 1):
        total += q[i] * b[j][i]
    return total


@triton.jit
def _squarings(q1, a: tl.constexpr, b: tl.constexpr, precision: tl.constexpr):
    """Q_1, ..., Q_s."""
    q = (q1,)
    for j in tl.static_range(len(a) - 1):
        squared = tl.dot(q[j], q[j], input_precision=precision)
        q = q + (_combine(squared, a, b, q, j),)  # noqa: RUF005
    return q


@triton.jit
def _small_forward(
    x,
    w,
    q1,
    r,
    stats,
    d,
    n,
    a: tl.constexpr,
    b: tl.constexpr,
    c0: tl.constexpr,
    p: tl.constexpr,
    block_d: tl.constexpr,
    precision: tl.constexpr,
):
    """W, Q_1, r, s and tau^(1/4) of one image."""
    image = tl.program_id(0).to(tl.int64)
    x += image * d * n
    w += image * d * p
    cols = tl.arange(0, p)
    square = cols[:, None] * p + cols[None, :]
    gram = tl.zeros((p, p), tl.float32)
    square_sum = tl.zeros((block_d,), tl.float32)
    for start in range(0, d, block_d):
        c = _load_rows(x, start + tl.arange(0, block_d), cols, d, n)
        square_sum += tl.sum(c * c, 1)
        gram = tl.dot(tl.trans(c), c, gram, input_precision=precision)
    s, root = _scales(tl.sum(square_sum, 0), n)
    tl.store(stats + 2 * image, s)
    tl.store(stats + 2 * image + 1, root)
    gram *= s * s
    tl.store(q1 + image * p * p + square, gram)
    q = _squarings(gram, a, b, precision)
    squared = tl.dot(q[len(a) - 1], q[len(a) - 1], input_precision=precision)
    value = _combine(squared, a, b, q, len(a) - 1)
    value += tl.where(cols[:, None] == cols[None, :], c0, 0.0)
    tl.store(r + image * p * p + square, value)
    for start in range(0, d, block_d):
        rows = start + tl.arange(0, block_d)
        c = _load_rows(x, rows, cols, d, n)
        tile = tl.dot(c, value, input_precision=precision) * (s * root)
        _store(w, rows, cols, d, p, tile)


@triton.jit
def _small_backward(
    x,
    dw,
    q1,
    r,
    stats,
    dx,
    d,
    n,
    a: tl.constexpr,
    b: tl.constexpr,
    p: tl.constexpr,
    block_d: tl.constexpr,
    precision: tl.constexpr,
):
    """Gradient of one image's features from that of W / tau^(1/4)."""
    image = tl.program_id(0).to(tl.int64)
    x += image * d * n
    dx += image * d * n
    dw += image * d * p
    cols = tl.arange(0, p)
    square = cols[:, None] * p + cols[None, :]
    s = tl.load(stats + 2 * image)
    m = tl.zeros((p, p), tl.float32)
    for start in range(0, d, block_d):
        rows = start + tl.arange(0, block_d)
        c = _load_rows(x, rows, cols, d, n)
        m = tl.dot(tl.trans(c), _load(dw, rows, cols, d, p), m, input_precision=precision)
    bar = (m + tl.trans(m)) * (s / 2)
    value = tl.load(r + image * p * p + square)
    t = tl.sum(value * bar) / -2
    q = _squarings(tl.load(q1 + image * p * p + square), a, b, precision)
    bars = (bar,)  # the gradients of Q_{j+1}, ..., Q_{s+1} = r
    for j in tl.static_range(len(a) - 1, -1, -1):
        # Q_j on the left: as a right operand it would occupy shared memory since its making.
        m = tl.dot(q[j], bars[0], input_precision=precision)
        bar = (m + tl.trans(m)) * a[j]
        for i in tl.static_range(len(a) - j):
            bar += bars[i] * b[j + i][j]
        bars = (bar,) + bars  # noqa: RUF005
    t -= 2 * tl.sum(q[0] * bar)
    # Xh = s c, and dX = s dXh
    inner = (2 * s) * bar + tl.where(cols[:, None] == cols[None, :], s * t, 0.0)
    for start in range(0, d, block_d):
        rows = start + tl.arange(0, block_d)
        tile = tl.dot(_load(dw, rows, cols, d, p), value, input_precision=precision)
        c = _load_rows(x, rows, cols, d, n)
        tile = tl.dot(c, inner, tile, input_precision=precision)
        _store(dx, rows, cols, d, n, tile * s)


@triton.jit
def _centre(
    x,
    c,
    stats,
    d,
    n,
    p,
    block_n: tl.constexpr,
    block_d: tl.constexpr,
    precision: tl.constexpr,
):
    """C = Xh / s of one image, padded to rows that start at multiples of 64 bytes; s, tau^(1/4)."""
    image = tl.program_id(0).to(tl.int64)
    x += image * d * n
    c += image * d * p
    cols = tl.arange(0, block_n)
    square_sum = tl.zeros((block_d,), tl.float32)
    for start in range(0, d, block_d):
        rows = start + tl.arange(0, block_d)
        centred = _load_rows(x, rows, cols, d, n)
        _store(c, rows, cols, d, p, centred)
        square_sum += tl.sum(centred * centred, 1)
    s, root = _scales(tl.sum(square_sum, 0), n)
    tl.store(stats + 2 * image, s)
    tl.store(stats + 2 * image + 1, root)


@triton.jit
def _gram(
    c,
    v,
    stats,
    out,
    d,
    p,
    out_stride,
    block: tl.constexpr,
    block_k: tl.constexpr,
    precision: tl.constexpr,
):
    """Xh^T Xh or, given V, the symmetric part of Xh^T V."""
    image, i, j = _upper_tile(p, block)
    c += image * d * p
    s = tl.load(stats + 2 * image)
    rows, cols = i * block + tl.arange(0, block), j * block + tl.arange(0, block)
    acc = tl.zeros((block, block), tl.float32)
    for k in range(0, d, block_k):
        ks = k + tl.arange(0, block_k)
        ci, cj = _load(c, ks, rows, d, p), _load(c, ks, cols, d, p)
        if v is None:
            acc = tl.dot(tl.trans(ci), cj, acc, input_precision=precision)
        else:
            vi = _load(v + image * d * p, ks, rows, d, p)
            vj = _load(v + image * d * p, ks, cols, d, p)
            acc = tl.dot(tl.trans(ci), vj, acc, input_precision=precision)
            acc = tl.dot(tl.trans(vi), cj, acc, input_precision=precision)
    acc *= s * s if v is None else s / 2
    _store_twice(out + image * out_stride, i, j, rows, cols, p, acc)


@triton.jit
def _step(
    left,
    right,
    stack,
    out,
    r,
    parts,
    p,
    left_stride,
    right_stride,
    stack_stride,
    out_stride,
    a: tl.constexpr,
    b: tl.constexpr,
    c0: tl.constexpr,
    block: tl.constexpr,
    block_k: tl.constexpr,
    precision: tl.constexpr,
):
    """a L^2 + sum_i b_i Q_i + c_0 I or, given R, a (L R + R L) + sum_i b_i Q_i + c_0 I.

    Given r too, L R being the product of Qbar_2 and Q_1, the tile's share of t.
    """
    image, i, j = _upper_tile(p, block)
    left += image * left_stride
    stack += image * stack_stride
    rows, cols = i * block + tl.arange(0, block), j * block + tl.arange(0, block)
    acc = tl.zeros((block, block), tl.float32)
    for k in range(0, p, block_k):
        ks = k + tl.arange(0, block_k)
        # Rows also where columns are meant: all is symmetric.
        li = _load(left, rows, ks, p, p)
        lj = _load(left, cols, ks, p, p)
        if right is None:
            acc = tl.dot(li, tl.trans(lj), acc, input_precision=precision)
        else:
            ri = _load(right + image * right_stride, rows, ks, p, p)
            rj = _load(right + image * right_stride, cols, ks, p, p)
            acc = tl.dot(li, tl.trans(rj), acc, input_precision=precision)
            acc = tl.dot(ri, tl.trans(lj), acc, input_precision=precision)
    acc *= a
    for m in tl.static_range(len(b)):
        acc += _load(stack + m * p * p, rows, cols, p, p) * b[m]
    if c0 != 0:
        acc += tl.where(rows[:, None] == cols[None, :], c0, 0.0)
    _store_twice(out + image * out_stride, i, j, rows, cols, p, acc)
    if r is not None:
        g = _load(stack, rows, cols, p, p)
        part = tl.sum(g * _load(r + image * p * p, rows, cols, p, p)) / 2
        part += tl.sum(acc * _load(right + image * right_stride, rows, cols, p, p)) * 2
        side = tl.cdiv(p, block)
        place = image * (side * (side + 1) // 2) + j * (j + 1) // 2 + i
        tl.store(parts + place, tl.where(i < j, -2 * part, -part))


@triton.jit
def _store_twice(out, i, j, rows, cols, p, value):
    """Tile (i, j) of a symmetric matrix, and tile (j, i)."""
    _store(out, rows, cols, p, p, value)
    if i < j:
        _store(out, cols, rows, p, p, tl.trans(value))


@triton.jit
def _features(
    c,
    r,
    stats,
    w,
    d,
    p,
    block_d: tl.constexpr,
    block_p: tl.constexpr,
    block_k: tl.constexpr,
    precision: tl.constexpr,
):
    """W = tau^(1/4) Xh r."""
    image, i, j = _tile(d, p, block_d, block_p)
    c += image * d * p
    r += image * p * p
    s, root = tl.load(stats + 2 * image), tl.load(stats + 2 * image + 1)
    rows, cols = i * block_d + tl.arange(0, block_d), j * block_p + tl.arange(0, block_p)
    acc = tl.zeros((block_d, block_p), tl.float32)
    for k in range(0, p, block_k):
        ks = k + tl.arange(0, block_k)
        rk = tl.trans(_load(r, cols, ks, p, p))
        acc = tl.dot(_load(c, rows, ks, d, p), rk, acc, input_precision=precision)
    _store(w + image * d * p, rows, cols, d, p, acc * (s * root))


@triton.jit
def _outer(w, out, d, p, block: tl.constexpr, block_k: tl.constexpr, precision: tl.constexpr):
    """Packed upper triangle of W W^T."""
    image, i, j = _upper_tile(d, block)
    w += image * d * p
    rows, cols = i * block + tl.arange(0, block), j * block + tl.arange(0, block)
    acc = tl.zeros((block, block), tl.float32)
    for k in range(0, p, block_k):
        ks = k + tl.arange(0, block_k)
        wi, wj = _load(w, rows, ks, d, p), _load(w, cols, ks, d, p)
        acc = tl.dot(wi, tl.trans(wj), acc, input_precision=precision)
    upper = (rows[:, None] <= cols[None, :]) & (cols < d)[None, :]
    out += image * (d * (d + 1) // 2)
    tl.store(out + _row_start(rows, d)[:, None] + cols[None, :], acc, upper)


@triton.jit
def _grad_features(
    grad,
    w,
    stats,
    dw,
    d,
    p,
    block_d: tl.constexpr,
    block_p: tl.constexpr,
    precision: tl.constexpr,
):
    """tau^(1/4) (U + U^T) W for the packed upper triangle U: the gradient of W / tau^(1/4)."""
    image, i, j = _tile(d, p, block_d, block_p)
    grad += image * (d * (d + 1) // 2)
    w += image * d * p
    rows, cols = i * block_d + tl.arange(0, block_d), j * block_p + tl.arange(0, block_p)
    u = _load_packed(grad, rows, rows, d)
    acc = tl.dot(u + tl.trans(u), _load(w, rows, cols, d, p), input_precision=precision)
    for k in range(0, i):
        ks = k * block_d + tl.arange(0, block_d)
        u = tl.trans(_load_packed(grad, ks, rows, d))
        acc = tl.dot(u, _load(w, ks, cols, d, p), acc, input_precision=precision)
    for k in range(i + 1, tl.cdiv(d, block_d)):
        ks = k * block_d + tl.arange(0, block_d)
        u = _load_packed(grad, rows, ks, d)
        acc = tl.dot(u, _load(w, ks, cols, d, p), acc, input_precision=precision)
    _store(dw + image * d * p, rows, cols, d, p, acc * tl.load(stats + 2 * image + 1))


@triton.jit
def _load_packed(u, rows, cols, d):
    """Tile of a packed upper triangle, zero below the diagonal."""
    upper = (rows[:, None] <= cols[None, :]) & (cols < d)[None, :]
    return tl.load(u + _row_start(rows, d)[:, None] + cols[None, :], upper, 0.0)


@triton.jit
def _grad_input(
    c,
    dw,
    r,
    bar,
    parts,
    stats,
    dx,
    d,
    n,
    p,
    bar_stride,
    count,
    block_parts: tl.constexpr,
    block_d: tl.constexpr,
    block_p: tl.constexpr,
    block_k: tl.constexpr,
    precision: tl.constexpr,
):
    """s (dW r + 2 Xh Qbar_1 + t Xh), t the sum of `parts`."""
    image, i, j = _tile(d, p, block_d, block_p)
    c += image * d * p
    dw += image * d * p
    r += image * p * p
    bar += image * bar_stride
    s = tl.load(stats + 2 * image)
    rows, cols = i * block_d + tl.arange(0, block_d), j * block_p + tl.arange(0, block_p)
    acc = tl.zeros((block_d, block_p), tl.float32)
    for k in range(0, p, block_k):
        ks = k + tl.arange(0, block_k)
        bk = tl.trans(_load(bar, cols, ks, p, p)) * (2 * s)
        acc = tl.dot(_load(c, rows, ks, d, p), bk, acc, input_precision=precision)
        rk = tl.trans(_load(r, cols, ks, p, p))
        acc = tl.dot(_load(dw, rows, ks, d, p), rk, acc, input_precision=precision)
    places = tl.arange(0, block_parts)
    t = tl.sum(tl.load(parts + image * count + places, places < count, 0.0))
    acc += (t * s) * _load(c, rows, cols, d, p)
    _store(dx + image * d * n, rows, cols, d, n, acc * s)
