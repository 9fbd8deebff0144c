"""A training and an inference step of a classifier on random images, to be timed.

Everything is what a run does in a step: data preprocessor, loss, backward, optimizer.
"""

import torch
from mmpretrain.structures import DataSample


def network_steps(network, optim_wrapper, batch, size):
    """The two steps, functions without arguments, of a network on its device.

    `batch` images of `size` x `size` pixels; each has a label of its own, as far as 1000 go round.
    """
    images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(i % 1000) for i in range(batch)]
    data = dict(inputs=list(images), data_samples=samples)

    def train_step():
        network.train()
        network.train_step(data, optim_wrapper)

    def test_step():
        network.eval()
        with torch.no_grad():
            network.test_step(data)

    return train_step, test_step
