"""Time, memory and error of the pooling layer beside others: benchmark_gcp.py --out DIR.

Candidates take turns in one process; read the ratios, the times depend on what else the machine
does. Every size gives a row for each of them: seconds forward and forward + backward, how many
times faster than the textbook layer, how many times the time of the plain covariance, and what
autograd keeps for the backward beyond the features. 'SoT, svPN' is compared with the same
cross-covariances without svPN; both take tokens of 6 heads of 24 channels, whatever D is.

Errors are relative, of the first two samples, in the Frobenius norm. `reference` says what output
and gradient are measured against, always in float64: the Newton-Schulz iterations, the exact
root, or the same function. The last column compares the output of every root with the exact one.
"""

import argparse
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import peers
import torch
from isqrt_cov import isqrt_cov
from measure import describe_machine, interleave, saved_bytes, write_report
from torch import Tensor
from tqdm import tqdm

from gcp_mm.ops import (
    DropCov,
    covariance,
    global_covariance_pooling,
    matrix_sqrt_newton_schulz,
    svpn,
    triu_vector,
)
from gcp_mm.ops.covariance import cross_covariance

TEXTBOOK, EXTENSION = 'textbook iSQRT-COV', 'circuit, C++'
GAP, COVARIANCE = 'GAP', 'plain covariance'
CROSS_COVARIANCE = 'SoT, no norm'
ITERATIONS, ROOT, ITSELF = '5 iterations', 'exact root', 'itself'
dropcov = DropCov()
REFERENCES = {
    ITERATIONS: functools.partial(global_covariance_pooling, method='newton_schulz'),
    ROOT: functools.partial(global_covariance_pooling, norm='eigh'),
}


def cross_covariances(tokens: Tensor) -> Tensor:
    """(B, N, 2 * 6 * 24) projected tokens to (B, 6, 24, 24), as the SoT head has them."""
    queries, keys = tokens.unflatten(2, (2, 6, 24)).permute(2, 0, 3, 1, 4)
    return cross_covariance(queries, keys)


def normalized_cross_covariances(tokens: Tensor) -> Tensor:
    """The same after svPN."""
    matrices = cross_covariances(tokens).flatten(0, 1)
    return svpn(matrices, matrices.new_ones(24)).unflatten(0, (-1, 6))


class Candidate(NamedTuple):
    """A function of the features, and what it is compared with.

    Attributes:
        pool: takes (B, D, N) features, or (B, N, 288) tokens if the floor does; gives any shape.
        reference: what its errors are measured against; None for a random function.
        floor: the candidate whose time is the unit of 'x covariance'.
    """

    pool: Callable[[Tensor], Tensor]
    reference: str | None = ITERATIONS
    floor: str = COVARIANCE


CANDIDATES = {
    TEXTBOOK: Candidate(isqrt_cov),
    'autograd iteration, D x D': Candidate(
        lambda x: triu_vector(matrix_sqrt_newton_schulz(covariance(x)))
    ),
    'newton_schulz': Candidate(lambda x: global_covariance_pooling(x, method='newton_schulz')),
    'circuit, PyTorch': Candidate(lambda x: global_covariance_pooling(x, method='circuit')),
    EXTENSION: Candidate(lambda x: global_covariance_pooling(x, method='cpp')),
    'auto': Candidate(global_covariance_pooling),
    GAP: Candidate(lambda x: x.mean(2), ITSELF),
    COVARIANCE: Candidate(lambda x: global_covariance_pooling(x, norm='none'), ITSELF),
}
METHODS = {
    'MPN-COV, eigh in float64': Candidate(peers.mpn_cov, ROOT),
    'MPA-Lya, Pade and Lyapunov': Candidate(peers.mpa_lya, ROOT),
    'textbook B-CNN': Candidate(peers.bilinear, ITSELF),
    **{
        name: Candidate(functools.partial(global_covariance_pooling, norm=name), reference)
        for name, reference in dict(
            eigh=ROOT, power=ROOT, log=ITSELF, cholesky=ITSELF, signed_sqrt_l2=ITSELF
        ).items()
    },
    'DropCov, training': Candidate(
        lambda x: global_covariance_pooling(dropcov(x[..., None]), norm='none'), None
    ),
    CROSS_COVARIANCE: Candidate(cross_covariances, ITSELF, CROSS_COVARIANCE),
    'SoT, svPN': Candidate(normalized_cross_covariances, ITSELF, CROSS_COVARIANCE),
}


def measure(candidates, channels, positions, batch, args):
    """One row for each candidate at one size."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, channels, positions, generator=generator).relu()
    tokens = torch.randn(batch, positions, 288, generator=generator)
    features, tokens = (x.to(args.device).requires_grad_() for x in (features, tokens))
    exact = {
        name: output_and_gradient(pool, features.double()) for name, pool in REFERENCES.items()
    }

    forward, both, saved, errors = {}, {}, {}, {}
    for name, (pool, reference, floor) in candidates.items():
        x = tokens if floor == CROSS_COVARIANCE else features
        grad = torch.randn_like(pool(x).detach())
        forward[name] = lambda pool=pool, x=x: pool(x.detach())
        both[name] = lambda pool=pool, x=x, grad=grad: torch.autograd.grad(pool(x), x, grad)
        saved[name] = saved_bytes(lambda pool=pool, x=x: pool(x), x)
        errors[name] = dict.fromkeys(('output error', 'gradient error', 'to exact root'))
        if reference is not None:
            out, gradient = output_and_gradient(pool, x)
            expected = exact.get(reference) or output_and_gradient(pool, x.double())
            errors[name]['output error'] = relative_error(out, expected[0])
            errors[name]['gradient error'] = relative_error(gradient, expected[1])
        if reference in REFERENCES:
            errors[name]['to exact root'] = relative_error(out, exact[ROOT][0])
    seconds = interleave(forward, args.repeats, args.device, args.seconds)
    seconds_both = interleave(both, args.repeats, args.device, args.seconds)
    return [
        {
            **dict(D=channels, N=positions, B=batch, candidate=name),
            'forward ms': seconds[name] * 1e3,
            'forward + backward ms': seconds_both[name] * 1e3,
            'x textbook': seconds_both[TEXTBOOK] / seconds_both[name],
            'x covariance': seconds_both[name] / seconds_both[candidate.floor],
            'saved MiB/image': saved[name] / batch / (1 << 20),
            'reference': candidate.reference,
            **errors[name],
        }
        for name, candidate in candidates.items()
    ]


def output_and_gradient(pool, x):
    """Of the first two samples, the gradient for fixed random weights of the output."""
    x = x[:2].detach().requires_grad_()
    out = pool(x)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return out.detach(), torch.autograd.grad(out, x, weight.to(out))[0]


def relative_error(found, expected):
    """In the Frobenius norm."""
    return ((found - expected).norm() / expected.norm()).item()


def profile(channels, positions, batch):
    """PyTorch's table of the largest operators in forward + backward of 'auto', on a CPU."""
    x = torch.randn(batch, channels, positions).relu().requires_grad_()
    grad = torch.randn(batch, channels * (channels + 1) // 2)

    def step():
        torch.autograd.grad(global_covariance_pooling(x), x, grad)

    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            step()
    return profiler.key_averages().table(sort_by='self_cpu_time_total', row_limit=6)


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
        '--methods', action='store_true', help='also other methods, and other authors'
    )
    parser.add_argument(
        '--profile', action='store_true', help="also print the operators in 'auto', on a CPU"
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/gcp'), help='folder')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    dropcov.to(args.device)
    candidates = CANDIDATES | (METHODS if args.methods else {})
    if not args.extension:
        del candidates[EXTENSION]
    rows = []
    sizes = list(itertools.product(args.channels, args.positions, args.batch))
    for size in tqdm(sizes):
        rows += measure(candidates, *size, args)
    write_report(args.out, 'gcp', describe_machine(args.device), rows)
    for size in sizes if args.profile else ():
        print('D = {}, N = {}, B = {}'.format(*size), profile(*size), sep='\n')


if __name__ == '__main__':
    main()
