"""Where a training step stops being finite: what it looked at, and the first module to fail."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .untouched import remember_random, untouched

# What modules raise on NaN: the GCP neck, an eigendecomposition, assertions of detectors
ERRORS = (ValueError, ArithmeticError, AssertionError, torch.linalg.LinAlgError)
MOST_NAMES = 10  # parameters and gradients listed in a report


@dataclass
class Forward:
    """One forward pass of a training step, as it can be run again.

    Attributes:
        args, kwargs: of the model's `forward`: the batch, preprocessed and on the device.
        losses: what it returned: tensors, or lists of them, by name.
        error: what it raised instead.
        rewind: sets the random generators to where they were before it.
    """

    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    losses: dict = field(default_factory=dict)
    error: Exception | None = None
    rewind: Callable[[], None] = lambda: None

    @property
    def inputs(self) -> object:
        return self.kwargs.get('inputs', self.args[0] if self.args else None)

    @property
    def data_samples(self) -> object:
        return self.kwargs.get('data_samples', self.args[1] if len(self.args) > 1 else None)


@contextmanager
def watched_forward(model: nn.Module) -> Iterator[Forward]:
    """Context that notes the model's last forward pass for the loss.

    Where that raises one of ERRORS, the loss becomes a NaN that depends on every weight. So the
    process goes on to the backward pass, in which the others of a distributed run wait for it.

    Args:
        model: not wrapped; its attribute `forward` is replaced meanwhile.
    """
    noted, forward = Forward(), model.forward

    @functools.wraps(forward)
    def watched(*args, **kwargs):
        if kwargs.get('mode') != 'loss':
            return forward(*args, **kwargs)
        noted.args, noted.kwargs, noted.error = args, kwargs, None
        noted.rewind = remember_random(model)
        try:
            noted.losses = forward(*args, **kwargs)
        except ERRORS as error:
            noted.error = error
            weights = [p for p in model.parameters() if p.requires_grad]
            noted.losses = dict(loss=sum(p.float().sum() for p in weights) * math.nan)
        return noted.losses

    with replaced(model, 'forward', watched):
        yield noted


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


def not_finite(loss: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """Whether the loss, and whether any gradient, holds NaN or infinity; waits for no device.

    Args:
        loss: of any shape.
        parameters: those without a gradient are left out.

    Returns:
        (2,) float32 on the loss's device: 1 or 0 for the loss, and for the gradients.
    """
    flags = [~loss.detach().isfinite().all()]
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        # Maximum norms: NaN stays NaN, and no sum of large numbers overflows.
        norms = torch._foreach_norm(gradients, math.inf)
        flags.append(~torch.stack(norms).isfinite().all())
    else:
        flags.append(torch.zeros_like(flags[0]))
    return torch.stack(flags).float()


def statistics(x: Tensor) -> dict:
    """Shape, shares of NaN and infinity, and min, max, mean and std of the finite values."""
    x = x.detach()
    finite = x[x.isfinite()].double()
    summary = dict(
        shape=list(x.shape),
        dtype=str(x.dtype).removeprefix('torch.'),
        nan=x.isnan().double().mean().item() if x.numel() else 0.0,
        inf=x.isinf().double().mean().item() if x.numel() else 0.0,
    )
    if finite.numel():
        std, mean = torch.std_mean(finite, correction=0)
        extremes = dict(min=finite.min(), max=finite.max(), mean=mean, std=std)
        summary |= {name: readable(value.item()) for name, value in extremes.items()}
    return summary


def readable(number: float) -> float | str:
    """The number or, as JSON has none for it, 'nan', 'inf' or '-inf'."""
    return number if math.isfinite(number) else str(number)


def tensors(value: object) -> list[Tensor]:
    """The floating-point tensors in nested containers."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for item in value for tensor in tensors(item)]


def spoilt(value: object) -> bool:
    """Whether a tensor in nested containers holds NaN or infinity."""
    return any(not x.isfinite().all() for x in tensors(value))


def first_not_finite(model: nn.Module, forward: Forward) -> dict | None:
    """Run a forward pass again and find the first module whose output is not finite.

    Weights, buffers and random generators end as they were. In a distributed run every process
    has to call this: modules like SyncBN wait for each other.

    Args:
        model: not wrapped, in the mode and with the weights and buffers of that pass. If it was
            compiled, its eager form runs.
        forward: the pass.

    Returns:
        None if all is finite; else name and type of the module (name '' is the model), statistics
        of its inputs and output (None if it raised, on inputs that are not finite), and `images`,
        the positions in the batch of the outputs that are not finite.
    """
    found, entered = [], []

    def enter(name):
        def hook(module, args, kwargs):
            entered.append((name, module, (args, kwargs)))

        return hook

    def leave(module, args, kwargs, out):
        name, *_ = entered.pop()
        if not found and spoilt(out):
            found.append(_describe(name, module, (args, kwargs), out))

    handles = []
    try:
        for name, module in model.named_modules():
            if name:
                handles += [
                    module.register_forward_pre_hook(enter(name), with_kwargs=True),
                    module.register_forward_hook(leave, with_kwargs=True),
                ]
        with untouched(model), torch.no_grad():
            forward.rewind()
            try:
                out = type(model).forward(model, *forward.args, **forward.kwargs)
            except ERRORS:
                out, given = None, (forward.args, forward.kwargs)
                name, module, given = entered[-1] if entered else ('', model, given)
                if not found and spoilt(given):
                    found.append(_describe(name, module, given, None))
            if not found and spoilt(out):
                found.append(_describe('', model, (forward.args, forward.kwargs), out))
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _describe(name, module, given, out):
    outputs = tensors(out)
    bad = next((x for x in outputs if not x.isfinite().all()), None)
    return dict(
        name=name,
        type=type(module).__name__,
        inputs=[statistics(x) for x in tensors(given)],
        output=None if bad is None else statistics(bad),
        images=[]
        if bad is None or bad.dim() < 2
        else (~bad.flatten(1).isfinite().all(1)).nonzero().flatten().tolist(),
    )


def file_names(data_samples: object) -> list[str | None]:
    """`img_path` of each sample, None where there is none."""
    if isinstance(data_samples, dict):
        data_samples = list(data_samples.values())
    if isinstance(data_samples, list | tuple):
        return [name for sample in data_samples for name in file_names(sample)]
    if not hasattr(data_samples, 'metainfo'):
        return []
    name = data_samples.metainfo.get('img_path')
    return [None if name is None else str(name)]


def describe_step(model: nn.Module, forward: Forward) -> dict:
    """Report of one process on a step, before its gradients are dropped.

    Args:
        model: see :func:`first_not_finite`.
        forward: the step's forward pass.

    Returns:
        What :func:`first_not_finite` found as `module`, the losses, files of the batch, statistics
        of the inputs, and of the parameters and gradients that are not finite the first
        MOST_NAMES; all of it can be written as JSON.
    """
    parameters = dict(model.named_parameters())
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    return dict(
        losses={} if forward.error else {k: _part(v) for k, v in forward.losses.items()},
        error=None if forward.error is None else str(forward.error),
        module=first_not_finite(model, forward),
        files=file_names(forward.data_samples),
        inputs=[statistics(x) for x in tensors(forward.inputs)],
        parameters=_those_not_finite(parameters),
        gradients=_those_not_finite(gradients),
    )


def _part(value):
    return readable(sum(x.detach().float().mean().item() for x in tensors(value)))


def _those_not_finite(named):
    names = [name for name, x in named.items() if not x.isfinite().all()]
    return dict(
        count=len(names), first={name: statistics(named[name]) for name in names[:MOST_NAMES]}
    )
