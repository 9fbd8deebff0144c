"""Fit the circuits that stand in for the Newton-Schulz iteration: python tools/fit_circuits.py.

The K steps of the iteration are a polynomial p of the trace-normalized matrix whose degree is far
above what its values on [0, 1] need. A circuit comes as close to it as float32 does with fewer
products, each of them the square of a symmetric matrix (gcp_mm/ops/circuit.py says how):

    Q_1 = x;  Q_{j+1} = a_j Q_j^2 + sum_{i <= j} b_{j,i} Q_i;  value = Q_{s+1} + c

Two kinds are fitted for each K: 'covariance', whose value is p(x) and c 0, and 'gram', whose value
is the r(x) of p(x) = x r(x)^2. Before the last step the sum over b may be cut to the last few Q_i,
its reach, which spares additions. The last step's a, b and c are a linear least-squares problem,
so those before it alone are searched for (variable projection), by Levenberg-Marquardt with
relative weight on Chebyshev nodes, from random starts; the best are polished. The seed of
every fit is its place in the table; another machine's rounding may lead a search elsewhere.
"""

import argparse
import json
from pathlib import Path

from arguments import run

import numpy as np
from scipy.optimize import least_squares
from tqdm import trange

from gcp_mm._io import write_atomically

TABLE = Path(__file__).resolve().parent.parent / 'gcp_mm/ops/circuits.json'
# (kind, iterations, squarings, reach, random starts); add yours. With fewer squarings or less reach
# the error exceeds 6e-7, with more it gains nothing in float32.
FITS = (
    ('gram', 3, 4, 4, 100),
    ('covariance', 3, 4, 2, 100),
    ('gram', 5, 5, 5, 400),
    ('covariance', 5, 6, 2, 100),
)


def newton_schulz(x, iterations):
    """Y_K and Z_K of the iteration at scalars `x` in [0, 1]: p(x) = Y_K, and r(x)^2 = Z_K."""
    y, z = x, np.ones_like(x)
    for _ in range(iterations):
        t = (3 - z * y) / 2
        y, z = y * t, t * z
    return y, z


def target_and_weight(kind, x, iterations):
    y, z = newton_schulz(x, iterations)
    if kind == 'gram':
        return np.sqrt(z), 1 / np.sqrt(z)
    return y, 1 / np.maximum(y, 1e-3)


def powers(theta, x, squarings, reach):
    """Q_1 ... Q_s at `x`, and the a and b that lead to them, scaled so that max |Q_j| = 1."""
    q, a, b, k = [x], [], [], 0
    for j in range(1, squarings):
        terms = min(j, reach)
        row = np.concatenate([np.zeros(j - terms), theta[k + 1 : k + 1 + terms]])
        following = theta[k] * q[-1] ** 2 + row @ np.array(q)
        scale = np.abs(following).max() or 1
        q.append(following / scale)
        a.append(theta[k] / scale)
        b.append((row / scale).tolist())
        k += 1 + terms
    return np.array(q), a, b


def last_step(kind, q, target, weight):
    """The best b_{s,i}, a_s and, for 'gram' alone (p has no constant), c; the weighted residual."""
    basis = [*q, q[-1] ** 2, *([np.ones_like(q[0])] if kind == 'gram' else [])]
    design = (np.array(basis) * weight).T
    solution = np.linalg.lstsq(design, target * weight, rcond=None)[0]
    return solution, design @ solution - target * weight


def fit(kind, iterations, squarings, reach, starts, seed):
    """The circuit of least error in float32 among the best tenth, an entry of circuits.json."""
    x = (1 - np.cos(np.pi * (np.arange(160) + 0.5) / 160)) / 2  # Chebyshev nodes of [0, 1]
    target, weight = target_and_weight(kind, x, iterations)
    size = sum(1 + min(j, reach) for j in range(1, squarings))

    def residual(theta):
        return last_step(kind, powers(theta, x, squarings, reach)[0], target, weight)[1]

    def search(theta, evaluations):
        options = dict(method='lm', max_nfev=evaluations * (size + 1))
        return least_squares(residual, theta, xtol=1e-15, ftol=1e-15, gtol=1e-15, **options)

    rng = np.random.default_rng(seed)
    name = f'{kind}, {iterations} iterations, {squarings} squarings'
    rough = [search(rng.normal(size=size), 60) for _ in trange(starts, desc=name)]
    rough.sort(key=lambda found: found.cost)
    circuits = []
    for found in rough[: max(1, starts // 10)]:
        q, a, b = powers(search(found.x, 2000).x, x, squarings, reach)
        solution = last_step(kind, q, target, weight)[0].tolist()
        *row, last_a, c = solution if kind == 'gram' else [*solution, 0.0]
        circuits.append(dict(kind=kind, iterations=iterations, a=[*a, last_a], b=[*b, row], c=c))
    # Large coefficients that cancel fit well in exact arithmetic, and lose it again in float32.
    best = min(circuits, key=lambda circuit: max_error(circuit, np.float32))
    return dict(best, max_error_of_p=max_error(best, np.float64))


def max_error(circuit, dtype, points=20001):
    """Largest |error| of p on a grid over [0, 1] that the fit has not seen, computed in `dtype`."""
    x = np.linspace(0, 1, points, dtype=dtype)
    q = [x]
    for a, b in zip(circuit['a'], circuit['b'], strict=True):
        q.append(dtype(a) * q[-1] ** 2 + np.array(b, dtype) @ np.array(q))
    value = q[-1] + dtype(circuit['c'])
    if circuit['kind'] == 'gram':
        value = x * value**2
    return float(np.abs(value - newton_schulz(x.astype(float), circuit['iterations'])[0]).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=TABLE, help='file to write')
    args = parser.parse_args()
    circuits = [fit(*what, seed) for seed, what in enumerate(FITS)]
    for circuit in circuits:
        print(
            f'{circuit["kind"]}, {circuit["iterations"]} iterations: {len(circuit["a"])} '
            f'squarings, largest error of p on [0, 1] {circuit["max_error_of_p"]:.2e}'
        )
    write_atomically(args.out, (json.dumps(circuits, indent=1) + '\n').encode())
    print(f'written: {args.out}')


if __name__ == '__main__':
    run(main)
