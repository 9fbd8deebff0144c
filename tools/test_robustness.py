"""Evaluate a classifier of MMPretrain on ImageNet-C and ImageNet-P, or on sets of their layout.

The results are saved part by part, so that a run that was stopped continues where it was; beside
them is a table in Markdown. Several processes: tools/dist_test_robustness.sh.
"""

import argparse
from pathlib import Path

from arguments import add_run_arguments, run, run_config_of

from gcp_mm._io import check_writable, write_atomically
from gcp_mm.robustness.baseline import ALEXNET, load_baseline
from gcp_mm.robustness.evaluation import evaluate
from gcp_mm.robustness.report import report
from gcp_mm.robustness.results import robustness_of

# Arguments of gcp_mm.robustness.evaluation.evaluate
EVALUATION = {
    '--imagenet-c': dict(metavar='ROOT', help='folder of <corruption>/<severity>/'),
    '--imagenet-p': dict(metavar='ROOT', help='folder of <perturbation>/'),
    '--clean': dict(metavar='ROOT', help='folder of clean images, for Relative mCE'),
    '--name': dict(help="name of the network in tables; by default the config's"),
    '--out': dict(
        type=Path,
        help='JSON file of the results, resumed if it exists; by default robustness.json in the '
        'work dir',
    ),
    '--classes': dict(
        metavar='FILE',
        help='names of the class folders in the order of the outputs of the network, one a line; '
        "by default ImageNet's, or the folders in their order",
    ),
    '--crop-size': dict(type=int, default=224, help='of all images; by default %(default)s'),
    '--resize': dict(
        type=int,
        default=256,
        help='shorter edge of the clean images before the crop, 0 to leave them as they are; by '
        'default %(default)s. Corrupted images are never resized',
    ),
    '--batch-size': dict(type=int, help="images per batch; by default the config's for testing"),
    '--skip-bad': dict(
        action='store_true',
        help='leave out, count and list files that are unreadable or give NaN, instead of stopping',
    ),
}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    for option, settings in EVALUATION.items():
        parser.add_argument(option, **settings)
    parser.add_argument(
        '--baseline',
        default=ALEXNET,
        help='file of the network that the metrics are normalized by; by default AlexNet',
    )
    args = parser.parse_args()
    if args.amp:
        parser.error('--amp: half precision makes ties of logits; leave it out')
    return args


def main():
    args = parse_args()
    if args.out:
        check_writable(args.out)
    baseline = load_baseline(args.baseline)
    names = [option.removeprefix('--').replace('-', '_') for option in EVALUATION]
    options = {name: getattr(args, name) for name in names}
    done = evaluate(run_config_of(args), args.checkpoint, trust=args.trust, **options)
    if done is None:  # not the first process
        return
    path, results = done
    page = report(robustness_of(results), baseline, results['parts'])
    write_atomically(path.with_suffix('.md'), page.encode())
    print(page)
    print(f'{path}, {path.with_suffix(".md")}')


if __name__ == '__main__':
    run(main)
