"""Use of a network in the middle of its training, without a trace."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Context that ends with the buffers and the random generators as they were.

    The buffers are the running statistics of batch normalisation and its count of batches; the
    generators those of PyTorch (on the CPU and on the model's GPUs), numpy and Python. Weights,
    their `.grad` and the training flags are not looked after: do not change them.

    Args:
        model: network whose buffers to restore, in place.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {p.device for p in model.parameters() if p.is_cuda}
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
            np.random.set_state(numpy_state)
            random.setstate(python_state)
