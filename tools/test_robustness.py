"""Evaluate a classifier of MMPretrain on ImageNet-C and ImageNet-P, or on sets of their layout.

The results are kept part by part, so that a run that was stopped goes on where it was; beside them
is a table in Markdown. Several processes: tools/dist_test_robustness.sh.
"""

import argparse

from arguments import add_run_arguments

from gcp_mm.robustness.baseline import ALEXNET, load_baseline
from gcp_mm.robustness.evaluation import (
    add_robustness_arguments,
    evaluate,
    robustness_of,
    write_results,
)
from gcp_mm.robustness.report import normalised, report


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    add_robustness_arguments(parser)
    parser.add_argument(
        '--baseline',
        default=ALEXNET,
        help='file of the network that the metrics are normalised by; by default AlexNet',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    baseline = load_baseline(args.baseline)
    done = evaluate(args)
    if done is None:  # not the first process
        return
    path, results = done
    network = robustness_of(results)
    results['normalised'] = normalised(network, baseline)
    write_results(path, results)
    page = report(network, baseline, results['parts'])
    path.with_suffix('.md').write_text(page)
    print(page)
    print(f'{path}, {path.with_suffix(".md")}')


if __name__ == '__main__':
    main()
