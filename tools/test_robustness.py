"""Evaluate a classifier of MMPretrain on ImageNet-C and ImageNet-P, or on sets of their layout.

Or a detector of MMDetection on its config's test images under the 15 corruptions of COCO-C.

The results are saved part by part, so that a run that was stopped continues where it was; beside
them is a table in Markdown. Several processes: tools/dist_test_robustness.sh.
"""

import argparse
from pathlib import Path

from arguments import add_run_arguments, run, run_config_of

from gcp_mm._io import check_writable, write_atomically
from gcp_mm.robustness.baseline import load_baseline
from gcp_mm.robustness.detectors import evaluate_detector
from gcp_mm.robustness.errors import CORRUPTIONS, SEVERITIES
from gcp_mm.robustness.evaluation import evaluate
from gcp_mm.robustness.report import report, report_detector
from gcp_mm.robustness.results import robustness_of

# Arguments of evaluate alone, and of evaluate_detector alone
CLASSIFIER = ('imagenet_c', 'imagenet_p', 'clean', 'crop_size', 'resize')
DETECTOR = ('corruptions', 'severities')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        type=Path,
        help='JSON file of the results, resumed if it exists; by default robustness.json in the '
        'work dir',
    )
    parser.add_argument(
        '--skip-bad',
        action='store_true',
        help='leave out, count and list files that are unreadable or, of classifiers, give NaN, '
        'instead of stopping',
    )
    add = parser.add_argument_group('classifiers alone').add_argument
    add('--imagenet-c', metavar='ROOT', help='folder of <corruption>/<severity>/')
    add('--imagenet-p', metavar='ROOT', help='folder of <perturbation>/')
    add('--clean', metavar='ROOT', help='folder of clean images, for Relative mCE')
    add('--crop-size', type=int, help='width and height of the center crop; default: 224')
    add(
        '--resize',
        type=int,
        help='shorter edge of the clean images before the crop, 0 to leave them as they are; by '
        'default 256. Corrupted images are never resized',
    )
    add = parser.add_argument_group('detectors alone').add_argument
    add(
        '--corruptions',
        nargs='+',
        metavar='NAME',
        choices=CORRUPTIONS,
        help=f'corruptions to evaluate; default: all of {", ".join(CORRUPTIONS)}',
    )
    add(
        '--severities',
        nargs='+',
        type=int,
        choices=SEVERITIES,
        help='severities to evaluate; default: all',
    )
    args = parser.parse_args()
    if args.amp:
        parser.error('--amp: robustness is measured in float32, half precision makes ties; omit it')
    return args


def main():
    args = parse_args()
    if args.out:
        check_writable(args.out)
    cfg = run_config_of(args)
    is_detector = cfg.get('default_scope') == 'mmdet'
    given = {name: value for name, value in vars(args).items() if value is not None}
    own, others = (DETECTOR, CLASSIFIER) if is_detector else (CLASSIFIER, DETECTOR)
    if wrong := [name for name in others if name in given]:
        option = '--' + wrong[0].replace('_', '-')
        kinds = ('classifiers', 'a detector') if is_detector else ('detectors', 'a classifier')
        raise ValueError(f'{option}: for {kinds[0]} alone, and {args.config!r} is of {kinds[1]}')
    options = {name: given[name] for name in own if name in given}
    options |= dict(out=args.out, skip_bad=args.skip_bad, trust=args.trust)
    run_evaluation = evaluate_detector if is_detector else evaluate
    done = run_evaluation(cfg, args.checkpoint, **options)
    if done is None:  # not the first process
        return
    path, results = done
    if is_detector:
        page = report_detector(results)
    else:
        page = report(robustness_of(results), load_baseline(), results['parts'])
    write_atomically(path.with_suffix('.md'), page.encode())
    print(page)
    print(f'{path}, {path.with_suffix(".md")}')


if __name__ == '__main__':
    run(main)
