"""Evaluate a classifier of MMPretrain on ImageNet-C and ImageNet-P, or on sets of their layout.

Or a detector of MMDetection on its config's test images under the 15 corruptions of COCO-C.

The results are saved part by part, so that a run that was stopped continues where it was; beside
them is a table in Markdown. Several processes: tools/dist_test_robustness.sh.
"""

import argparse
from pathlib import Path

from arguments import add_run_arguments, run, run_config_of

from gcp_mm._io import check_writable, write_atomically
from gcp_mm.robustness.detectors import evaluate_detector
from gcp_mm.robustness.errors import CORRUPTIONS, SEVERITIES
from gcp_mm.robustness.evaluation import evaluate
from gcp_mm.robustness.report import report, report_detector
from gcp_mm.robustness.results import read_baseline, robustness_of

# Arguments of evaluate and evaluate_detector, and those of one of them alone
COMMON = {
    '--name': dict(help="name of the network in tables; by default the config's"),
    '--out': dict(
        type=Path,
        help='JSON file of the results, resumed if it exists; by default robustness.json in the '
        'work dir',
    ),
    '--batch-size': dict(type=int, help="images per batch; by default the config's for testing"),
    '--skip-bad': dict(
        action='store_true',
        help='leave out, count and list files that are unreadable or, of classifiers, give NaN, '
        'instead of stopping',
    ),
}
CLASSIFIER = {
    '--imagenet-c': dict(metavar='ROOT', help='folder of <corruption>/<severity>/'),
    '--imagenet-p': dict(metavar='ROOT', help='folder of <perturbation>/'),
    '--clean': dict(metavar='ROOT', help='folder of clean images, for Relative mCE'),
    '--classes': dict(
        metavar='FILE',
        help='names of the class folders in the order of the outputs of the network, one a line; '
        "by default ImageNet's, or the folders in their order",
    ),
    '--crop-size': dict(type=int, help='of all images; by default 224'),
    '--resize': dict(
        type=int,
        help='shorter edge of the clean images before the crop, 0 to leave them as they are; by '
        'default 256. Corrupted images are never resized',
    ),
    '--baseline': dict(
        action='append',
        metavar='FILE',
        help='results of this tool to normalize the metrics by; give it several times to average '
        "several networks; by default AlexNet's",
    ),
}
DETECTOR = {
    '--corruptions': dict(
        **dict(nargs='+', metavar='NAME', choices=CORRUPTIONS),
        help=f'of {", ".join(CORRUPTIONS)}; by default all',
    ),
    '--severities': dict(
        nargs='+', type=int, choices=SEVERITIES, help='of the corruptions; by default all'
    ),
}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    groups = {
        'results': COMMON,
        'classifiers alone': CLASSIFIER,
        'detectors alone': DETECTOR,
    }
    for title, options in groups.items():
        group = parser.add_argument_group(title)
        for option, settings in options.items():
            group.add_argument(option, default=argparse.SUPPRESS, **settings)
    args = parser.parse_args()
    if args.amp:
        parser.error('--amp: robustness is measured in float32, half precision makes ties; omit it')
    return args


def keyword(option):
    return option.removeprefix('--').replace('-', '_')


def main():
    args = parse_args()
    if 'out' in args:
        check_writable(args.out)
    baseline = read_baseline(getattr(args, 'baseline', ()))
    cfg = run_config_of(args)
    is_detector = cfg.get('default_scope') == 'mmdet'
    for option in CLASSIFIER if is_detector else DETECTOR:
        if keyword(option) in args:
            kinds = ('classifiers', 'a detector') if is_detector else ('detectors', 'a classifier')
            raise ValueError(
                f'{option}: for {kinds[0]} alone, and {args.config!r} is of {kinds[1]}'
            )
    names = map(keyword, {**COMMON, **(DETECTOR if is_detector else CLASSIFIER)})
    options = {name: getattr(args, name) for name in names if name in args and name != 'baseline'}
    run_evaluation = evaluate_detector if is_detector else evaluate
    done = run_evaluation(cfg, args.checkpoint, trust=args.trust, **options)
    if done is None:  # not the first process
        return
    path, results = done
    if is_detector:
        page = report_detector(results)
    else:
        page = report(robustness_of(results), baseline, results['parts'])
    write_atomically(path.with_suffix('.md'), page.encode())
    print(page)
    print(f'{path}, {path.with_suffix(".md")}')


if __name__ == '__main__':
    run(main)
