"""Batch normalization in one process; tests/integration has it in two."""

import pytest
import torch
from torch import nn

from gcp_mm.models import AllReduceBatchNorm


def test_one_process_has_batch_norm():
    x = 3 * torch.randn(5, 4, 5, 6, generator=torch.Generator().manual_seed(0)) + 1
    ours, stock = AllReduceBatchNorm(4), nn.BatchNorm2d(4)
    stock.load_state_dict(ours.state_dict())
    for training in (True, False):
        ours.train(training), stock.train(training)
        assert torch.equal(ours(x), stock(x))
    for buffer, expected in zip(ours.buffers(), stock.buffers(), strict=True):
        assert torch.equal(buffer, expected)


def test_vectors_are_refused():
    with pytest.raises(ValueError, match=r'x: expected \(B, C, ...\), got \(4,\)'):
        AllReduceBatchNorm(4)(torch.zeros(4))
