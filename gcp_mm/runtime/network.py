"""The network of a run: without its wrappers, and used without side effects."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network without its wrappers for distribution and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Context that restores the model's buffers, in place, and the random generators.

    The buffers are the running statistics of batch normalization and its count of batches. Weights,
    their `.grad` and the training flags are not restored: do not change them.
    """
    restore, rewind = remember_buffers(model), remember_random(model)
    try:
        yield
    finally:
        restore()
        rewind()


def remember_buffers(model: nn.Module) -> Callable[[], None]:
    """A function that sets the buffers of a network back, in place, to what they are now."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]

    @torch.no_grad()
    def restore():
        for buffer, before in buffers:
            buffer.copy_(before)

    return restore


def remember_random(model: nn.Module) -> Callable[[], None]:
    """Read the state of the random generators and return a function that restores it.

    They are those of PyTorch, on the CPU and on the model's GPUs, of NumPy and of Python.
    """
    devices = sorted({p.device.index for p in model.parameters() if p.is_cuda})
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    python_state = random.getstate()
    cuda_states = [torch.cuda.get_rng_state(device) for device in devices]

    def rewind():
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for device, state in zip(devices, cuda_states, strict=True):
            torch.cuda.set_rng_state(state, device)

    return rewind


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Context in which an instance has another attribute."""
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
