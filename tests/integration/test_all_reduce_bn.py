"""Batch normalization over two processes is BatchNorm2d on all their images."""

from itertools import product

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gcp_mm.models import AllReduceBatchNorm
from tests.helpers.runs import run_pair

SIZES = (3, 2)  # images of each process
CASES = [
    dict(momentum=momentum, affine=affine, track_running_stats=track)
    for momentum, affine, track in product((0.1, None), (True, False), (True, False))
]


def images(dtype=torch.float64):
    """Of both processes, with another mean and variance in each channel."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(SIZES), 4, 5, 6, generator=generator, dtype=torch.float64)
    return (x * torch.tensor([1, 3, 0.1, 1]).view(4, 1, 1) + torch.arange(4.0).view(4, 1, 1)).to(
        dtype
    )


def train_twice(layer, x, factor):
    """Two steps' output, and gradients of a function of it; a part of the batch or all."""
    gradients = []
    for scale in (1, 2):
        leaf = (x * scale).requires_grad_()
        y = layer(leaf)
        (factor * y.sin()).sum().backward()
        gradients.append(leaf.grad)
    return dict(
        y=y.detach(),
        x=gradients,
        weights=[p.grad for p in layer.parameters()],
        buffers=dict(layer.named_buffers()),
    )


def layers(kind, case, dtype=torch.float64):
    torch.manual_seed(0)
    layer = kind(4, **case).to(dtype)
    for p in layer.parameters():
        nn.init.uniform_(p, 0.5, 1.5)
    return layer


def part(x, rank):
    return x.split(SIZES)[rank]


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    results = []
    for case in CASES:
        x = part(images(), rank)
        results.append(train_twice(layers(AllReduceBatchNorm, case), x, x))
    far = part(images(torch.float32) + 1e4, rank)
    half = part(images(torch.bfloat16), rank)
    layer = AllReduceBatchNorm(4)
    results += [layer(far).detach(), layer(half).detach()]
    torch.save(results, f'{folder}/{rank}.pth')
    dist.barrier()  # PyTorch 2.1 may hang in the end of a group whose last reduction just ended
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp('processes')
    run_pair(process, folder)
    return [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize('number', range(len(CASES)), ids=[str(case) for case in CASES])
def test_two_processes_are_one(results, number):
    x = images()
    single = train_twice(layers(nn.BatchNorm2d, CASES[number]), x, x)
    both = [result[number] for result in results]
    for rank, own in enumerate(both):
        close(own['y'], part(single['y'], rank))
        for step in (0, 1):
            close(own['x'][step], part(single['x'][step], rank))
        assert own['buffers'].keys() == single['buffers'].keys()
        for name, buffer in own['buffers'].items():
            close(buffer, single['buffers'][name])
    for a, b, expected in zip(
        both[0]['weights'], both[1]['weights'], single['weights'], strict=True
    ):
        close(a + b, expected)


def test_features_far_from_zero(results):
    x = images(torch.float32) + 1e4
    y = torch.cat([result[-2] for result in results])
    expected = nn.BatchNorm2d(4).double()(x.double()).detach().float()
    torch.testing.assert_close(y, expected, rtol=0, atol=5e-3)  # 1e4's rounding, over std 0.1


def test_half_precision(results):
    x = images(torch.bfloat16)
    y = torch.cat([result[-1] for result in results])
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, nn.BatchNorm2d(4)(x.float()).detach().bfloat16())
