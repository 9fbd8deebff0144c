"""Convert weights of torchvision, of the paper's authors or of iSQRT-COV's to this project's.

Classifiers of all three, and detectors of MMDetection before 2.0, as the paper's authors have them.
"""

import argparse
from pathlib import Path

from arguments import add_trust_argument, run

from gcp_mm.checkpoints import convert_checkpoint, read_checkpoint


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', type=Path, help='checkpoint; the tool recognizes its network')
    parser.add_argument('target', type=Path, help='.pth file to write')
    parser.add_argument('--backbone-only', action='store_true', help='without neck and head')
    parser.add_argument(
        '--reverse', action='store_true', help="from this project's names to those of torchvision"
    )
    add_trust_argument(parser)
    parser.add_argument(
        '--publish', action='store_true', help="add 8 digits of the file's hash to its name"
    )
    parser.add_argument('--force', action='store_true', help='overwrite an earlier target')
    args = parser.parse_args()
    path = convert_checkpoint(**vars(args))
    if not args.reverse:
        meta = read_checkpoint(path)['meta']
        network = f'{meta["architecture"]}, {meta["num_classes"]} classes'
        if 'reduction' in meta:
            pooling = 'GAP' if meta['reduction'] is None else f'GCP, reduction={meta["reduction"]}'
            network = f'{meta["architecture"]} with {pooling}, {meta["num_classes"]} classes'
        print(f'recognized: {network}, by the names of {meta["source"]}')
    print(f'written: {path}')


if __name__ == '__main__':
    run(main)
