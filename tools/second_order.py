"""Compare the gradients of GCP, of GAP and of GAP with K-FAC: Table 1 of the paper in numbers.

GAP gets the backbone of the network with GCP, and a classifier that is fitted to it. Prints a
report and writes it to second_order.md, with second_order.json and second_order.png, in the output
folder. docs/guides/second_order.md explains the numbers.
"""

import argparse
from pathlib import Path

from arguments import add_config_arguments, add_trust_argument, config_of, run

from matplotlib.figure import Figure
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from gcp_mm import get_model
from gcp_mm._io import check_writable, table_of_dicts, write_figure, write_report
from gcp_mm.checks import check_config, raise_errors
from gcp_mm.studies.second_order import compare_gradients


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='its checkpoint, of a classifier with GCP')
    parser.add_argument(
        '--split',
        choices=('train', 'test'),
        default='train',
        help="which of the config's dataloaders the images come from",
    )
    parser.add_argument('--images', type=int, default=512, help='images to measure on, at least')
    parser.add_argument(
        '--head-images', type=int, default=5000, help='images to fit the GAP classifier to, at most'
    )
    parser.add_argument(
        '--damping',
        type=float,
        nargs='+',
        default=[1, 0.1, 0.01, 0.001, 0.0001],
        help="K-FAC's lambda",
    )
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/second_order'), help='folder for the results'
    )
    add_trust_argument(parser)
    args = parser.parse_args()
    if min(args.images, args.head_images, *args.damping) <= 0:
        parser.error('--images, --head-images and --damping: expected positive numbers')
    return args


def table(rows, decimals=3):
    """Markdown table of the rows; cosines have a fixed number of decimals."""

    def shown(key, value):
        if key.startswith('cosine') or key in ('min', 'max'):
            return f'{round(value, decimals) + 0.0:.{decimals}f}'  # never a negative zero
        return value

    return table_of_dicts([{key: shown(key, value) for key, value in row.items()} for row in rows])


def report(found):
    sections = [
        '# Gradients of GCP, GAP, and GAP with K-FAC',
        f'{found["images"]} images of the {found["split"]} set, network in evaluation mode. X has '
        f'{found["positions"]} positions, {found["channels"]} channels. W: `{found["layer"]}` of '
        f'`{found["checkpoint"]}`. The classifier with GAP is fitted to {found["head_images"]} '
        'images.',
        table(found['networks']),
        '## dL/dX of GCP, against eq. (6)',
        table(found['formulas'], 4),
        '## dL/dX of each image: medians',
        table(found['features']),
        '## dL/dW',
        table(found['weight']),
    ]
    return '\n\n'.join(sections) + '\n'


def plot(rows, path):
    """Cosines of GAP + K-FAC, against the damping."""
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    damped = sorted((row for row in rows if 'damping' in row), key=lambda row: row['damping'])
    for name, marker in (('GAP', 's'), ('GCP', 'o')):
        cosines = [row[f'cosine with {name}'] for row in damped]
        axes.plot([row['damping'] for row in damped], cosines, marker=marker, label=f'with {name}')
    axes.axhline(rows[0]['cosine with GAP'], color='gray', ls='--', lw=1, label='of GAP with GCP')
    axes.set(xscale='log', xlabel='damping', ylabel='cosine of GAP + K-FAC, at dL/dW')
    axes.grid(alpha=0.3)
    axes.legend()
    write_figure(path, figure, dpi=150)


def main():
    args = parse_args()
    check_writable(args.out / 'second_order.json')
    cfg = config_of(args)
    raise_errors(check_config(cfg, args.split))
    model = get_model(cfg, args.checkpoint, get_device(), args.trust)
    init_default_scope(cfg.default_scope)
    set_random_seed(cfg.get('randomness', {}).get('seed') or 0)
    found = compare_gradients(
        model,
        Runner.build_dataloader(cfg[f'{args.split}_dataloader'], seed=0),
        args.images,
        args.head_images,
        args.damping,
        weight_decay=cfg.optim_wrapper.optimizer.get('weight_decay', 0),
    )
    found |= {name: getattr(args, name) for name in ('split', 'config', 'checkpoint')}
    write_report(args.out, 'second_order', report(found), found)
    plot(found['weight'], args.out / 'second_order.png')


if __name__ == '__main__':
    run(main)
