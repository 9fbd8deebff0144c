"""What the gradients of the classifier cost in distributed training, with and without compression.

Two processes of gloo on this machine train the linear classifier alone, on random covariance
vectors. PyTorch's hooks for DistributedDataParallel take turns with the plain all-reduce. A second
table extrapolates the bytes to several GPUs and networks.
"""

import argparse
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
import torch.multiprocessing as mp
from measure import describe_machine, interleave, write_report
from torch import distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

CLASSES = 1000
RANKS = (1, 4)  # of PowerSGD
PROCESSES = (2, 8, 32)
GIGABYTES = {'10 Gbit/s': 1.25, '100 Gbit/s': 12.5}  # a second, of a link


def hooks():
    """{name: function that registers it with a DistributedDataParallel}."""

    def power(rank):
        return lambda ddp: ddp.register_comm_hook(
            PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=2),
            powerSGD_hook,
        )

    return {
        'float32': lambda ddp: None,
        'bf16': lambda ddp: ddp.register_comm_hook(None, bf16_compress_hook),
        **{f'PowerSGD, rank {rank}': power(rank) for rank in RANKS},
    }


def payload(length, hook):
    """Bytes that a process gives to the all-reduce in a step."""
    if hook.startswith('PowerSGD'):
        return 4 * (int(hook.split()[-1]) * (length + CLASSES) + CLASSES)  # and the biases
    return (2 if hook == 'bf16' else 4) * (length + 1) * CLASSES


def ring_seconds(size, processes, gigabytes):
    """Time of a ring all-reduce of `size` bytes, by the bandwidth of a link alone."""
    return 2 * (processes - 1) / processes * size / (gigabytes * 1e9)


def build(length, register):
    torch.manual_seed(0)
    ddp = DistributedDataParallel(nn.Linear(length, CLASSES))
    register(ddp)
    return ddp


def step(ddp, x, labels, communicate=True):
    """The gradient of a batch, averaged over the processes."""
    ddp.zero_grad()
    with nullcontext() if communicate else ddp.no_sync():
        cross_entropy(ddp(x), labels).backward()
    return ddp.module.weight.grad


def measure(rank, store, lengths, batch, repeats, out):
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    torch.set_num_threads(1)
    rows = []
    for channels, length in lengths.items():
        generator = torch.Generator().manual_seed(rank)
        x = torch.randn(batch, length, generator=generator)
        labels = torch.randint(CLASSES, (batch,), generator=generator)
        networks = {name: build(length, register) for name, register in hooks().items()}
        gradients = {}
        for name, ddp in networks.items():
            for _ in range(4):  # PowerSGD begins with plain steps
                gradients[name] = step(ddp, x, labels).clone()
        steps = {name: partial(step, ddp, x, labels) for name, ddp in networks.items()}
        steps['alone'] = partial(step, networks['float32'], x, labels, communicate=False)
        seconds = interleave(steps, repeats, torch.device('cpu'))
        exact = gradients['float32']
        for name in networks:
            error = (gradients[name] - exact).norm() / exact.norm()
            rows.append(
                {
                    'D': channels,
                    'gradient': name,
                    'MB a step': payload(length, name) / 1e6,
                    'step ms': seconds[name] * 1e3,
                    'of which communication': (seconds[name] - seconds['alone']) * 1e3,
                    'error of the gradient': error.item(),
                }
            )
    if rank == 0:
        machine = describe_machine(torch.device('cpu')) | dict(processes=2, batch=batch)
        write_report(out, 'traffic', machine, rows)
        assumed = dict(all_reduce='ring, by the bandwidth of a link alone, without latency')
        write_report(out, 'links', assumed, extrapolation(lengths))
    dist.destroy_process_group()


def extrapolation(lengths):
    """Rows of ring_seconds."""
    return [
        {
            'D': channels,
            'gradient': name,
            'link': link,
            **{
                f'{n} processes, ms': ring_seconds(payload(length, name), n, gigabytes) * 1e3
                for n in PROCESSES
            },
        }
        for channels, length in lengths.items()
        for name in hooks()
        for link, gigabytes in GIGABYTES.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--channels', type=int, nargs='+', default=[128, 256], metavar='D')
    parser.add_argument('--batch', type=int, default=32, help='images of a process')
    parser.add_argument('--repeats', type=int, default=10, help='turns of each')
    parser.add_argument('--out', type=Path, default='work_dirs/benchmarks/traffic', help='folder')
    args = parser.parse_args()
    lengths = {channels: channels * (channels + 1) // 2 for channels in args.channels}
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f'{folder}/store', lengths, args.batch, args.repeats, args.out)
        mp.spawn(measure, arguments, nprocs=2)


if __name__ == '__main__':
    main()
