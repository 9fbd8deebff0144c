"""Measure a network that robustness is to be normalised by, and write its numbers for --baseline.

Commands:
  run   evaluate a checkpoint as tools/test_robustness.py does, by default torchvision's AlexNet
        with configs/robustness/alexnet_in1k.py
  mean  the mean of results that tools/test_robustness.py wrote
"""

import argparse
import io
from pathlib import Path

import torch
from arguments import add_run_arguments, run_config_of
from mmengine.runner.checkpoint import CheckpointLoader

from gcp_mm._io import write_atomically
from gcp_mm.robustness.baseline import mean_of
from gcp_mm.robustness.evaluation import (
    add_robustness_arguments,
    evaluate,
    read_results,
    robustness_of,
)

ALEXNET = 'torchvision://alexnet'


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    run = commands.add_parser('run', help='evaluate a checkpoint')
    mean = commands.add_parser('mean', help='the mean of results')
    for command in (run, mean):
        command.add_argument('file', type=Path, help='JSON file to write')
    add_run_arguments(run)
    run.add_argument(
        'checkpoint',
        nargs='?',
        default=ALEXNET,
        help="checkpoint file, or torchvision's file of AlexNet; by default that is downloaded",
    )
    add_robustness_arguments(run)
    mean.add_argument('results', nargs='+', help='results of tools/test_robustness.py')
    mean.add_argument('--name', required=True, help='of the network in tables')
    return parser.parse_args()


def under_mmpretrain_names(checkpoint, work_dir):
    """Path of a checkpoint, of torchvision's AlexNet one with the names of MMPretrain's."""
    if checkpoint != ALEXNET and not Path(checkpoint).is_file():
        return checkpoint  # the evaluation says what is wrong with it
    weights = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger=None)
    if 'features.0.weight' not in weights:
        return checkpoint
    # Not saved under the final name, which would be part of the content: all processes of a
    # distributed run write the same bytes.
    file = io.BytesIO()
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in weights.items()}), file)
    path = Path(work_dir) / 'alexnet.pth'
    write_atomically(path, file.getvalue())
    return str(path)


def main():
    args = parse_args()
    if args.command == 'run':
        args.checkpoint = under_mmpretrain_names(args.checkpoint, run_config_of(args).work_dir)
        done = evaluate(args)
        if done is None:  # not the first process
            return
        network = robustness_of(done[1])
    else:
        network = mean_of(args.name, [robustness_of(read_results(p)) for p in args.results])
    network.save(args.file)
    print(f'{network.name}: {args.file}')


if __name__ == '__main__':
    main()
