"""Write the file of a baseline, for --baseline, from results of tools/test_robustness.py.

Several results are averaged, such as those of runs with different seeds.
"""

import argparse
from pathlib import Path

from arguments import check_outputs, run

from gcp_mm.robustness.baseline import load_baseline, mean_of
from gcp_mm.robustness.results import read_results, robustness_of


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('file', type=Path, help='JSON file to write')
    parser.add_argument('results', nargs='+', help='results of tools/test_robustness.py')
    parser.add_argument('--name', required=True, help='name of the baseline in tables')
    args = parser.parse_args()
    check_outputs([args.file], args.results)
    if args.file.exists():
        load_baseline(args.file)  # nothing else is written over
    mean_of(args.name, [robustness_of(read_results(path)) for path in args.results]).save(args.file)
    print(f'{args.name}: {args.file}')


if __name__ == '__main__':
    run(main)
