"""The Newton-Schulz pooling by a few symmetric squarings, forward and backward.

K steps of the iteration (see :mod:`.newton_schulz`) are a polynomial p of A = Sigma / tr(Sigma),
whose spectrum lies in [0, 1]. With x the centered features scaled so that A = x x^T:

- N >= D: p(A), on D x D matrices;
- N < D: p(x x^T) = x r(x^T x)^2 x^T with p(t) = t r(t)^2, on the smaller N x N Gram matrix.

p and r are evaluated by circuits, fitted by tools/fit_circuits.py::

    Q_1 = A;  Q_{j+1} = a_j Q_j^2 + sum_{i <= j} b_{j,i} Q_i;  value = Q_{s+1} + c I

Every product is the square of a symmetric matrix, so its adjoint is one product too: with M =
Qbar_{j+1} Q_j it is a_j (M + M^T). The 5-step iteration takes s = 5 or 6 squarings this way, where
the textbook takes 12 products forward and 38 backward.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Circuit:
    """Coefficients of one circuit.

    Attributes:
        kind: 'covariance' for p, 'gram' for r.
        a: a_j of each of the s squarings.
        b: b_{j,1} ... b_{j,j} of each squaring.
        c: multiple of the identity in the value, 0 for 'covariance'.
        max_error: largest error of p on 20,001 points of [0, 1], computed in float64.
    """

    kind: str
    a: tuple[float, ...]
    b: tuple[tuple[float, ...], ...]
    c: float
    max_error: float

    def forward(self, q1: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Value at symmetric matrices, and what :meth:`backward` needs.

        Args:
            q1: (B, n, n), symmetric, spectrum in [0, 1].

        Returns:
            The value, (B, n, n), and [Q_1, ..., Q_s], each (B, n, n).
        """
        q = [q1]
        for a, b in zip(self.a, self.b):  # noqa: B905  PyTorch 2.1 cannot compile `strict`
            scale, rest = _combine(b, q)
            q.append(rest.baddbmm_(q[-1], q[-1], beta=scale, alpha=a))
        *q, value = q
        if self.c:
            value.add_(torch.eye(q1.shape[-1], dtype=q1.dtype, device=q1.device), alpha=self.c)
        return value, q

    def backward(self, grad: Tensor, q: Sequence[Tensor]) -> Tensor:
        """Gradient with respect to Q_1.

        Args:
            grad: gradient of the value, (B, n, n), symmetric.
            q: Q_1 ... Q_s of the forward.

        Returns:
            (B, n, n), symmetric.
        """
        bars = [grad]  # of Q_{s+1}, then of Q_s, ..., Q_1
        for j in reversed(range(len(q))):
            scale, rest = _combine([b[j] for b in reversed(self.b[j:])], bars)
            half = rest.baddbmm_(bars[-1], q[j], beta=scale / 2, alpha=self.a[j])
            bars.append(half + half.mT)
        return bars[-1]


def _read_table() -> dict[tuple[str, int], Circuit]:
    content = json.loads((Path(__file__).parent / 'circuits.json').read_text())
    return {
        (entry['kind'], entry['iterations']): Circuit(
            kind=entry['kind'],
            a=tuple(entry['a']),
            b=tuple(tuple(row) for row in entry['b']),
            c=entry['c'],
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


def _combine(coefficients: Iterable[float], matrices: Iterable[Tensor]) -> tuple[float, Tensor]:
    """A number and a new tensor whose product is the linear combination of equally shaped tensors.

    Matrix products scale what they are added to for nothing: the number saves one pass.
    """
    terms = [(c, m) for c, m in zip(coefficients, matrices) if c]  # noqa: B905
    (scale, first), *others = terms
    if not others:
        return scale, first.clone()
    (c, m), *others = others
    total = torch.add(first, m, alpha=c / scale)
    for c, m in others:
        total.add_(m, alpha=c / scale)
    return scale, total
