"""Batch normalization by the statistics of all processes, on any device.

Ioffe and Szegedy, Batch Normalization, ICML 2015, https://arxiv.org/abs/1502.03167; Peng et al.,
MegDet, CVPR 2018, https://arxiv.org/abs/1711.07240, section 3.3, over several devices.
"""

import torch
import torch.distributed as dist
from mmengine.registry import MODELS
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


@MODELS.register_module('AllReduceBN')
class AllReduceBatchNorm(_BatchNorm):
    """What PyTorch's SyncBatchNorm computes, on CPUs too, which that refuses.

    With it a run of several processes is the run of one process with all their images, to
    rounding::

        norm_cfg=dict(type='AllReduceBN')

    On GPUs 'SyncBN' is faster, for it has kernels of its own. Weights and their names are those of
    BatchNorm2d, its arguments too. In evaluation, or without a process group, it is BatchNorm2d.

    The input is (B, C, ...), of any number of images in each process. Statistics are in float32 at
    least, the output has the input's type.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f'x: expected (B, C, ...), got {tuple(x.shape)}')

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        self._check_input_dim(x)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        others = [i for i in range(x.dim()) if i != 1]
        channels = [1, -1] + [1] * (x.dim() - 2)
        count = wide.new_tensor(x.numel() // x.shape[1])
        dist.all_reduce(count)
        mean = all_reduce(wide.sum(others)) / count
        centered = wide - mean.view(channels)
        # not by the mean of squares, which loses the variance of features far from zero
        var = all_reduce(centered.square().sum(others)) / count
        self._update(mean.detach(), var.detach() * count / (count - 1).clamp(min=1))
        y = centered * (var + self.eps).rsqrt().view(channels)
        if self.affine:
            y = y * self.weight.view(channels) + self.bias.view(channels)
        return y.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, unbiased_var: Tensor) -> None:
        count, running_mean, running_var = (
            self.num_batches_tracked,
            self.running_mean,
            self.running_var,
        )
        if count is None or running_mean is None or running_var is None:
            return  # track_running_stats=False
        count.add_(1)
        rate = 1 / count if self.momentum is None else self.momentum
        running_mean.lerp_(mean.to(running_mean.dtype), float(rate))
        running_var.lerp_(unbiased_var.to(running_var.dtype), float(rate))
