"""The autograd function around a pooling whose backward is written by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import Function

from .precision import autocast_off


@dataclass(frozen=True)
class Pooling:
    """One function of (B, D, N) features, in three forms.

    Attributes:
        forward: gives the output, and the tensors the backward needs beside the features if they
            are to be kept.
        backward: gradient of the features, from that of the output, the features and what the
            forward kept; where that is nothing, it is computed again.
        plain: the output in operations that autograd follows, any number of times.
    """

    forward: Callable[[Tensor, bool], tuple[Tensor, Sequence[Tensor]]]
    backward: Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]
    plain: Callable[[Tensor], Tensor]

    def apply(self, x: Tensor, save: str) -> Tensor:
        """The output, (B, D(D+1)/2); `save` as in :func:`.pooling.global_covariance_pooling`."""
        keep = save != 'input' and x.requires_grad and torch.is_grad_enabled()
        return _Pool.apply(x, self, keep)


class _Pool(Function):
    @staticmethod
    def forward(ctx, x, pooling, keep):
        ctx.pooling = pooling
        out, saved = pooling.forward(x, keep)
        ctx.save_for_backward(x, *(saved if keep else ()))
        return out

    @staticmethod
    def backward(ctx, grad):
        x, *saved = ctx.saved_tensors
        with autocast_off(grad.device.type):
            if torch.is_grad_enabled():  # to be differentiated again: by autograd
                with torch.enable_grad():
                    out = ctx.pooling.plain(x)
                dx = torch.autograd.grad(out, x, grad, create_graph=True)[0]
            else:
                dx = ctx.pooling.backward(grad, x, saved)
        return dx, None, None
