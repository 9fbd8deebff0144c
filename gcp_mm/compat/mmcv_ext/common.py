"""What the operators share: precision, gradients, and results written into given tensors."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


def single(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 where it is that."""
    return x if x.dtype == torch.float64 else x.float()


def vjp(function: Callable, inputs: Iterable[Tensor], grad_output: Tensor) -> tuple[Tensor, ...]:
    """Gradients of `function` at `inputs`, in float32 and with autocast off."""
    with torch.enable_grad(), torch.autocast(grad_output.device.type, enabled=False):
        inputs = [single(x).detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(function(*inputs), inputs, single(grad_output))


def write(values: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy each value into the tensor that the caller gave for it."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
