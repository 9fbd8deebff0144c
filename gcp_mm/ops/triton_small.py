"""Triton kernels for few positions: one program keeps an image's matrices in registers.

Names are those of :mod:`.triton_circuit`, which launches them.
"""

import triton
import triton.language as tl

from . import triton_tiles as tiles


@triton.jit
def _combine(m, a: tl.constexpr, b: tl.constexpr, q, j: tl.constexpr):
    """a_j M + sum_i b_{j,i} Q_i, with indices from 0."""
    total = m * a[j]
    for i in tl.static_range(j + 1):
        total += q[i] * b[j][i]
    return total


@triton.jit
def _squarings(q1, a: tl.constexpr, b: tl.constexpr):
    """Q_1, ..., Q_s."""
    q = (q1,)
    for j in tl.static_range(len(a) - 1):
        squared = tl.dot(q[j], q[j], input_precision=tiles.PRECISION)
        q = q + (_combine(squared, a, b, q, j),)  # noqa: RUF005
    return q


@triton.jit
def small_forward(
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
        c = tiles.load_rows(x, start + tl.arange(0, block_d), cols, d, n)
        square_sum += tl.sum(c * c, 1)
        gram = tl.dot(tl.trans(c), c, gram, input_precision=tiles.PRECISION)
    s, root = tiles.scales(tl.sum(square_sum, 0), n)
    tl.store(stats + 2 * image, s)
    tl.store(stats + 2 * image + 1, root)
    gram *= s * s
    tl.store(q1 + image * p * p + square, gram)
    q = _squarings(gram, a, b)
    squared = tl.dot(q[len(a) - 1], q[len(a) - 1], input_precision=tiles.PRECISION)
    value = _combine(squared, a, b, q, len(a) - 1)
    value += tl.where(cols[:, None] == cols[None, :], c0, 0.0)
    tl.store(r + image * p * p + square, value)
    for start in range(0, d, block_d):
        rows = start + tl.arange(0, block_d)
        c = tiles.load_rows(x, rows, cols, d, n)
        tile = tl.dot(c, value, input_precision=tiles.PRECISION) * (s * root)
        tiles.store(w, rows, cols, d, p, tile)


@triton.jit
def small_backward(
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
        c = tiles.load_rows(x, rows, cols, d, n)
        m = tl.dot(
            tl.trans(c), tiles.load(dw, rows, cols, d, p), m, input_precision=tiles.PRECISION
        )
    bar = (m + tl.trans(m)) * (s / 2)
    value = tl.load(r + image * p * p + square)
    t = tl.sum(value * bar) / -2
    q = _squarings(tl.load(q1 + image * p * p + square), a, b)
    bars = (bar,)  # the gradients of Q_{j+1}, ..., Q_{s+1} = r
    for j in tl.static_range(len(a) - 1, -1, -1):
        # Q_j on the left: as a right operand it would occupy shared memory since its making.
        m = tl.dot(q[j], bars[0], input_precision=tiles.PRECISION)
        bar = (m + tl.trans(m)) * a[j]
        for i in tl.static_range(len(a) - j):
            bar += bars[i] * b[j + i][j]
        bars = (bar,) + bars  # noqa: RUF005
    t -= 2 * tl.sum(q[0] * bar)
    # Xh = s c, and dX = s dXh
    inner = (2 * s) * bar + tl.where(cols[:, None] == cols[None, :], s * t, 0.0)
    for start in range(0, d, block_d):
        rows = start + tl.arange(0, block_d)
        tile = tl.dot(tiles.load(dw, rows, cols, d, p), value, input_precision=tiles.PRECISION)
        c = tiles.load_rows(x, rows, cols, d, n)
        tile = tl.dot(c, inner, tile, input_precision=tiles.PRECISION)
        tiles.store(dx, rows, cols, d, n, tile * s)
