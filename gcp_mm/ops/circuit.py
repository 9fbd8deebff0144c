"""The Newton-Schulz pooling by a few symmetric squarings, forward and backward.

K steps of the iteration (see :mod:`.newton_schulz`) are a polynomial p of A = Sigma / tr(Sigma),
whose spectrum lies in [0, 1]. With x the centred features scaled so that A = x x^T:

- N >= D: p(A), on D x D matrices;
- N < D: p(x x^T) = x r(x^T x)^2 x^T with p(t) = t r(t)^2, on the smaller N x N Gram matrix.

p and r are evaluated by circuits, fitted by tools/fit_circuits.py::

    Q_1 = A;  Q_{j+1} = a_j Q_j^2 + sum_{i <= j} b_{j,i} Q_i;  value = c_0 I + sum_i c_i Q_i

Every product is the square of a symmetric matrix, so its adjoint is one product too: with M =
Qbar_{j+1} Q_j it is a_j (M + M^T). The 5-step iteration takes 5 or 6 squarings this way, where the
textbook takes 12 products forward and 38 backward.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import Function

from .precision import autocast_off
from .triangle import triu_vector, triu_vector_inverse


@dataclass(frozen=True)
class Circuit:
    """Coefficients of one circuit.

    Attributes:
        kind: 'covariance' for p, 'gram' for r.
        a: a_j of each squaring.
        b: b_{j,1} ... b_{j,j} of each squaring.
        c: c_0, then c_i of each Q_i.
        max_error: largest error of p on [0, 1], in exact arithmetic.
    """

    kind: str
    a: tuple[float, ...]
    b: tuple[tuple[float, ...], ...]
    c: tuple[float, ...]
    max_error: float

    def forward(self, q1: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Value at symmetric matrices, and all Q_j.

        Args:
            q1: (..., n, n), symmetric, spectrum in [0, 1].

        Returns:
            The value, (..., n, n), and [Q_1, ..., Q_{s+1}], each (..., n, n).
        """
        q = [q1]
        for a, b in zip(self.a, self.b, strict=True):
            q.append(torch.baddbmm(_combine(b, q), q[-1], q[-1], alpha=a))
        value = _combine(self.c[1:], q)
        if self.c[0]:
            value = value + self.c[0] * torch.eye(q1.shape[-1], dtype=q1.dtype, device=q1.device)
        return value, q

    def backward(self, grad: Tensor, q: list[Tensor]) -> Tensor:
        """Gradient with respect to Q_1.

        Args:
            grad: gradient of the value, (..., n, n), symmetric.
            q: all Q_j of the forward.

        Returns:
            (..., n, n), symmetric.
        """
        bars = [c * grad if c else None for c in self.c[1:]]
        for j in reversed(range(len(self.a))):
            bar = bars[j + 1]
            m = bar @ q[j]
            squared = (m + m.mT).mul_(self.a[j])
            bars[j] = squared if bars[j] is None else bars[j].add_(squared)
            for i, b in enumerate(self.b[j]):
                bars[i] = b * bar if bars[i] is None else bars[i].add_(bar, alpha=b)
        return bars[0]


def _read_table():
    content = json.loads((Path(__file__).parent / 'circuits.json').read_text())
    return {
        (entry['kind'], entry['iterations']): Circuit(
            kind=entry['kind'],
            a=tuple(step['a'] for step in entry['steps']),
            b=tuple(tuple(step['b']) for step in entry['steps']),
            c=tuple(entry['c']),
            max_error=entry['max_error_of_p'],
        )
        for entry in content
    }


CIRCUITS = _read_table()


def find_circuit(kind: str, iterations: int) -> Circuit | None:
    """The shipped circuit for so many iterations, or None.

    Args:
        kind: 'covariance' for p, 'gram' for r.
        iterations: Newton-Schulz iterations.
    """
    return CIRCUITS.get((kind, iterations))


def pool_by_circuit(x: Tensor, circuit: Circuit) -> Tensor:
    """Pooling of centred features, differentiable any number of times.

    Args:
        x: (B, D, N) centred features, float32 or float64.
        circuit: of the kind 'gram' if N < D, else 'covariance'; see :func:`find_circuit`.

    Returns:
        (B, D(D+1)/2), the upper triangle of sqrt(tr) p(Sigma / tr).
    """
    # Nothing to save: plain operations, which exporters and compilers can follow.
    return _Pool.apply(x, circuit) if x.requires_grad else _pool(x, circuit)[0]


def normalise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale centred features to unit trace.

    Args:
        x: (B, D, N) centred features.

    Returns:
        The scaled features, (B, D, N), and the trace tau of the covariance, (B, 1, 1). Features
        whose trace vanishes become zeros, with trace 1.
    """
    tau = x.square().sum((1, 2), keepdim=True) / x.shape[2]
    vanishing = tau < torch.finfo(x.dtype).tiny
    tau = torch.where(vanishing, 1.0, tau)
    return torch.where(vanishing, 0.0, x * (tau * x.shape[2]).rsqrt()), tau


def _pool(x, circuit):
    """The pooling in plain operations; also gives what the backward needs."""
    x, tau = normalise(x)
    if circuit.kind == 'gram':
        r, q = circuit.forward(x.mT @ x)
        w = (x @ r) * tau**0.25
        return triu_vector(w @ w.mT), x, tau, q, w, r
    p, q = circuit.forward(x @ x.mT)
    return triu_vector(p * tau.sqrt()), x, tau, q, p, None


class _Pool(Function):
    @staticmethod
    def forward(ctx, features, circuit):
        out, x, tau, q, w, r = _pool(features, circuit)
        ctx.circuit = circuit
        ctx.save_for_backward(features, x, tau, w, *q, *(() if r is None else (r,)))
        return out

    @staticmethod
    def backward(ctx, grad):
        with autocast_off(grad.device.type):
            features, *saved = ctx.saved_tensors
            if torch.is_grad_enabled():  # to be differentiated again: by autograd
                with torch.enable_grad():
                    out = _pool(features, ctx.circuit)[0]
                return torch.autograd.grad(out, features, grad, create_graph=True)[0], None
            return _pool_backward(ctx.circuit, grad, *saved), None


def _pool_backward(circuit, grad, x, tau, w, *q):
    """Gradient of :func:`_pool` with respect to the centred features."""
    g = triu_vector_inverse(grad)  # the off-diagonals stand in both triangles
    g.diagonal(dim1=-2, dim2=-1).mul_(2)
    if circuit.kind == 'gram':
        *q, r = q
        root = tau**0.25
        dw = g @ w
        wdw = (w * dw).sum((1, 2), keepdim=True)
        dw = dw * root
        dr = x.mT @ dw
        dq = circuit.backward((dr + dr.mT) / 2, q)
        dx = torch.baddbmm(dw @ r, x, dq, alpha=2)
        dtau = wdw / 2
    else:
        g = g * (tau.sqrt() / 2)
        dq = circuit.backward(g, q)
        dx = 2 * (dq @ x)
        dtau = (g * w).sum((1, 2), keepdim=True)
    # tau scales the result and the features: 2 tau dL/dtau, with d tau = 2 x . dx / N
    dtau = dtau - (x * dx).sum((1, 2), keepdim=True)
    # Vanishing features were replaced by zeros, which passed nothing on.
    dx = torch.where((x == 0).all(2, keepdim=True).all(1, keepdim=True), 0.0, dx)
    return (dx + dtau * x) * (tau * x.shape[2]).rsqrt()


def _combine(coefficients, matrices):
    """Linear combination of equally shaped tensors."""
    total = coefficients[0] * matrices[0]
    for coefficient, matrix in zip(coefficients[1:], matrices[1:], strict=True):
        if coefficient:
            total = torch.add(total, matrix, alpha=coefficient)
    return total
