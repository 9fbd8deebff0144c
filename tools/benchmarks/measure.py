"""Shared by the benchmarks: interleaved timing, steps of a network, memory, reports."""

import platform
import statistics
import subprocess
import time
from datetime import date
from pathlib import Path

import torch
from mmpretrain.structures import DataSample

from gcp_mm import _io
from gcp_mm.ops import extension


def interleave(steps, repeats, device, each_at_least=0.0, progress=iter):
    """Median seconds of each of `steps`, a dict of functions without arguments.

    The steps take turns, so that what else the machine does falls on all of them alike: their
    ratios mean something where their times do not. `progress` wraps the turns, as tqdm does.
    """
    for step in steps.values():
        _timed(step, device)  # warm-up, outside the statistics
    seconds = {name: [] for name in steps}
    for _ in progress(range(repeats)):
        for name, step in steps.items():
            spent = 0.0
            while spent <= each_at_least:
                seconds[name].append(_timed(step, device))
                spent += seconds[name][-1]
    return {name: statistics.median(values) for name, values in seconds.items()}


def _timed(step, device):
    if device.type == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.type == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def network_steps(network, optim_wrapper, batch, size):
    """A training and an inference step of a classifier, functions without arguments.

    Everything is what a run does in a step: data preprocessor, loss, backward, optimizer. `batch`
    random images of `size` x `size` pixels; their labels count up to 1000.
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


def saved_bytes(step, x):
    """Bytes autograd keeps for the backward of `step()` beyond its input `x`."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    storages.pop(x.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def describe_machine(device):
    """Hardware and versions, for the head of a report."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    machine = dict(
        date=date.today().isoformat(),
        cpu=f'{(names or [platform.processor()])[0]}, {torch.backends.cpu.get_cpu_capability()}',
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        commit=subprocess.run(
            ['git', 'describe', '--always', '--dirty'],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        ).stdout.strip(),
    )
    if extension.is_wanted():
        machine['GCP_MM_EXTENSION'] = 1
    if device.type == 'cuda':
        machine['gpu'] = torch.cuda.get_device_name(device)
        machine['cuda'] = torch.version.cuda
    return machine


def write_report(folder, name, machine, rows):
    """Write the report of a benchmark: the machine, and a table of the rows."""
    text = '\n'.join(f'- {key}: {value}' for key, value in machine.items())
    text += f'\n\n{_io.table_of_dicts(rows)}\n'
    _io.write_report(folder, name, text, dict(machine=machine, rows=rows))
