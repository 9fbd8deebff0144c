"""Tiles of matrices, for the Triton kernels of the pooling by a circuit.

Matrices are contiguous, float32. Offsets within an image are int32, those of the image int64.
"""

import triton
import triton.language as tl

PRECISION = tl.constexpr('tf32x3')  # three TF32 products replace one of float32


@triton.jit
def load(m, rows, cols, height, width):
    """Tile of the contiguous matrix `m`, zero outside."""
    mask = (rows < height)[:, None] & (cols < width)[None, :]
    return tl.load(m + rows[:, None] * width + cols[None, :], mask, 0.0)


@triton.jit
def store(m, rows, cols, height, width, value):
    mask = (rows < height)[:, None] & (cols < width)[None, :]
    tl.store(m + rows[:, None] * width + cols[None, :], value, mask)


@triton.jit
def load_rows(x, rows, cols, d, n):
    """Whole rows less their means: a tile of Xh / s."""
    mask = (rows < d)[:, None] & (cols < n)[None, :]
    values = tl.load(x + rows[:, None] * n + cols[None, :], mask, 0.0)
    # Less the first element, since a sum over n is rounded: constant rows shall give zeros.
    first = tl.load(x + rows * n, rows < d, 0.0)
    values = tl.where(mask, values - first[:, None], 0.0)
    return tl.where(mask, values - (tl.sum(values, 1) / n)[:, None], 0.0)


@triton.jit
def load_packed(u, rows, cols, d):
    """Tile of a packed upper triangle, zero below the diagonal."""
    upper = (rows[:, None] <= cols[None, :]) & (cols < d)[None, :]
    return tl.load(u + row_start(rows, d)[:, None] + cols[None, :], upper, 0.0)


@triton.jit
def store_twice(out, i, j, rows, cols, p, value):
    """Tile (i, j) of a symmetric matrix, and tile (j, i)."""
    store(out, rows, cols, p, p, value)
    if i < j:
        store(out, cols, rows, p, p, tl.trans(value))


@triton.jit
def row_start(rows, d):
    """Where column 0 of each row would stand in the packed triangle."""
    return rows * d - rows * (rows + 1) // 2


@triton.jit
def scales(square_sum, n):
    """s and tau^(1/4)."""
    tau = square_sum / n
    vanishing = tau < 1.1754943508222875e-38
    s = tl.div_rn(1.0, tl.sqrt_rn(tl.where(vanishing, 1.0, square_sum)))
    return tl.where(vanishing, 0.0, s), tl.sqrt_rn(tl.sqrt_rn(tau))


@triton.jit
def upper_tile(extent, block: tl.constexpr):
    """Image, row and column of the program's tile; column by column, rows up to the diagonal."""
    side = tl.cdiv(extent, block)
    count = side * (side + 1) // 2
    pid = tl.program_id(0)
    t = pid % count
    # 2 and not 1, lest an approximate square root fall short of the integer.
    j = ((tl.sqrt(8.0 * t + 2) - 1) / 2).to(tl.int32)
    return (pid // count).to(tl.int64), t - j * (j + 1) // 2, j


@triton.jit
def tile(height, width, block_h: tl.constexpr, block_w: tl.constexpr):
    """Image, row and column of the program's tile."""
    across = tl.cdiv(width, block_w)
    count = tl.cdiv(height, block_h) * across
    pid = tl.program_id(0)
    t = pid % count
    return (pid // count).to(tl.int64), t // across, t % across
