"""Convergence curves of training runs and learning rates of configs, as in the paper's figures.

RUN_DIRs are work dirs of tools/train.py. The first is the reference: the table lists the epoch in
which each run reaches its final value (Table 2 of the paper).

    plot_curves.py work_dirs/resnet18_8xb32-lrnorm_in1k work_dirs/resnet18-gcp_8xb32-lradju_in1k
    plot_curves.py --lr configs/imagenet/resnet18-gcp_*.py
"""

import argparse
from pathlib import Path

from arguments import config_of, run

import gcp_mm  # noqa: F401  registers what configs name
from gcp_mm._io import markdown_table, write_report
from gcp_mm.checks import learning_rates
from gcp_mm.studies.curves import (
    first_reaching,
    plot_curves,
    plot_learning_rates,
    validation_curve,
)


def report_runs(names, run_dirs, metric, out):
    """Draw the runs' curves and write the table of matching epochs."""
    runs = dict(zip(names, run_dirs, strict=True))
    curves = {name: validation_curve(run, metric) for name, run in runs.items()}
    reference = names[0]
    target = curves[reference][max(curves[reference])]
    rows = [
        dict(
            run=name,
            epochs=max(curve),
            final=curve[max(curve)],
            best=max(curve.values()),
            matching_epoch=first_reaching(curve, target),
        )
        for name, curve in curves.items()
    ]
    cells = [
        [f'{v:.4g}' if isinstance(v, float) else v or 'not reached' for v in row.values()]
        for row in rows
    ]
    text = (
        f'{metric} by epoch; matching: first epoch with at least the final {target:.4g} of '
        f'{reference}.\n\n'
        + markdown_table(('run', 'epochs', 'final', 'best', 'matching epoch'), cells)
        + '\n'
    )
    write_report(out, 'curves', text, dict(metric=metric, table=rows, validation=curves))

    percent = metric.startswith('accuracy/')
    title = f'{metric.replace("accuracy/top", "top-")} accuracy (%)' if percent else metric
    drawn = {'validation': {name: [curve] for name, curve in curves.items()}}
    plot_curves(out / 'curves.png', drawn, title, (f'final of {reference}', target))
    print(f'written: {out}/curves.png')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', nargs='*', metavar='RUN_DIR', help='work dirs; GAP before GCP')
    parser.add_argument('--names', nargs='+', help='names of the runs; default: their folder names')
    parser.add_argument('--metric', default='accuracy/top1', help='name of the metric in the log')
    parser.add_argument(
        '--lr',
        nargs='+',
        default=[],
        metavar='CONFIG',
        help='draw the learning rates of these configs',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=1_281_167,
        help="size of the configs' training set (ImageNet), for schedules that go by iterations",
    )
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/curves'), help='folder for the results'
    )
    args = parser.parse_args()
    if not args.runs and not args.lr:
        parser.error('name RUN_DIRs, or configs after --lr')
    args.names = args.names or [Path(run).resolve().name for run in args.runs]
    if len(args.names) != len(args.runs) or len(set(args.names)) != len(args.names):
        parser.error(f'--names: expected {len(args.runs)} different names, got {args.names}')
    return args


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.runs:
        report_runs(args.names, args.runs, args.metric, args.out)
    if args.lr:
        cfgs = {
            path: config_of(argparse.Namespace(config=path, cfg_options={})) for path in args.lr
        }
        rates = {path: learning_rates(cfg, args.images) for path, cfg in cfgs.items()}
        plot_learning_rates(args.out / 'learning_rates.png', rates)
        print(f'written: {args.out}/learning_rates.png')


if __name__ == '__main__':
    run(main)
