"""Write the feature vectors of the images in FOLDER/<class>/<image> to a file.

OUT.npy has the vectors, (N, L) float32, and OUT.json beside it their labels, classes, files, stage
and network. See docs/guides/features.md.
"""

import argparse
from pathlib import Path

from arguments import (
    add_config_arguments,
    add_trust_argument,
    check_outputs,
    config_of,
    device,
    run,
)

from mmengine.device import get_device

from gcp_mm import get_model
from gcp_mm.studies.features import STAGES, extract_features


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    add = parser.add_argument
    add('checkpoint', help='checkpoint file')
    add('folder', help='of images, <class>/<image>')
    add('out', help='file to write, .npy')
    add(
        '--stage',
        choices=STAGES,
        default='neck',
        help='neck: the covariance vector; backbone: the mean of the last map over its positions; '
        'pre_logits: the input of the last linear layer; default: %(default)s',
    )
    add('--batch-size', type=int, default=32, help='images at a time; default: %(default)s')
    add('--workers', type=int, default=2, help='processes that read images; default: %(default)s')
    add('--device', type=device, default=get_device(), help='default: %(default)s')
    add('--force', action='store_true', help='overwrite OUT')
    add_trust_argument(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    outputs = args.out, Path(args.out).with_suffix('.json')
    check_outputs(outputs, [args.config, args.checkpoint], [args.folder])
    model = get_model(config_of(args), args.checkpoint, args.device, args.trust)
    extract_features(
        model,
        args.folder,
        args.out,
        args.stage,
        batch_size=args.batch_size,
        workers=args.workers,
        force=args.force,
    )


if __name__ == '__main__':
    run(main)
