"""Compare the robustness of several classifiers: a table in Markdown and a picture.

Several results under one name are runs of one network: their mean and spread is given.
"""

import argparse
from pathlib import Path

from arguments import check_outputs, run

from gcp_mm._io import write_atomically
from gcp_mm.robustness.report import compare, plot
from gcp_mm.robustness.results import read_baseline, read_results, robustness_of


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'results',
        nargs='+',
        metavar='[NAME=]RESULTS.json',
        help='results of tools/test_robustness.py; default of NAME: the name in the file',
    )
    parser.add_argument(
        '--baseline',
        action='append',
        metavar='FILE',
        default=[],
        help='results to normalize the metrics by; give it several times to average several '
        "networks; by default AlexNet's",
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/robustness'),
        help='path of the .md and .png files, without the suffix; default: %(default)s',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    groups, paths = {}, [*args.baseline]
    for argument in args.results:
        label, _, path = argument.rpartition('=')
        paths.append(path)
        network = robustness_of(read_results(path))
        groups.setdefault(label or network.name, []).append(network)
    page, picture = (args.out.with_name(args.out.name + ending) for ending in ('.md', '.png'))
    check_outputs([page, picture], paths)
    baseline = read_baseline(args.baseline)
    plot(groups, baseline, picture)
    tables = compare(groups, baseline)
    text = f'# Robustness\n\n{tables}\n\n![robustness]({picture.name})\n'
    write_atomically(page, text.encode())
    print(f'{tables}\n{page}, {picture}')


if __name__ == '__main__':
    run(main)
