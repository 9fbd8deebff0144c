"""Draw the bands of the paper's Figure 2 from runs with LandscapeHook, and tabulate their width.

A run is its work dir (or the landscape.jsonl in it), as LABEL=PATH to name the network. Runs of one
label are seeds of one network, and are averaged. Ratios are those of the first label to the others:

    plot_landscape.py GAP=work_dirs/gap-seed{0,1,2} GCP=work_dirs/gcp-seed{0,1,2} --out work_dirs/x
"""

import argparse
from pathlib import Path

from arguments import run

import numpy as np

from gcp_mm._io import (
    markdown_table,
    mean_and_deviation,
    read_jsonl,
    write_atomically,
    write_figure,
)
from gcp_mm.studies.curves import panels
from gcp_mm.studies.landscape import FILE

FIELDS = dict(iter=int, etas=list, losses=list, gradient_distances=list)  # of a record
QUANTITIES = {
    'losses': ('loss', r'loss $M_l$'),
    'gradient_distances': ('gradient', r'distance of the gradients $M_g$'),
}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', nargs='+', metavar='[LABEL=]RUN', help='work dirs, GAP first')
    parser.add_argument('--out', type=Path, required=True, help='folder for the results')
    return parser.parse_args()


def read_networks(runs):
    """The steps all runs have measured, and the bands of each network there.

    Bands are {label: {quantity: (seeds, steps, 2)}}, the last axis smallest and largest value.
    """
    found = []
    for argument in runs:
        label, _, path = argument.rpartition('=')
        path = Path(path) / FILE if Path(path).is_dir() else Path(path)
        records = {record['iter']: record for record in read_jsonl(path, **FIELDS)}
        found.append((label or path.parent.name, path, records))
    steps = sorted(set.intersection(*(set(records) for *_, records in found)))
    if not steps:
        raise ValueError('the runs have no step in common at which all of them were measured')
    networks = {}
    for label, path, records in found:
        if any(records[step]['etas'] != found[0][2][steps[0]]['etas'] for step in steps):
            first = str(found[0][1])
            raise ValueError(f'{str(path)!r} was measured with another eta_range than {first!r}')
        network = networks.setdefault(label, {key: [] for key in QUANTITIES})
        for key, bands in network.items():
            values = [np.array(records[step][key]) for step in steps]
            if not all(each.dtype.kind in 'fi' and each.size for each in values):
                raise ValueError(f'{str(path)!r}: {key}: expected lists of numbers')
            bands.append([(each.min(), each.max()) for each in values])
    return steps, {
        label: {key: np.array(bands) for key, bands in network.items()}
        for label, network in networks.items()
    }


def table(networks):
    """Mean and maximum range of each network, and the ratio of the first one's to the others'."""
    first, *others = networks
    header = ['range over the steps eta', *networks, *(f'{first} / {other}' for other in others)]
    rows = []
    for key, (name, _) in QUANTITIES.items():
        widths = {label: np.ptp(bands[key], axis=2) for label, bands in networks.items()}
        for kind, reduce in (('mean', np.mean), ('maximum', np.max)):
            values = {label: reduce(width, axis=1) for label, width in widths.items()}  # of seeds
            ratios = [np.divide.outer(values[first], values[other]).ravel() for other in others]
            rows.append([f'{name}, {kind}', *map(mean_and_deviation, [*values.values(), *ratios])])
    return markdown_table(header, rows)


def draw(steps, networks, path):
    figure, (row,) = panels(len(QUANTITIES))
    for axes, (key, (_, title)) in zip(row, QUANTITIES.items(), strict=True):
        for k, (label, bands) in enumerate(networks.items()):
            low, high = bands[key].mean(0).T
            axes.fill_between(steps, low, high, color=f'C{k}', alpha=0.3, lw=0, label=label)
            for edge in (low, high):
                axes.plot(steps, edge, color=f'C{k}', lw=1)
        values = np.concatenate([bands[key].mean(0).ravel() for bands in networks.values()])
        if values.min() > 0 and values.max() > 30 * values.min():
            axes.set_yscale('log')
        axes.set(xlabel='step', ylabel=title)
    row[0].legend()
    write_figure(path, figure, dpi=120)


def main():
    args = parse_args()
    steps, networks = read_networks(args.runs)
    seeds = ', '.join(f'{label} {len(bands["losses"])}' for label, bands in networks.items())
    text = (
        f'{len(steps)} measurements from step {steps[0]} to {steps[-1]}; runs: {seeds}. '
        'Mean ± standard deviation over the runs, of ratios over all pairs of runs.\n\n'
        f'{table(networks)}\n'
    )
    write_atomically(args.out / 'landscape.md', text.encode())
    draw(steps, networks, args.out / 'landscape.png')
    print(text)
    print(f'written: {args.out}/landscape.md, landscape.png')


if __name__ == '__main__':
    run(main)
