"""The network in what a distributed run wraps around it."""

from mmengine.model import is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The network in its wrapper for several processes, or `model` itself where there is none."""
    return model.module if is_model_wrapper(model) else model
