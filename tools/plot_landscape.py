"""Draw the bands of the paper's Figure 2 from runs with LandscapeHook, and tabulate their width.

A run is its work dir (or the landscape.jsonl in it), as LABEL=PATH to name the network. Runs of one
label are seeds of one network, and are averaged. Ratios are those of the first label to the others:

    plot_landscape.py GAP=work_dirs/gap-seed{0,1,2} GCP=work_dirs/gcp-seed{0,1,2} --out work_dirs/x
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from gcp_mm._io import read_jsonl

matplotlib.use('Agg')
import matplotlib.pyplot as plt

FILE = 'landscape.jsonl'
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
    args = parser.parse_args()
    try:
        args.steps, args.networks = read_networks(args.runs)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return args


def read_networks(runs):
    """The steps all runs have measured, and the bands of each network there.

    Bands are {label: {quantity: (seeds, steps, 2)}}, the last axis smallest and largest value.
    """
    records = {}
    for run in runs:
        label, _, path = run.rpartition('=')
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        found = {record['iter']: record for record in read_jsonl(path)}
        if not found:
            raise ValueError(f'{path} holds no measurement; train with LandscapeHook')
        records.setdefault(label or path.parent.name, []).append((path, found))
    everything = [pair for seeds in records.values() for pair in seeds]
    steps = sorted(set.intersection(*(set(found) for _, found in everything)))
    if not steps:
        raise ValueError('the runs have no step in common at which all of them were measured')
    etas = {str(path): found[steps[0]]['etas'] for path, found in everything}
    for path, its_etas in etas.items():
        if its_etas != next(iter(etas.values())):
            raise ValueError(f'{path} was measured with another eta_range than {next(iter(etas))}')
    networks = {
        label: {
            key: np.array([[(min(r[s][key]), max(r[s][key])) for s in steps] for _, r in seeds])
            for key in QUANTITIES
        }
        for label, seeds in records.items()
    }
    return steps, networks


def widths(bands):
    """Mean and maximum over the steps of the width of the bands, of each seed."""
    width = bands[..., 1] - bands[..., 0]
    return dict(mean=width.mean(1), maximum=width.max(1))


def table(networks):
    """Rows: mean and maximum range. Columns: the networks, then the first one's share of others."""
    first, *others = networks
    head = ['range over the steps eta', *networks, *(f'{first} / {other}' for other in others)]
    rows = [head, ['---'] * len(head)]
    for key, (name, _) in QUANTITIES.items():
        per_network = {label: widths(bands[key]) for label, bands in networks.items()}
        for kind in ('mean', 'maximum'):
            values = {label: found[kind] for label, found in per_network.items()}
            # Every run of the one by every run of the other
            ratios = [(values[first][:, None] / values[other]).ravel() for other in others]
            rows.append([f'{name}, {kind}', *map(spread, [*values.values(), *ratios])])
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def spread(values):
    """Mean and, of more than one value, standard deviation."""
    if len(values) == 1:
        return f'{values[0]:.3g}'
    return f'{values.mean():.3g} ± {values.std(ddof=1):.2g}'


def draw(steps, networks, path):
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout='constrained')
    for axes, (key, (_, title)) in zip(panels, QUANTITIES.items(), strict=True):
        for k, (label, bands) in enumerate(networks.items()):
            low, high = bands[key].mean(0).T
            colour = f'C{k}'
            axes.fill_between(steps, low, high, color=colour, alpha=0.3, lw=0, label=label)
            for edge in (low, high):
                axes.plot(steps, edge, color=colour, lw=1)
        values = np.concatenate([bands[key].mean(0).ravel() for bands in networks.values()])
        if values.min() > 0 and values.max() > 30 * values.min():
            axes.set_yscale('log')
        axes.set(xlabel='step', ylabel=title)
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    args = parse_args()
    steps, networks = args.steps, args.networks
    seeds = ', '.join(f'{label} {len(bands["losses"])}' for label, bands in networks.items())
    text = (
        f'{len(steps)} measurements from step {steps[0]} to {steps[-1]}; runs: {seeds}. '
        'Mean ± standard deviation over the runs, of ratios over all pairs of runs.\n\n'
        f'{table(networks)}\n'
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'landscape.md').write_text(text)
    draw(steps, networks, args.out / 'landscape.png')
    print(text)
    print(f'written: {args.out}/landscape.md, landscape.png')


if __name__ == '__main__':
    main()
