"""The textbook layer the benchmarks compare with: iSQRT-COV as it was published.

Li et al., Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix
Square Root Normalization, CVPR 2018, https://arxiv.org/abs/1712.01034, Algorithm 1 and eqs. (5) to
(11): the N x N centering matrix, the iterates Y_k and Z_k stored for the backward, 12 products of
D x D matrices forward and 38 backward, and a loop over the samples for the traces. Not for use.
"""

import torch
from torch.autograd import Function


def isqrt_cov(x, iterations=5):
    """Pool (B, D, N) float32 or float64 features to (B, D(D+1)/2); at least 2 iterations."""
    return _Triangle.apply(_MatrixSqrt.apply(_Covariance.apply(x), iterations))


class _Covariance(Function):
    @staticmethod
    def forward(ctx, x):
        b, _, n = x.shape
        eye = torch.eye(n, dtype=x.dtype, device=x.device)
        j = ((eye - 1 / n) / n).expand(b, n, n).contiguous()
        ctx.save_for_backward(x, j)
        return x @ j @ x.mT

    @staticmethod
    def backward(ctx, grad):
        x, j = ctx.saved_tensors
        return (grad + grad.mT) @ x @ j


class _MatrixSqrt(Function):
    @staticmethod
    def forward(ctx, sigma, iterations):
        b, d, _ = sigma.shape
        three = _three(sigma)
        trace = (sigma * three / 3).sum((1, 2))[:, None, None]
        a = sigma / trace
        y = sigma.new_zeros(b, iterations - 1, d, d)
        z = torch.zeros_like(y)
        t = (three - a) / 2
        y[:, 0], z[:, 0] = a @ t, t
        for k in range(1, iterations - 1):
            t = (three - z[:, k - 1] @ y[:, k - 1]) / 2
            y[:, k], z[:, k] = y[:, k - 1] @ t, t @ z[:, k - 1]
        root = y[:, -1] @ (three - z[:, -1] @ y[:, -1]) / 2
        ctx.save_for_backward(sigma, a, root, trace, y, z)
        return root * trace.sqrt()

    @staticmethod
    def backward(ctx, grad):
        sigma, a, root, trace, ys, zs = ctx.saved_tensors
        three = _three(sigma)
        g = grad * trace.sqrt()
        compensation = (grad * root).sum((1, 2)) / (2 * trace.sqrt().flatten())
        y, z = ys[:, -1], zs[:, -1]
        dy = (g @ (three - y @ z) - z @ y @ g) / 2
        dz = -(y @ g @ y) / 2
        for k in reversed(range(ys.shape[1] - 1)):
            y, z = ys[:, k], zs[:, k]
            yz, zy = three - y @ z, z @ y
            dy, dz = (
                (dy @ yz - z @ dz @ z - zy @ dy) / 2,
                (yz @ dz - y @ dy @ y - dz @ zy) / 2,
            )
        da = ((dy @ (three - a) - dz - a @ dy) / 2).mT
        dsigma = da / trace
        inner = (da * sigma).sum((1, 2))
        for i in range(len(sigma)):
            dsigma[i] += (compensation[i] - inner[i] / trace[i, 0, 0] ** 2) * three[i] / 3
        return dsigma, None


class _Triangle(Function):
    @staticmethod
    def forward(ctx, m):
        b, d, _ = m.shape
        index = torch.ones(d, d, device=m.device).triu().flatten().nonzero()
        ctx.save_for_backward(m, index)
        return m.reshape(b, d * d)[:, index].squeeze(-1)

    @staticmethod
    def backward(ctx, grad):
        m, index = ctx.saved_tensors
        out = grad.new_zeros(len(m), m[0].numel())
        out[:, index] = grad.unsqueeze(-1)
        return out.view_as(m)


def _three(m):
    return 3 * torch.eye(m.shape[-1], dtype=m.dtype, device=m.device).expand_as(m)
