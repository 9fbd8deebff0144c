"""Arithmetic of mmcv's operators: in float32 or float64, and gradients by autograd."""

import functools

import torch
import torchvision
from mmengine.logging import print_log


@functools.cache
def _log_once():
    """Say in the log of a run, at the first call of an operator, where it comes from."""
    print_log(
        f'mmcv has no compiled operators: those of torchvision {torchvision.__version__} are used',
        logger='current',
    )


def single(x):
    """`x` in float32, or in float64 where it is that."""
    _log_once()
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
