"""Export a classifier to a file that runs without this package and without MMPretrain.

OUT ends in .pt2 (torch.export), .onnx (ONNX) or .pt (a trace in TorchScript). The file takes
batches of any number of images of one size, see docs/guides/export.md. Every export is validated
against the PyTorch model.
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

from gcp_mm import get_model
from gcp_mm.data import image_size
from gcp_mm.export import BATCHES, check_target, export_classifier, read_export
from gcp_mm.hub import input_channels

KNOWN = ('classes', 'scores', 'normalization', 'pipeline')  # of what a file says, where it can be


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('out', type=Path, metavar='OUT', help='file to write')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="size of the images, pixels; by default that of the config's test pipeline",
    )
    parser.add_argument(
        '--with-normalization',
        action='store_true',
        help='the file takes RGB images of 0 to 255 and normalizes them itself',
    )
    parser.add_argument(
        '--device', type=device, default='cpu', help='the device that runs the file, such as cuda'
    )
    parser.add_argument('--force', action='store_true', help='replace OUT where it exists')
    add_trust_argument(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    check_target(args.out, args.force)
    check_outputs([args.out], [args.config, args.checkpoint])
    cfg = config_of(args)
    if cfg.get('default_scope') == 'mmdet':
        raise ValueError(
            f'config: {args.config!r} is of a detector, and only classifiers are exported; '
            'docs/guides/export.md has how to export the backbone and FPN of a detector'
        )
    model = get_model(cfg, args.checkpoint, device=args.device, trust=args.trust)
    channels = input_channels(model)
    height, width = args.size or image_size(cfg, channels)
    print(f'writing {args.out} ...')
    difference = export_classifier(
        model, args.out, (height, width), args.with_normalization, args.force
    )
    kind = 'RGB, 0 to 255' if channels == 3 else '0 to 255'
    kind = kind if args.with_normalization else 'normalized as in training'
    print(f'takes   images (batch, {channels}, {height}, {width}), float32, {kind}')
    print('gives   logits (batch, classes)')
    said = read_export(args.out).metadata
    print(f'says    {", ".join(said)}')
    if unknown := [key for key in KNOWN if key not in said]:
        print(f'lacks   {", ".join(unknown)}, which could not be told: see docs/guides/export.md')
    print(
        f'largest difference from the network, of the largest logit: {difference:.1e} at batches '
        f'of {" and ".join(map(str, BATCHES))}'
    )


if __name__ == '__main__':
    run(main)
