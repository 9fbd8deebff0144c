"""Write a config for your own images, check it, and print the training command.

DATA is a folder. To classify: <class>/<image>, or train/ and val/ with such folders. To detect or
segment: COCO files for training and validation, or one file that is split, and the images.
"""

import argparse
import os
import shlex
from pathlib import Path

from arguments import add_trust_argument, print_findings, run

from mmengine.logging import MMLogger

from gcp_mm.checkpoints import install_safe_readers
from gcp_mm.checks import run_checks
from gcp_mm.ops.arguments import check_integer
from gcp_mm.recipes import TASKS, write_config
from gcp_mm.runtime import load_config


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', type=Path, metavar='DATA', help='folder of the images')
    parser.add_argument('--task', choices=TASKS, required=True)
    parser.add_argument(
        '--network',
        default='resnet18-gcp',
        help='resnet18, 34, 50 or 101, with -gcp for covariance pooling; detectors also take '
        '-gcp-d and -gcp-m (default: resnet18-gcp)',
    )
    parser.add_argument(
        '--weights', metavar='FILE', help='checkpoint to start from; by default random weights'
    )
    parser.add_argument(
        '--size',
        type=int,
        help='side of the images in pixels, at least 32 (detectors: the longest side); default: '
        'chosen from the data',
    )
    parser.add_argument('--gpus', type=int, default=1, help='processes of the training')
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of a random split, if DATA has no validation set'
    )
    parser.add_argument('--out', type=Path, default='my_config.py', help='config to write')
    parser.add_argument('--force', action='store_true', help='replace existing files')
    add_trust_argument(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    check_integer('--gpus', args.gpus)
    files, notes = write_config(
        args.data,
        args.task,
        args.out,
        network=args.network,
        weights=args.weights,
        size=args.size,
        processes=args.gpus,
        seed=args.seed,
        trust=args.trust,
        force=args.force,
    )
    for note in notes:
        print(f'note: {note}')
    print(f'written: {", ".join(map(str, files))}; the checks of it:', flush=True)
    install_safe_readers(args.trust)
    MMLogger.get_current_instance().setLevel('WARNING')  # each weight's initialization is logged
    cfg = load_config(str(args.out))
    status = print_findings(run_checks(cfg, level='network', processes=args.gpus, trust=args.trust))
    if not status:
        tools = os.path.relpath(Path(__file__).parent)
        command = ['python', f'{tools}/train.py', str(args.out)]
        if args.gpus > 1:
            command = [f'{tools}/dist_train.sh', str(args.out), str(args.gpus)]
        print(f'next: {shlex.join(command)}')
    raise SystemExit(status)


if __name__ == '__main__':
    run(main)
