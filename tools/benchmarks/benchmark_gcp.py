"""Time, memory and error of the pooling layer beside others: benchmark_gcp.py --out DIR.

Candidates take turns in one process; read the ratios, the times depend on what else the machine
does. Every size gives a row for each of them: seconds forward and forward + backward, how many
times faster than the textbook layer, what autograd keeps for the backward beyond the features,
and the relative error against the iteration in float64.
"""

import argparse
import functools
import itertools
from pathlib import Path

import numpy as np
import torch
from isqrt_cov import isqrt_cov
from matplotlib.figure import Figure
from measure import describe_machine, interleave, saved_bytes, write_report
from tqdm import tqdm

from gcp_mm._io import write_figure
from gcp_mm.ops import (
    DropCov,
    covariance,
    global_covariance_pooling,
    matrix_sqrt_newton_schulz,
    triu_vector,
)

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
}
# Other functions of the features, so that they have no error. The first two are the floor.
GAP, COVARIANCE, DROPCOV = 'GAP', 'plain covariance', 'DropCov, training'
dropcov = DropCov()
METHODS = {
    GAP: lambda x: x.mean(2),
    COVARIANCE: lambda x: global_covariance_pooling(x, norm='none'),
    DROPCOV: lambda x: global_covariance_pooling(dropcov(x[..., None]), norm='none'),
    **{
        name: functools.partial(global_covariance_pooling, norm=name)
        for name in ('eigh', 'power', 'log', 'cholesky', 'signed_sqrt_l2')
    },
}


def measure(candidates, channels, positions, batch, args):
    """One row for each candidate at one size."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, positions, generator=generator).relu().to(args.device)
    x.requires_grad_()
    few = x[:2].detach().double().requires_grad_()
    exact_out = global_covariance_pooling(few, method='newton_schulz')
    weight = torch.randn(exact_out.shape, generator=generator).to(exact_out)
    exact = exact_out.detach(), torch.autograd.grad(exact_out, few, weight)[0]

    forward, both, saved, errors = {}, {}, {}, {}
    for name in candidates:
        pool = {**CANDIDATES, **METHODS}[name]
        grad = torch.randn_like(pool(x[:1]).detach()).expand(batch, -1).contiguous()
        forward[name] = lambda pool=pool: pool(x.detach())
        both[name] = lambda pool=pool, grad=grad: torch.autograd.grad(pool(x), x, grad)
        saved[name] = saved_bytes(lambda pool=pool: pool(x), x)
        other = name in METHODS
        errors[name] = (None, None) if other else relative_errors(pool, x, weight, exact)
    seconds = interleave(forward, args.repeats, args.device, args.seconds)
    seconds_both = interleave(both, args.repeats, args.device, args.seconds)
    return [
        {
            **dict(D=channels, N=positions, B=batch, candidate=name),
            'forward ms': seconds[name] * 1e3,
            'forward + backward ms': seconds_both[name] * 1e3,
            'x textbook': seconds_both[TEXTBOOK] / seconds_both[name],
            'saved MiB/image': saved[name] / batch / (1 << 20),
            'output error': errors[name][0],
            'gradient error': errors[name][1],
        }
        for name in candidates
    ]


def relative_errors(pool, x, weight, exact):
    """Frobenius errors of output and gradient for the first two samples."""
    x = x[:2].detach().requires_grad_()
    out = pool(x)
    found = out.detach(), torch.autograd.grad(out, x, weight.to(out.dtype))[0]
    return [((a - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]


def draw(rows, path):
    """Times of forward + backward per image, one group of bars for each size."""
    times = {}
    for row in rows:
        size = row['D'], row['N'], row['B']
        times.setdefault(size, {})[row['candidate']] = row['forward + backward ms'] / row['B']
    names = list(times[size])
    figure = Figure(figsize=(2 + 2.2 * len(times), 4.5), layout='constrained')
    axes = figure.subplots()
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        left = np.arange(len(times)) + (k - (len(names) - 1) / 2) * width
        axes.bar(left, [values[name] for values in times.values()], width, label=name)
    axes.set_xticks(range(len(times)), ['D={}\nN={}\nB={}'.format(*size) for size in times])
    axes.set_yscale('log')
    axes.set_ylabel('forward + backward, ms per image')
    axes.grid(axis='y', alpha=0.3)
    figure.legend(loc='outside upper center', fontsize='small', ncols=5)
    write_figure(path, figure, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--channels', type=int, nargs='+', default=[256], help='D (128 256 512)')
    parser.add_argument(
        '--positions', type=int, nargs='+', default=[49, 196], help='N (49, 196, 1050)'
    )
    parser.add_argument('--batch', type=int, nargs='+', default=[32], help='B (1, 32, 128)')
    parser.add_argument('--threads', type=int, default=1, help='of the CPU')
    parser.add_argument('--device', type=torch.device, default=torch.device('cpu'))
    parser.add_argument('--repeats', type=int, default=7, help='turns of each candidate')
    parser.add_argument(
        '--seconds', type=float, default=0.1, help='least time of one turn of a candidate'
    )
    parser.add_argument('--extension', action='store_true', help='also the C++ extension, on a CPU')
    parser.add_argument(
        '--methods', action='store_true', help='also other normalizations, and DropCov'
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/gcp'), help='folder')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    dropcov.to(args.device)
    candidates = [name for name in CANDIDATES if name != EXTENSION or args.extension]
    candidates += METHODS if args.methods else [GAP]
    rows = []
    for size in tqdm(list(itertools.product(args.channels, args.positions, args.batch))):
        rows += measure(candidates, *size, args)
    write_report(args.out, 'gcp', describe_machine(args.device), rows)
    draw(rows, args.out / 'gcp.png')


if __name__ == '__main__':
    main()
