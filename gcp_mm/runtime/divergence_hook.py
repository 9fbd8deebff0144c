"""Divergence of a training run, caught before the optimizer steps with it."""

import contextlib
import functools
import json
import math
import os.path as osp
from types import SimpleNamespace

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import autocast
from torch.utils._pytree import tree_flatten

from .._io import write_atomically
from ..ops.arguments import check_integer
from .network import (
    ERRORS,
    first_not_finite,
    is_finite,
    remember_buffers,
    remember_random,
    replaced,
    unwrap,
)

# A loss scale starts at 2^16 and is halved for each step its scaler leaves out. An infinity
# after so many of them in a row does not come from the scale.
SETTLING = 32


class _NotFinite(Exception):  # noqa: N818 - ends mmengine's train_step; never leaves the hook
    """The loss, or a gradient, is not finite; `args[0]` says which."""


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Stop the run, or skip the step, if a loss or gradient is not finite.

    All processes of a distributed run act alike. A forward pass that raises because of NaN, as the
    GCP neck does, counts as a loss that is not finite. The hook does not change a run without such
    steps: it is bit-identical. The report is ``<work_dir>/divergence/iter_<n>.json``, see
    docs/guides/divergence.md.

    Weights, momentum and buffers keep their values from before the step. Gradients are dropped;
    with accumulation, all since the last update. Other hooks get an empty dict as outputs. A loss
    scaler handles gradients that are not finite; more than SETTLING of them in a row count as
    divergence.

    Args:
        policy: 'stop' raises FloatingPointError; 'skip' continues with the next batch.
        max_skips: with 'skip', the largest number of skipped steps in a row, at least 1. One more
            stops the run.

    Raises:
        TypeError: if `max_skips` is not an integer; before training, if the optimizer wrapper is
            not an :class:`mmengine.optim.OptimWrapper`.
        ValueError: if `policy` is unknown or `max_skips` is below 1.
        FloatingPointError: in training, with 'stop', or after more than `max_skips` skips.
    """

    def __init__(self, policy: str = 'stop', max_skips: int = 5):
        if policy not in ('stop', 'skip'):
            raise ValueError(f"policy: expected 'stop' or 'skip', got {policy!r}")
        check_integer('max_skips', max_skips)
        self.max_skips = max_skips if policy == 'skip' else 0
        self.skips = 0  # in a row
        self._unscaled = 0  # steps in a row that a loss scaler leaves out
        self._installed = contextlib.ExitStack()

    def before_train(self, runner):
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            kind = type(runner.optim_wrapper).__name__
            raise TypeError(f'DivergenceHook needs an OptimWrapper, of one optimizer, not {kind}')
        # mmengine calls no hook between the backward pass and the optimizer's step, and none where
        # the forward pass raises. So train_step is replaced and, within it, forward and backward.
        self.after_train(runner)
        step = functools.partial(self._train_step, runner, runner.model.train_step)
        self._installed.enter_context(replaced(runner.model, 'train_step', step))

    def after_train(self, runner):
        self._installed.close()

    def _train_step(self, runner, train_step, data, optim_wrapper):
        model = unwrap(runner.model)
        restore_buffers, backward = remember_buffers(model), optim_wrapper.backward

        def watched(loss, **kwargs):
            backward(loss, **kwargs)
            self._look(loss, optim_wrapper)

        try:
            with _watched_forward(model) as forward, replaced(optim_wrapper, 'backward', watched):
                outputs = train_step(data, optim_wrapper=optim_wrapper)
            self.skips = 0
            return outputs
        except _NotFinite as signal:
            cause = signal.args[0]
        restore_buffers()
        message = _report(runner, cause, forward)
        runner.logger.error(message)
        self.skips += 1
        if self.skips > self.max_skips:
            self.after_train(runner)
            raise FloatingPointError(f'{message}; {self.skips - 1} steps in a row were left out')
        runner.logger.warning(f'left out step {self.skips} of at most {self.max_skips} in a row')
        return {}

    def _look(self, loss, optim_wrapper):
        """Raise _NotFinite in every process if one has reason to."""
        groups = optim_wrapper.param_groups
        flags = not_finite(loss, [p for group in groups for p in group['params']])
        all_reduce(flags, op='max')
        bad_loss, bad_gradients = flags.tolist()  # the one wait for the device
        if bad_loss:
            raise _NotFinite('the loss')
        scaler = getattr(optim_wrapper, 'loss_scaler', None)
        if scaler is not None and scaler.is_enabled():
            if optim_wrapper.should_update():
                self._unscaled = self._unscaled + 1 if bad_gradients else 0
            bad_gradients = self._unscaled > SETTLING
        if bad_gradients:
            self._unscaled = 0
            raise _NotFinite('a gradient')


@contextlib.contextmanager
def _watched_forward(model):
    """Note the forward pass for the loss; where it raises one of ERRORS, the loss becomes NaN.

    The NaN depends on every weight: the process goes on to the backward pass, in which the other
    processes of a distributed run wait for it.
    """
    noted, forward = SimpleNamespace(), model.forward

    @functools.wraps(forward)
    def watched(*args, **kwargs):
        if kwargs.get('mode') != 'loss':
            return forward(*args, **kwargs)
        noted.args, noted.kwargs, noted.error = args, kwargs, None
        noted.rewind = remember_random(model)
        try:
            return forward(*args, **kwargs)
        except ERRORS as error:
            noted.error = error
            weights = [p for p in model.parameters() if p.requires_grad]
            return dict(loss=sum(p.float().sum() for p in weights) * math.nan)

    with replaced(model, 'forward', watched):
        yield noted


def not_finite(loss: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
    """(2,) flags, 1 or 0: whether the loss, and whether any gradient, holds NaN or infinity."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    # Maximum norms: NaN stays NaN, and no sum of large numbers overflows.
    norms = torch._foreach_norm(gradients, math.inf) if gradients else [torch.zeros_like(loss)]
    return torch.stack([~x.detach().isfinite().all() for x in (loss, torch.stack(norms))]).float()


def _report(runner, cause, forward):
    """Write the report and drop the gradients. Returns the message, alike in every process."""
    model, wrapper = unwrap(runner.model), runner.optim_wrapper
    amp = isinstance(wrapper, AmpOptimWrapper)
    with autocast(dtype=wrapper.cast_dtype) if amp else contextlib.nullcontext():
        module = first_not_finite(model, forward)
    named = dict(model.named_parameters())
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    samples, _ = tree_flatten((forward.args, forward.kwargs))
    own = dict(
        error=forward.error and str(forward.error),
        module=module,
        files=[str(x.metainfo.get('img_path')) for x in samples if hasattr(x, 'metainfo')],
        parameters=[name for name, p in named.items() if not is_finite(p)],
        gradients=[name for name, grad in gradients.items() if not is_finite(grad)],
    )
    wrapper.zero_grad()
    processes = all_gather_object(own)
    for rank, process in enumerate(processes):
        if process['error'] and not process['module']:  # nothing is NaN: this is no divergence
            raise forward.error or RuntimeError(f'process {rank} failed: {process["error"]}')
    forward.error = None  # its traceback holds the activations, in a reference cycle
    path = osp.join(runner.work_dir, 'divergence', f'iter_{runner.iter}.json')
    if is_main_process():
        report = dict(iter=runner.iter, cause=cause, processes=processes)
        write_atomically(path, json.dumps(report, indent=1).encode())
    barrier()  # the first process to raise ends the others
    first = [p['module']['name'] or 'the model' for p in processes if p['module']]
    where = f'first in {", ".join(first)}' if first else 'the forward pass is finite'
    return f'iteration {runner.iter}: {cause} is not finite ({where}); report: {path}'
