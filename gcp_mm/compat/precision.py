"""Arithmetic of mmcv's operators: in float32 or float64, and gradients by autograd."""

import torch


def single(x):
    """`x` in float32, or in float64 where it is that."""
    return x if x.dtype == torch.float64 else x.float()


def vjp(function, inputs, grad_output):
    """Gradients of `function` at `inputs`, in float32 and with autocast off."""
    with torch.enable_grad(), torch.autocast(grad_output.device.type, enabled=False):
        inputs = [single(x).detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(function(*inputs), inputs, single(grad_output))


def write(values, tensors):
    """Copy each value into the tensor that the caller gave for it."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
