"""A hook that lets a test compare two runs bit for bit, in every process."""

import copy
import os.path as osp
import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from gcp_mm.runtime import unwrap
from gcp_mm.runtime.network import untouched
from gcp_mm.studies.landscape import measure_landscape, split_at


@HOOKS.register_module()
class DumpRunStateHook(Hook):
    """Write all that a step depends on to ``state<rank>.pth`` in the work dir, after training.

    Args:
        etas: steps at which to measure this process's own landscape in iteration 0, or None.
    """

    priority = 'LOWEST'  # after the averaging of the BN statistics

    def __init__(self, etas=None):
        self.etas = etas
        self.measured = None
        self.losses = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.etas and runner.iter == 0:
            model = unwrap(runner.model)
            with untouched(model):
                data = model.data_preprocessor(copy.deepcopy(data_batch), True)
                x, rest = split_at(model, 'backbone.maxpool', lambda: model(**data, mode='loss'))
                self.measured = measure_landscape(x, lambda x: rest(x)['loss'], self.etas)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())

    def after_train(self, runner):
        model = unwrap(runner.model)
        state = dict(
            weights=model.state_dict(),
            gradients={name: p.grad for name, p in model.named_parameters()},
            modes={name: module.training for name, module in model.named_modules()},
            optimizer=runner.optim_wrapper.state_dict(),
            torch_rng=torch.get_rng_state(),
            numpy_rng=torch.tensor(np.random.get_state()[1].astype(np.int64)),
            python_rng=random.getstate(),
            losses=self.losses,
            measured=self.measured,
        )
        torch.save(state, osp.join(runner.work_dir, f'state{get_rank()}.pth'))
