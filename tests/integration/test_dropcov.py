"""DropCov in two processes: one probability, that of all their images; and no endless wait."""

import pytest
import torch
import torch.distributed as dist

from gcp_mm.ops import GlobalCovariancePool2d, dropcov_probability
from tests.helpers.runs import run_pair

SIZES = (3, 1)  # images of each process


def images():
    """Features and attention of both processes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(SIZES), 64, 5, 5, generator=generator)
    return x, torch.rand(sum(SIZES), 64, generator=generator) ** 20


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    x, attention = (part.split(SIZES)[rank] for part in images())
    torch.save(dropcov_probability(x, attention), f'{folder}/{rank}.pth')
    layer = GlobalCovariancePool2d(64, (), norm='none', dropcov=True)
    try:
        found = str(layer(x * torch.nan if rank else x).isnan().all().item())
    except ValueError as error:
        found = str(error)
    torch.save(found, f'{folder}/{rank}-nan.pth')
    dist.destroy_process_group()


def test_two_processes_have_one_probability(tmp_path):
    run_pair(process, tmp_path)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    assert first == second
    expected = dropcov_probability(*images())
    assert 0 < expected < 1
    torch.testing.assert_close(first, expected)
    own = dropcov_probability(*(part.split(SIZES)[1] for part in images()))
    assert own != pytest.approx(expected.item())
    first, second = (torch.load(tmp_path / f'{rank}-nan.pth') for rank in (0, 1))
    assert (first, 'features hold NaN' in second) == ('True', True)
