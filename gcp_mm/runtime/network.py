"""The network of a run: without its wrappers, used without side effects, and searched for NaN."""

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn
from torch.utils._pytree import tree_flatten

# What modules raise on NaN: the GCP neck, an eigendecomposition, assertions of detectors
ERRORS = (ValueError, ArithmeticError, AssertionError, torch.linalg.LinAlgError)


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


def first_not_finite(model: torch.nn.Module, forward: SimpleNamespace) -> dict | None:
    """Run a forward pass again, without a trace, and find the first module that is not finite.

    Returns:
        None if all outputs are finite; else `name` ('' is the model) and `type` of the module,
        `input_finite`, and `images`, positions in the batch where its output is not finite.
    """
    found, given = [], (forward.args, forward.kwargs)

    def look(name, module, args, kwargs, out):
        looked_at = (args, kwargs) if out is None else out  # None: it raised
        bad = next((x for x in _tensors(looked_at) if not is_finite(x)), None)
        if bad is not None and not found:
            images = [i for i, x in enumerate(bad) if not is_finite(x)] if bad.dim() > 1 else []
            inputs = all(map(is_finite, _tensors((args, kwargs))))
            kind = type(module).__name__
            found.append(dict(name=name, type=kind, input_finite=inputs, images=images))

    with ExitStack() as hooks, untouched(model), torch.no_grad():
        for name, module in model.named_modules():
            hook = functools.partial(look, name)
            handle = module.register_forward_hook(hook, with_kwargs=True, always_call=True)
            hooks.callback(handle.remove)
        forward.rewind()
        try:
            out = type(model).forward(model, *forward.args, **forward.kwargs)
        except ERRORS:
            out = None
        look('', model, *given, out)
    return found[0] if found else None


def is_finite(x: torch.Tensor) -> bool:
    """Whether all numbers of a tensor are finite."""
    return x.isfinite().all().item()


def _tensors(value):
    """The floating-point tensors in nested containers."""
    leaves, _ = tree_flatten(value)
    return [x for x in leaves if isinstance(x, torch.Tensor) and x.is_floating_point()]
