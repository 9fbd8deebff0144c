"""A hook that lets a test compare the weights of the processes of a distributed run."""

import os.path as osp

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from gcp_mm.runtime import unwrap


@HOOKS.register_module()
class DumpRankWeightsHook(Hook):
    """Write each process's weights and buffers to ``rank<i>.pth`` in the work dir."""

    priority = 'LOWEST'  # after the averaging of the BN statistics

    def before_train(self, runner):
        self.start = self.state_dict(runner)['backbone.conv1.weight'].clone()

    def after_train(self, runner):
        path = osp.join(runner.work_dir, f'rank{get_rank()}.pth')
        torch.save({**self.state_dict(runner), 'start': self.start}, path)

    def state_dict(self, runner):
        return unwrap(runner.model).state_dict()
