"""What spoils a run, and a record of its steps that is independent of the hook under test."""

import copy
import os.path as osp

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS

from gcp_mm.runtime import unwrap


@TRANSFORMS.register_module()
class PoisonImage(BaseTransform):
    """Make every image float32, and put NaN into a pixel of those with such file names.

    Args:
        files: ends of their paths.
    """

    def __init__(self, files=()):
        self.files = tuple(files)

    def transform(self, results):
        results['img'] = results['img'].astype(np.float32)
        if results['img_path'].endswith(self.files):
            results['img'][3, 4, 0] = np.nan
        return results


@HOOKS.register_module()
class RecordStepsHook(Hook):
    """Keep the files of each batch, and what a step may change before and after it.

    Args:
        weights: (iteration, name, value) each: set the first number of a parameter before a step.
        dump: whether to write the record to ``steps<rank>.pth`` in the work dir.
    """

    def __init__(self, weights=(), dump=False):
        self.weights = weights
        self.dump = dump
        self.files, self.before, self.after = [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for iteration, name, value in self.weights:
            if runner.iter == iteration:
                unwrap(runner.model).get_parameter(name).data.view(-1)[0] = value
        self.files.append([sample.img_path for sample in data_batch['data_samples']])
        self.before.append(state(runner))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.after.append(state(runner))
        if self.dump:
            path = osp.join(runner.work_dir, f'steps{get_rank()}.pth')
            torch.save(dict(files=self.files, before=self.before, after=self.after), path)


def state(runner):
    """Weights, buffers and momentum."""
    return dict(
        model=copy.deepcopy(dict(unwrap(runner.model).state_dict())),
        momentum=[
            copy.deepcopy(values) for values in runner.optim_wrapper.optimizer.state.values()
        ],
    )
