"""Kernels in Triton for the pooling by a circuit; :mod:`.triton_circuit` launches them.

Names are those of :mod:`.triton_circuit`. Matrices are contiguous, float32; offsets within an
image are int32, those of the image int64.
"""

import triton
import triton.language as tl

PRECISION = tl.constexpr('tf32x3')  # three TF32 products replace one of float32


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
def _squarings(q1, a: tl.constexpr, b: tl.constexpr):
    """Q_1, ..., Q_s."""
    q = (q1,)
    for j in tl.static_range(len(a) - 1):
        squared = tl.dot(q[j], q[j], input_precision=PRECISION)
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
        c = _load_rows(x, start + tl.arange(0, block_d), cols, d, n)
        square_sum += tl.sum(c * c, 1)
        gram = tl.dot(tl.trans(c), c, gram, input_precision=PRECISION)
    s, root = _scales(tl.sum(square_sum, 0), n)
    tl.store(stats + 2 * image, s)
    tl.store(stats + 2 * image + 1, root)
    gram *= s * s
    tl.store(q1 + image * p * p + square, gram)
    q = _squarings(gram, a, b)
    squared = tl.dot(q[len(a) - 1], q[len(a) - 1], input_precision=PRECISION)
    value = _combine(squared, a, b, q, len(a) - 1)
    value += tl.where(cols[:, None] == cols[None, :], c0, 0.0)
    tl.store(r + image * p * p + square, value)
    for start in range(0, d, block_d):
        rows = start + tl.arange(0, block_d)
        c = _load_rows(x, rows, cols, d, n)
        tile = tl.dot(c, value, input_precision=PRECISION) * (s * root)
        _store(w, rows, cols, d, p, tile)


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
        c = _load_rows(x, rows, cols, d, n)
        m = tl.dot(tl.trans(c), _load(dw, rows, cols, d, p), m, input_precision=PRECISION)
    bar = (m + tl.trans(m)) * (s / 2)
    value = tl.load(r + image * p * p + square)
    t = tl.sum(value * bar) / -2
    q = _squarings(tl.load(q1 + image * p * p + square), a, b)
    bars = (bar,)  # the gradients of Q_{j+1}, ..., Q_{s+1} = r
    for j in tl.static_range(len(a) - 1, -1, -1):
        # Q_j on the left: as a right operand it would occupy shared memory since its making.
        m = tl.dot(q[j], bars[0], input_precision=PRECISION)
        bar = (m + tl.trans(m)) * a[j]
        for i in tl.static_range(len(a) - j):
            bar += bars[i] * b[j + i][j]
        bars = (bar,) + bars  # noqa: RUF005
    t -= 2 * tl.sum(q[0] * bar)
    # Xh = s c, and dX = s dXh
    inner = (2 * s) * bar + tl.where(cols[:, None] == cols[None, :], s * t, 0.0)
    for start in range(0, d, block_d):
        rows = start + tl.arange(0, block_d)
        tile = tl.dot(_load(dw, rows, cols, d, p), value, input_precision=PRECISION)
        c = _load_rows(x, rows, cols, d, n)
        tile = tl.dot(c, inner, tile, input_precision=PRECISION)
        _store(dx, rows, cols, d, n, tile * s)


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
        centered = _load_rows(x, rows, cols, d, n)
        _store(c, rows, cols, d, p, centered)
        square_sum += tl.sum(centered * centered, 1)
    s, root = _scales(tl.sum(square_sum, 0), n)
    tl.store(stats + 2 * image, s)
    tl.store(stats + 2 * image + 1, root)


@triton.jit
def gram_matrix(c, v, stats, out, d, p, out_stride, block: tl.constexpr, block_k: tl.constexpr):
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
            acc = tl.dot(tl.trans(ci), cj, acc, input_precision=PRECISION)
        else:
            vi = _load(v + image * d * p, ks, rows, d, p)
            vj = _load(v + image * d * p, ks, cols, d, p)
            acc = tl.dot(tl.trans(ci), vj, acc, input_precision=PRECISION)
            acc = tl.dot(tl.trans(vi), cj, acc, input_precision=PRECISION)
    acc *= s * s if v is None else s / 2
    _store_twice(out + image * out_stride, i, j, rows, cols, p, acc)


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
            acc = tl.dot(li, tl.trans(lj), acc, input_precision=PRECISION)
        else:
            ri = _load(right + image * right_stride, rows, ks, p, p)
            rj = _load(right + image * right_stride, cols, ks, p, p)
            acc = tl.dot(li, tl.trans(rj), acc, input_precision=PRECISION)
            acc = tl.dot(ri, tl.trans(lj), acc, input_precision=PRECISION)
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
def features(
    c, r, stats, w, d, p, block_d: tl.constexpr, block_p: tl.constexpr, block_k: tl.constexpr
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
        acc = tl.dot(_load(c, rows, ks, d, p), rk, acc, input_precision=PRECISION)
    _store(w + image * d * p, rows, cols, d, p, acc * (s * root))


@triton.jit
def outer(w, out, d, p, block: tl.constexpr, block_k: tl.constexpr):
    """Packed upper triangle of W W^T."""
    image, i, j = _upper_tile(d, block)
    w += image * d * p
    rows, cols = i * block + tl.arange(0, block), j * block + tl.arange(0, block)
    acc = tl.zeros((block, block), tl.float32)
    for k in range(0, p, block_k):
        ks = k + tl.arange(0, block_k)
        wi, wj = _load(w, rows, ks, d, p), _load(w, cols, ks, d, p)
        acc = tl.dot(wi, tl.trans(wj), acc, input_precision=PRECISION)
    upper = (rows[:, None] <= cols[None, :]) & (cols < d)[None, :]
    out += image * (d * (d + 1) // 2)
    tl.store(out + _row_start(rows, d)[:, None] + cols[None, :], acc, upper)


@triton.jit
def grad_features(grad, w, stats, dw, d, p, block_d: tl.constexpr, block_p: tl.constexpr):
    """tau^(1/4) (U + U^T) W for the packed upper triangle U: the gradient of W / tau^(1/4)."""
    image, i, j = _tile(d, p, block_d, block_p)
    grad += image * (d * (d + 1) // 2)
    w += image * d * p
    rows, cols = i * block_d + tl.arange(0, block_d), j * block_p + tl.arange(0, block_p)
    u = _load_packed(grad, rows, rows, d)
    acc = tl.dot(u + tl.trans(u), _load(w, rows, cols, d, p), input_precision=PRECISION)
    for k in range(0, i):
        ks = k * block_d + tl.arange(0, block_d)
        u = tl.trans(_load_packed(grad, ks, rows, d))
        acc = tl.dot(u, _load(w, ks, cols, d, p), acc, input_precision=PRECISION)
    for k in range(i + 1, tl.cdiv(d, block_d)):
        ks = k * block_d + tl.arange(0, block_d)
        u = _load_packed(grad, rows, ks, d)
        acc = tl.dot(u, _load(w, ks, cols, d, p), acc, input_precision=PRECISION)
    _store(dw + image * d * p, rows, cols, d, p, acc * tl.load(stats + 2 * image + 1))


@triton.jit
def _load_packed(u, rows, cols, d):
    """Tile of a packed upper triangle, zero below the diagonal."""
    upper = (rows[:, None] <= cols[None, :]) & (cols < d)[None, :]
    return tl.load(u + _row_start(rows, d)[:, None] + cols[None, :], upper, 0.0)


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
        acc = tl.dot(_load(c, rows, ks, d, p), bk, acc, input_precision=PRECISION)
        rk = tl.trans(_load(r, cols, ks, p, p))
        acc = tl.dot(_load(dw, rows, ks, d, p), rk, acc, input_precision=PRECISION)
    places = tl.arange(0, block_parts)
    t = tl.sum(tl.load(parts + image * count + places, places < count, 0.0))
    acc += (t * s) * _load(c, rows, cols, d, p)
    _store(dx + image * d * n, rows, cols, d, n, acc * s)
