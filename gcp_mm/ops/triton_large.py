"""Triton kernels for many positions: one program makes one tile of one matrix.

Names are those of :mod:`.triton_circuit`, which launches them.
"""

import triton
import triton.language as tl

from . import triton_tiles as tiles


@triton.jit
def center(x, c, stats, d, n, p, block_n: tl.constexpr, block_d: tl.constexpr):
    """C = Xh / s of one image, padded to rows that start at multiples of 64 bytes; s, tau^(1/4)."""
    image = tl.program_id(0).to(tl.int64)
    x += image * d * n
    c += image * d * p
    cols = tl.arange(0, block_n)
    square_sum = tl.zeros((block_d,), tl.float32)
    for start in range(0, d, block_d):
        rows = start + tl.arange(0, block_d)
        centered = tiles.load_rows(x, rows, cols, d, n)
        tiles.store(c, rows, cols, d, p, centered)
        square_sum += tl.sum(centered * centered, 1)
    s, root = tiles.scales(tl.sum(square_sum, 0), n)
    tl.store(stats + 2 * image, s)
    tl.store(stats + 2 * image + 1, root)


@triton.jit
def gram_matrix(c, v, stats, out, d, p, out_stride, block: tl.constexpr, block_k: tl.constexpr):
    """Xh^T Xh or, given V, the symmetric part of Xh^T V."""
    image, i, j = tiles.upper_tile(p, block)
    c += image * d * p
    s = tl.load(stats + 2 * image)
    rows, cols = i * block + tl.arange(0, block), j * block + tl.arange(0, block)
    acc = tl.zeros((block, block), tl.float32)
    for k in range(0, d, block_k):
        ks = k + tl.arange(0, block_k)
        ci, cj = tiles.load(c, ks, rows, d, p), tiles.load(c, ks, cols, d, p)
        if v is None:
            acc = tl.dot(tl.trans(ci), cj, acc, input_precision=tiles.PRECISION)
        else:
            vi = tiles.load(v + image * d * p, ks, rows, d, p)
            vj = tiles.load(v + image * d * p, ks, cols, d, p)
            acc = tl.dot(tl.trans(ci), vj, acc, input_precision=tiles.PRECISION)
            acc = tl.dot(tl.trans(vi), cj, acc, input_precision=tiles.PRECISION)
    acc *= s * s if v is None else s / 2
    tiles.store_twice(out + image * out_stride, i, j, rows, cols, p, acc)


@triton.jit
def step(
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
):
    """a L^2 + sum_i b_i Q_i + c_0 I or, given R, a (L R + R L) + sum_i b_i Q_i + c_0 I.

    Given r too, L R being the product of Qbar_2 and Q_1, the tile's share of t.
    """
    image, i, j = tiles.upper_tile(p, block)
    left += image * left_stride
    stack += image * stack_stride
    rows, cols = i * block + tl.arange(0, block), j * block + tl.arange(0, block)
    acc = tl.zeros((block, block), tl.float32)
    for k in range(0, p, block_k):
        ks = k + tl.arange(0, block_k)
        # Rows also where columns are meant: all is symmetric.
        li = tiles.load(left, rows, ks, p, p)
        lj = tiles.load(left, cols, ks, p, p)
        if right is None:
            acc = tl.dot(li, tl.trans(lj), acc, input_precision=tiles.PRECISION)
        else:
            ri = tiles.load(right + image * right_stride, rows, ks, p, p)
            rj = tiles.load(right + image * right_stride, cols, ks, p, p)
            acc = tl.dot(li, tl.trans(rj), acc, input_precision=tiles.PRECISION)
            acc = tl.dot(ri, tl.trans(lj), acc, input_precision=tiles.PRECISION)
    acc *= a
    for m in tl.static_range(len(b)):
        acc += tiles.load(stack + m * p * p, rows, cols, p, p) * b[m]
    if c0 != 0:
        acc += tl.where(rows[:, None] == cols[None, :], c0, 0.0)
    tiles.store_twice(out + image * out_stride, i, j, rows, cols, p, acc)
    if r is not None:
        g = tiles.load(stack, rows, cols, p, p)
        part = tl.sum(g * tiles.load(r + image * p * p, rows, cols, p, p)) / 2
        part += tl.sum(acc * tiles.load(right + image * right_stride, rows, cols, p, p)) * 2
        side = tl.cdiv(p, block)
        place = image * (side * (side + 1) // 2) + j * (j + 1) // 2 + i
        tl.store(parts + place, tl.where(i < j, -2 * part, -part))


@triton.jit
def features(
    c, r, stats, w, d, p, block_d: tl.constexpr, block_p: tl.constexpr, block_k: tl.constexpr
):
    """W = tau^(1/4) Xh r."""
    image, i, j = tiles.tile(d, p, block_d, block_p)
    c += image * d * p
    r += image * p * p
    s, root = tl.load(stats + 2 * image), tl.load(stats + 2 * image + 1)
    rows, cols = i * block_d + tl.arange(0, block_d), j * block_p + tl.arange(0, block_p)
    acc = tl.zeros((block_d, block_p), tl.float32)
    for k in range(0, p, block_k):
        ks = k + tl.arange(0, block_k)
        rk = tl.trans(tiles.load(r, cols, ks, p, p))
        acc = tl.dot(tiles.load(c, rows, ks, d, p), rk, acc, input_precision=tiles.PRECISION)
    tiles.store(w + image * d * p, rows, cols, d, p, acc * (s * root))


@triton.jit
def outer(w, out, d, p, block: tl.constexpr, block_k: tl.constexpr):
    """Packed upper triangle of W W^T."""
    image, i, j = tiles.upper_tile(d, block)
    w += image * d * p
    rows, cols = i * block + tl.arange(0, block), j * block + tl.arange(0, block)
    acc = tl.zeros((block, block), tl.float32)
    for k in range(0, p, block_k):
        ks = k + tl.arange(0, block_k)
        wi, wj = tiles.load(w, rows, ks, d, p), tiles.load(w, cols, ks, d, p)
        acc = tl.dot(wi, tl.trans(wj), acc, input_precision=tiles.PRECISION)
    upper = (rows[:, None] <= cols[None, :]) & (cols < d)[None, :]
    out += image * (d * (d + 1) // 2)
    tl.store(out + tiles.row_start(rows, d)[:, None] + cols[None, :], acc, upper)


@triton.jit
def grad_features(grad, w, stats, dw, d, p, block_d: tl.constexpr, block_p: tl.constexpr):
    """tau^(1/4) (U + U^T) W for the packed upper triangle U: the gradient of W / tau^(1/4)."""
    image, i, j = tiles.tile(d, p, block_d, block_p)
    grad += image * (d * (d + 1) // 2)
    w += image * d * p
    rows, cols = i * block_d + tl.arange(0, block_d), j * block_p + tl.arange(0, block_p)
    u = tiles.load_packed(grad, rows, rows, d)
    acc = tl.dot(u + tl.trans(u), tiles.load(w, rows, cols, d, p), input_precision=tiles.PRECISION)
    for k in range(0, i):
        ks = k * block_d + tl.arange(0, block_d)
        u = tl.trans(tiles.load_packed(grad, ks, rows, d))
        acc = tl.dot(u, tiles.load(w, ks, cols, d, p), acc, input_precision=tiles.PRECISION)
    for k in range(i + 1, tl.cdiv(d, block_d)):
        ks = k * block_d + tl.arange(0, block_d)
        u = tiles.load_packed(grad, rows, ks, d)
        acc = tl.dot(u, tiles.load(w, ks, cols, d, p), acc, input_precision=tiles.PRECISION)
    tiles.store(dw + image * d * p, rows, cols, d, p, acc * tl.load(stats + 2 * image + 1))


@triton.jit
def grad_input(
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
):
    """s (dW r + 2 Xh Qbar_1 + t Xh), t the sum of `parts`."""
    image, i, j = tiles.tile(d, p, block_d, block_p)
    c += image * d * p
    dw += image * d * p
    r += image * p * p
    bar += image * bar_stride
    s = tl.load(stats + 2 * image)
    rows, cols = i * block_d + tl.arange(0, block_d), j * block_p + tl.arange(0, block_p)
    acc = tl.zeros((block_d, block_p), tl.float32)
    for k in range(0, p, block_k):
        ks = k + tl.arange(0, block_k)
        bk = tl.trans(tiles.load(bar, cols, ks, p, p)) * (2 * s)
        acc = tl.dot(tiles.load(c, rows, ks, d, p), bk, acc, input_precision=tiles.PRECISION)
        rk = tl.trans(tiles.load(r, cols, ks, p, p))
        acc = tl.dot(tiles.load(dw, rows, ks, d, p), rk, acc, input_precision=tiles.PRECISION)
    places = tl.arange(0, block_parts)
    t = tl.sum(tl.load(parts + image * count + places, places < count, 0.0))
    acc += (t * s) * tiles.load(c, rows, cols, d, p)
    tiles.store(dx + image * d * n, rows, cols, d, n, acc * s)
