"""What the benchmarks share: interleaved timing, memory, the machine, tables."""

import platform
import statistics
import subprocess
import time
from datetime import date
from pathlib import Path

import torch

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


def saved_bytes(step, x):
    """Bytes autograd keeps for the backward of `step()` beyond its input `x`."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = step()
    storages.pop(x.untyped_storage().data_ptr(), None)
    del out
    return sum(storages.values())


def peak_bytes(step, device):
    """Most bytes `step()` holds at a time beyond what was held before it."""
    if device.type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        step()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def gemm_peak(device, dtype, size):
    """FLOP/s of one large matrix product: the most this machine does in a second."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    for _ in range(3):
        _timed(lambda: a @ a, device)
    return 2 * size**3 / min(_timed(lambda: a @ a, device) for _ in range(10))


def describe_machine(device):
    """Hardware and versions, for the head of a report."""
    machine = dict(
        date=date.today().isoformat(),
        cpu=_cpu_name(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        commit=_commit(),
    )
    if extension.is_wanted():
        machine['GCP_MM_EXTENSION'] = 1
    if device.type == 'cuda':
        machine['gpu'] = torch.cuda.get_device_name(device)
        machine['cuda'] = torch.version.cuda
    return machine


def _cpu_name():
    lines = Path('/proc/cpuinfo').read_text().splitlines() if platform.system() == 'Linux' else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return (
        f'{names[0] if names else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}'
    )


def _commit():
    try:
        return subprocess.run(
            ['git', 'describe', '--always', '--dirty'],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'  # an installed copy without its repository


def markdown_table(rows):
    """Rows, a list of equal dicts, as a Markdown table."""
    head = list(rows[0])
    lines = [head, ['---'] * len(head), *([_cell(row[key]) for key in head] for row in rows)]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _cell(value):
    if value is None:
        return ''
    return f'{value:.3g}' if isinstance(value, float) else str(value)
