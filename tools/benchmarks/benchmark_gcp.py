"""Time, memory and error of the pooling layer beside others: benchmark_gcp.py --out DIR.

Candidates take turns in one process; read the ratios, the times depend on what else the machine
does. Every size gives a row for each of them: seconds forward and forward + backward, how many
times faster than the textbook layer, what autograd keeps for the backward beyond the features,
the peak of memory, the relative error against the iteration in float64, and the arithmetic rate
beside the largest one a matrix product reaches here.
"""

import argparse
import functools
import itertools
import json
import os
from pathlib import Path

# The profiler's complaints of devices that are not there; before anything imports it.
os.environ.setdefault('KINETO_LOG_LEVEL', '5')

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import torch
from isqrt_cov import isqrt_cov
from measure import describe_machine, gemm_peak, interleave, markdown_table, peak_bytes, saved_bytes
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from gcp_mm.ops import covariance, global_covariance_pooling, matrix_sqrt_newton_schulz, triu_vector

circuit = functools.partial(global_covariance_pooling, method='circuit')
TEXTBOOK = 'textbook iSQRT-COV'
EXTENSION = 'circuit, C++'
CANDIDATES = {
    TEXTBOOK: isqrt_cov,
    'autograd iteration, D x D': lambda x: triu_vector(matrix_sqrt_newton_schulz(covariance(x))),
    'newton_schulz': lambda x: global_covariance_pooling(x, method='newton_schulz'),
    'circuit, PyTorch': lambda x: circuit(x, backend='pytorch'),
    EXTENSION: lambda x: circuit(x, backend='cpp'),
    'auto': global_covariance_pooling,
    'auto, save=input': lambda x: global_covariance_pooling(x, save='input'),
    'GAP': lambda x: x.mean(2),
}
MIB = 1 << 20


def measure(channels, positions, batch, args):
    """One row for each candidate at one size."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, channels, positions, generator=generator).relu()
    x = features.to(args.device, args.dtype).requires_grad_()
    few = features[:2].to(args.device, torch.float64).requires_grad_()
    exact_out = global_covariance_pooling(few, method='newton_schulz')
    weight = torch.randn(exact_out.shape, generator=generator).to(exact_out)
    exact = exact_out.detach(), torch.autograd.grad(exact_out, few, weight)[0]

    forward, both, rows = {}, {}, {}
    for name in args.only:
        pool = CANDIDATES[name]
        grad = torch.randn_like(pool(x[:1]).detach()).expand(batch, -1).contiguous()
        forward[name] = lambda pool=pool: pool(x.detach())
        both[name] = lambda pool=pool, grad=grad: torch.autograd.grad(pool(x), x, grad)
        with FlopCounterMode(display=False) as flops:
            both[name]()
        rows[name] = dict(
            saved_mib_per_image=saved_bytes(lambda pool=pool: pool(x), x) / batch / MIB,
            peak_mib_per_image=peak_bytes(both[name], args.device) / batch / MIB,
            gflop=flops.get_total_flops() / 1e9 or None,  # none is seen of fused kernels
        )
        rows[name] |= errors(pool, x, weight, exact) if name != 'GAP' else {}
    seconds = interleave(forward, args.repeats, args.device, args.seconds)
    seconds_both = interleave(both, args.repeats, args.device, args.seconds)
    for name, row in rows.items():
        row['forward_ms'] = seconds[name] * 1e3
        row['forward_backward_ms'] = seconds_both[name] * 1e3
        row['gflops'] = row['gflop'] and row['gflop'] / seconds_both[name]
        if TEXTBOOK in rows:
            row['forward_speedup'] = seconds[TEXTBOOK] / seconds[name]
            row['speedup'] = seconds_both[TEXTBOOK] / seconds_both[name]
    size = dict(D=channels, N=positions, B=batch)
    return [dict(**size, candidate=name, **row) for name, row in rows.items()]


def errors(pool, x, weight, exact):
    """Relative Frobenius errors of output and gradient for the first two samples."""
    x = x[:2].detach().requires_grad_()
    out = pool(x)
    grad = torch.autograd.grad(out, x, weight.to(out.dtype))[0]
    return {
        name: ((ours - theirs).norm() / theirs.norm()).item()
        for name, ours, theirs in zip(
            ('output_error', 'gradient_error'), (out.detach(), grad), exact, strict=True
        )
    }


def table(rows, peak):
    def cells(row):
        error = row.get('output_error')
        return {
            'candidate': row['candidate'],
            'forward ms': row['forward_ms'],
            'forward + backward ms': row['forward_backward_ms'],
            'x textbook': row.get('speedup'),
            'saved MiB/image': row['saved_mib_per_image'],
            'peak MiB/image': row['peak_mib_per_image'],
            'output error': None if error is None else f'{error:.1e}',
            'gradient error': None if error is None else f'{row["gradient_error"]:.1e}',
            'GFLOP/s': row['gflops'],
            'of peak': row['gflops'] and f'{row["gflops"] * 1e9 / peak:.0%}',
        }

    return markdown_table([cells(row) for row in rows])


def draw(rows, path):
    """Times of forward + backward per image, one group of bars for each size."""
    sizes = list(dict.fromkeys((row['D'], row['N'], row['B']) for row in rows))
    names = list(dict.fromkeys(row['candidate'] for row in rows))
    figure, axes = plt.subplots(figsize=(2 + 2.2 * len(sizes), 4.5), layout='constrained')
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        bars = [
            (sizes.index((row['D'], row['N'], row['B'])), row['forward_backward_ms'] / row['B'])
            for row in rows
            if row['candidate'] == name
        ]
        places = [i + (k - (len(names) - 1) / 2) * width for i, _ in bars]
        axes.bar(places, [height for _, height in bars], width, label=name)
    axes.set_xticks(range(len(sizes)), [f'D={d}\nN={n}\nB={b}' for d, n, b in sizes])
    axes.set_yscale('log')
    axes.set_ylabel('forward + backward, ms per image')
    axes.grid(axis='y', alpha=0.3)
    figure.legend(loc='outside upper center', fontsize='small', ncols=5)
    plt.savefig(path, dpi=120)
    plt.close()


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--channels', type=int, nargs='+', default=[256], help='D (128 256 512)')
    parser.add_argument(
        '--positions', type=int, nargs='+', default=[49, 196], help='N (49, 196, 1050)'
    )
    parser.add_argument('--batch', type=int, nargs='+', default=[32], help='B (1, 32, 128)')
    parser.add_argument('--threads', type=int, default=1, help='of the CPU')
    parser.add_argument('--device', type=torch.device, default=torch.device('cpu'))
    parser.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'], default='float32')
    parser.add_argument('--repeats', type=int, default=7, help='turns of each candidate')
    parser.add_argument(
        '--seconds', type=float, default=0.1, help='least time of one turn of a candidate'
    )
    parser.add_argument('--extension', action='store_true', help='also the C++ extension, on a CPU')
    parser.add_argument('--only', nargs='+', choices=CANDIDATES, help='candidates; all by default')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/gcp'), help='folder')
    args = parser.parse_args()
    args.dtype = getattr(torch, args.dtype)
    on_cpu = args.device.type == 'cpu' and args.dtype == torch.float32
    if (args.extension or EXTENSION in (args.only or ())) and not on_cpu:
        parser.error(f'{EXTENSION} takes float32 on a CPU alone: --device cpu --dtype float32')
    if args.only is None:
        absent = [] if args.extension else [EXTENSION]
        if args.dtype != torch.float32:
            absent.append(TEXTBOOK)
        args.only = [name for name in CANDIDATES if name not in absent]
    if TEXTBOOK in args.only and args.dtype != torch.float32:
        parser.error(f'--dtype: {TEXTBOOK} takes float32 alone')
    return args


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    peak = gemm_peak(args.device, torch.float32, 8192 if args.device.type == 'cuda' else 1536)
    machine = dict(describe_machine(args.device), dtype=str(args.dtype), gemm_gflops=peak / 1e9)
    sections = ['\n'.join(f'- {key}: {value}' for key, value in machine.items())]
    print(sections[0])
    rows = []
    for size in tqdm(list(itertools.product(args.channels, args.positions, args.batch))):
        found = measure(*size, args)
        rows += found
        sections.append('D = {}, N = {}, B = {}\n\n'.format(*size) + table(found, peak))
        tqdm.write('\n' + sections[-1])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'gcp.json').write_text(json.dumps(dict(machine=machine, rows=rows), indent=1))
    (args.out / 'gcp.md').write_text('\n\n'.join(sections) + '\n')
    draw(rows, args.out / 'gcp.png')
    print(f'written: {args.out}/gcp.json, gcp.md, gcp.png')


if __name__ == '__main__':
    main()
