"""Divergence of a training run, caught at the step it appears in and before the weights hold it."""

import contextlib
import json
import math
import os
import os.path as osp

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import autocast

from .divergence import (
    Forward,
    describe_step,
    not_finite,
    readable,
    replaced,
    tensors,
    watched_forward,
)
from .wrapping import unwrap

FOLDER = 'divergence'
POLICIES = ('stop', 'skip')
SMALL_BATCH = 64 * 2**20  # bytes
# A loss scale starts at 2^16 and is halved for each step its scaler leaves out:
# an infinity after so many of them in a row is not the scale's.
SETTLING = 32


class _NotFinite(Exception):  # noqa: N818 - a signal out of the step; never leaves the hook
    """The loss, or a gradient, is not finite; `args[0]` says which."""


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Catch a loss or gradient that is not finite before the optimizer steps with it.

    ::

        custom_hooks = [dict(type='DivergenceHook', policy='skip', max_skips=5)]

    Every iteration it looks at the loss and, after the backward pass, at the gradients; in a
    distributed run the processes take the maximum of what they saw, and act alike. On a GPU that
    is one wait for the device per iteration. A forward pass that raises because of NaN, as the
    GCP neck does, counts as a loss that is not finite. A run that stays finite is bit for bit the
    run without the hook.

    What it finds goes to the log and to ``<work_dir>/divergence/iter_<n>.json``: for each process
    the parts of the loss, the files of the batch and the first module whose output is not finite,
    with statistics of its inputs (the forward pass is run again for that, see
    :func:`.divergence.first_not_finite`), and the parameters and gradients that are not finite.
    The inputs go to ``iter_<n>_rank<r>.pth``, as the network got them, for the processes whose
    forward pass failed, or all if none did. Then:

    - 'stop' raises FloatingPointError with the path of the report.
    - 'skip' goes on with the next batch; more than `max_skips` in a row stop the run.

    In each case weights, momentum and buffers (BN statistics) are first those from before the step.
    The gradients are dropped, with accumulation those of the steps since the last update too. The
    random generators, the schedule, the iteration's number and averages (EMA) go on; hooks get an
    empty dict as the step's outputs, so that no NaN enters the averages of the log.

    With a loss scaler (`AmpOptimWrapper`) gradients that are not finite are the scaler's business,
    which leaves such steps out itself while the scale settles; more than SETTLING of them in
    a row count as divergence. A loss that is not finite always does.

    Where one process alone raises and the others wait for it in a SyncBN behind the module that
    raised, the run ends by their timeout.

    Args:
        policy: 'stop' or 'skip'.
        max_skips: steps left out in a row, at least 1.
        save_batch: whether to save inputs; None saves up to 64 MiB.

    Raises:
        TypeError: if an argument has another type or, before training starts, the optimizer
            wrapper is not an :class:`mmengine.optim.OptimWrapper`.
        ValueError: if `policy` is unknown or `max_skips` is below 1.
        FloatingPointError: during training, if the policy says so.
    """

    def __init__(
        self,
        policy: str = 'stop',
        max_skips: int = 5,
        save_batch: bool | None = None,
    ):
        if policy not in POLICIES:
            raise ValueError(f'policy: expected one of {POLICIES}, got {policy!r}')
        if isinstance(max_skips, bool) or not isinstance(max_skips, int):
            raise TypeError(f'max_skips: expected a whole number, got {max_skips!r}')
        if max_skips < 1:
            raise ValueError(f"max_skips: expected at least 1, got {max_skips}; or policy='stop'")
        if save_batch not in (None, True, False):
            raise TypeError(f'save_batch: expected True, False or None, got {save_batch!r}')
        self.policy = policy
        self.max_skips = max_skips
        self.save_batch = save_batch
        self.skips = 0  # in a row
        self._unscaled = 0  # steps in a row that a loss scaler leaves out
        self._installed = contextlib.ExitStack()

    def before_train(self, runner):
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            raise TypeError(
                'DivergenceHook: expected an OptimWrapper, of one optimizer, got '
                f'{type(runner.optim_wrapper).__name__}; leave the hook out with that'
            )
        # No hook is called between the backward pass and the optimizer's step.
        self._installed.close()
        train_step = runner.model.train_step

        def watched(data, optim_wrapper):
            return self._train_step(runner, train_step, data, optim_wrapper)

        self._installed.enter_context(replaced(runner.model, 'train_step', watched))

    def after_train(self, runner):
        self._installed.close()

    def _train_step(self, runner, train_step, data, optim_wrapper):
        model = unwrap(runner.model)
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        backward = optim_wrapper.backward

        def watched(loss, **kwargs):
            backward(loss, **kwargs)
            self._look(loss, optim_wrapper)

        try:
            with (
                watched_forward(model) as forward,
                replaced(optim_wrapper, 'backward', watched),
            ):
                outputs = train_step(data, optim_wrapper=optim_wrapper)
        except _NotFinite as signal:
            cause = signal.args[0]
        else:
            self.skips = 0
            return outputs
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        self._report(runner, cause, forward)
        return {}

    def _look(self, loss, optim_wrapper):
        """Raise _NotFinite in every process if one has reason to."""
        groups = optim_wrapper.optimizer.param_groups
        flags = not_finite(loss, (p for group in groups for p in group['params']))
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

    def _report(self, runner, cause, forward):
        model = unwrap(runner.model)
        with _precision(runner.optim_wrapper):
            own = dict(rank=get_rank(), **describe_step(model, forward))
        processes = all_gather_object(own)
        runner.optim_wrapper.zero_grad()
        _raise_foreign(forward, own, processes)
        forward.error = None  # its traceback holds the activations, in a circle with this
        failed = [p['rank'] for p in processes if p['module']] or [p['rank'] for p in processes]
        path = osp.join(runner.work_dir, FOLDER, f'iter_{runner.iter}.json')
        os.makedirs(osp.dirname(path), exist_ok=True)
        if own['rank'] in failed:
            _save_batch(forward, path, own['rank'], self.save_batch)
        if is_main_process():
            report = dict(
                iter=runner.iter,
                epoch=runner.epoch,
                policy=self.policy,
                cause=cause,
                learning_rates={
                    name: [readable(rate) for rate in rates]
                    for name, rates in runner.optim_wrapper.get_lr().items()
                },
                processes=processes,
            )
            with open(path, 'w') as file:
                json.dump(report, file, indent=1, allow_nan=False)
        barrier()  # the first process to raise ends the others
        shown = '; '.join(_summary(processes[rank]) for rank in failed)
        message = f'iteration {runner.iter}: {cause} is not finite ({shown}); report: {path}'
        runner.logger.error(message)
        getattr(self, f'_{self.policy}')(runner, message)

    def _stop(self, runner, message):
        self._installed.close()
        raise FloatingPointError(message)

    def _skip(self, runner, message):
        self.skips += 1
        if self.skips > self.max_skips:
            self._stop(runner, f'{message}; {self.max_skips} steps in a row were left out before')
        runner.logger.warning(f'left out step {self.skips} of at most {self.max_skips} in a row')


def _raise_foreign(forward, own, processes):
    """An error of the forward pass without anything that is not finite is no divergence."""
    if forward.error and not own['module']:
        raise forward.error
    for process in processes:
        if process['error'] and not process['module']:
            raise RuntimeError(f'process {process["rank"]} failed: {process["error"]}')


def _save_batch(forward: Forward, path, rank, save):
    size = sum(x.numel() * x.element_size() for x in tensors(forward.inputs))
    if save or (save is None and size <= SMALL_BATCH):
        torch.save(_to_cpu(forward.inputs), path.replace('.json', f'_rank{rank}.pth'))


def _to_cpu(value):
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_cpu(item) for item in value]
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _summary(process):
    module = process['module']
    if module is None:
        where = 'the forward pass is finite'
    else:
        given = module['inputs'][0] if module['inputs'] else dict(nan=math.nan, inf=math.nan)
        where = (
            f'first in {module["name"] or "the model"} ({module["type"]}), whose input is '
            f'{given["nan"]:.2%} NaN, {given["inf"]:.2%} infinite, {given.get("min")} to '
            f'{given.get("max")}'
        )
    spoilt_weights = list(process['parameters']['first'])
    weights = f', weights not finite: {", ".join(spoilt_weights)}' if spoilt_weights else ''
    images = module['images'] if module and len(module['images']) < len(process['files']) else []
    names = [process['files'][i] for i in images] or process['files']
    more = ', ...' if len(names) > 3 else ''
    files = f'; files: {", ".join(map(str, names[:3]))}{more}' if names else ''
    return f'process {process["rank"]}: {where}{weights}{files}'


def _precision(optim_wrapper):
    """The autocast of the step; without the wrapper's other doings."""
    if isinstance(optim_wrapper, AmpOptimWrapper):
        return autocast(dtype=optim_wrapper.cast_dtype)
    return contextlib.nullcontext()
