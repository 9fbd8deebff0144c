"""Compare the robustness of several networks: a table in Markdown and, of classifiers, a picture.

Several results under one name are runs of one network: their mean and spread is given.
"""

import argparse
from pathlib import Path

from arguments import check_outputs, run

from gcp_mm._io import write_atomically
from gcp_mm.robustness.detection import compare_detectors
from gcp_mm.robustness.report import compare, plot
from gcp_mm.robustness.results import is_of_detector, read_baseline, read_results, robustness_of


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'results',
        nargs='+',
        metavar='[NAME=]RESULTS.json',
        help='what tools/test_robustness.py wrote; by default the name is the one in it',
    )
    parser.add_argument(
        '--baseline',
        nargs='+',
        metavar='FILE',
        default=[],
        help='results to normalize the metrics by, of one network or of several to average; by '
        "default AlexNet's",
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/robustness'),
        help='where to write .md and .png, without the ending; by default %(default)s. Detectors '
        'have no .png',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    groups, paths, kinds = {}, [*args.baseline], {}
    for argument in args.results:
        label, _, path = argument.rpartition('=')
        paths.append(path)
        results = read_results(path)
        kinds[is_of_detector(results)] = path
        groups.setdefault(label or results['name'], []).append(results)
    if len(kinds) > 1:
        raise ValueError(f'{kinds[True]!r} is of a detector, {kinds[False]!r} of a classifier')
    page, picture = (args.out.with_name(args.out.name + ending) for ending in ('.md', '.png'))
    check_outputs([page, picture], paths)
    if True in kinds:
        tables = compare_detectors(groups)
        write_atomically(page, f'# Robustness\n\n{tables}\n'.encode())
        print(f'{tables}\n{page}')
        return
    baseline = read_baseline(args.baseline)
    groups = {label: list(map(robustness_of, runs)) for label, runs in groups.items()}
    plot(groups, baseline, picture)
    tables = compare(groups, baseline)
    text = f'# Robustness\n\n{tables}\n\n![robustness]({picture.name})\n'
    write_atomically(page, text.encode())
    print(f'{tables}\n{page}, {picture}')


if __name__ == '__main__':
    run(main)
