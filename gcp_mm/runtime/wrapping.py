"""The network in what a distributed run, or an augmented test, wraps around it."""

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The network in its wrappers for several processes and for test-time augmentation, if any."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
