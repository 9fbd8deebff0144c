r"""Functions of eigenvalues, with their divided differences.

    F_ij = (f(lambda_i) - f(lambda_j)) / (lambda_i - lambda_j),    F_ii = f'(lambda_i)

They are evaluated without cancellation, and have no pole at equal eigenvalues.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

EPS = 1e-6  # added to the eigenvalues before a logarithm


@dataclass(frozen=True)
class Power:
    """lambda^exponent, with 0 at 0.

    Attributes:
        exponent: above 0. Below 1 the derivative at zero is infinite: directions in which both
            eigenvalues are zero pass no gradient.
    """

    exponent: float
    at_zero: ClassVar[float] = 0.0

    def value(self, lam: Tensor) -> Tensor:
        """f of eigenvalues, which are zero or positive."""
        return lam**self.exponent

    def differences(self, a: Tensor, b: Tensor) -> Tensor:
        """Divided differences of eigenvalues that broadcast, zero or positive."""
        zero = (a == 0) | (b == 0)
        log_a, log_b = (torch.where(zero, 1, lam).log() for lam in (a, b))
        half = (log_a - log_b).abs() / 2
        small = half < 1e-4
        safe = torch.where(small, 1, half)
        p = self.exponent
        # sinh(p h) / sinh(h), with its factors e^h taken out
        ratio = ((p - 1) * safe).exp() * torch.expm1(-2 * p * safe) / torch.expm1(-2 * safe)
        ratio = torch.where(small, p * (1 + (p * p - 1) * half.square() / 6), ratio)
        middle = ((p - 1) * (log_a + log_b) / 2).exp()
        largest = torch.maximum(a, b)
        one_zero = torch.where(largest > 0, largest, 1) ** (p - 1)
        both_zero = torch.full_like(largest, float(p == 1))
        return torch.where(zero, torch.where(largest > 0, one_zero, both_zero), middle * ratio)


@dataclass(frozen=True)
class Log:
    """log(lambda + eps) - log(eps), which is 0 at 0; `at_zero` is log(eps)."""

    eps: float = EPS

    @property
    def at_zero(self) -> float:
        """What f(A) has on the diagonal beside the values: log(eps)."""
        return math.log(self.eps)

    def value(self, lam: Tensor) -> Tensor:
        """f of eigenvalues, less log(eps)."""
        return torch.log1p(lam / self.eps)

    def differences(self, a: Tensor, b: Tensor) -> Tensor:
        """Divided differences of eigenvalues that broadcast, zero or positive."""
        total = a + b + 2 * self.eps
        z = (a - b) / total
        # atanh near 0, a difference of logarithms near 1: each is exact where the other cancels
        small, far = z.abs() < 1e-4, z.abs() > 0.5
        safe = torch.where(small | far, 0.5, z)
        near = torch.where(small, 1 + z.square() / 3, torch.atanh(safe) / safe) * 2 / total
        between = torch.where(far, a - b, 1)
        return torch.where(far, (self.value(a) - self.value(b)) / between, near)
