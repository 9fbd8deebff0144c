"""Write the feature vectors of the images in FOLDER/<class>/<image> to a file.

OUT is a NumPy archive: features (N, L), labels (N,), classes, files, stage and network. The vectors
go to the disk as they are computed, and a run that was stopped goes on with the same command.
"""

import argparse

from arguments import add_config_arguments, add_trust_argument, config_of
from mmengine.device import get_device

from gcp_mm import get_model
from gcp_mm.studies.feature_file import DTYPES
from gcp_mm.studies.features import STAGES, extract_features


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    add = parser.add_argument
    add('checkpoint', help='checkpoint file')
    add('folder', help='of images, <class>/<image>')
    add('out', help='file to write, .npz')
    add(
        '--stage',
        choices=STAGES,
        default=STAGES[0],
        help='neck: the covariance vector, or what another neck gives; backbone: the last map, '
        'averaged over its positions; pre_logits: the input of the last linear layer; '
        'default: %(default)s',
    )
    add('--dtype', choices=DTYPES, default=DTYPES[0], help='in the file; default: %(default)s')
    add('--batch-size', type=int, help="images in a pass; by default the config's for testing")
    add('--workers', type=int, help="processes that read images; by default the config's")
    add('--device', help='such as cuda:1; by default the accelerator, if there is one')
    add('--force', action='store_true', help='replace OUT')
    add_trust_argument(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = config_of(args)
    loader = cfg.get('test_dataloader') or {}
    model = get_model(cfg, args.checkpoint, args.device or get_device(), args.trust)
    extract_features(
        model,
        args.folder,
        args.out,
        stage=args.stage,
        batch_size=args.batch_size or loader.get('batch_size', 32),
        workers=loader.get('num_workers', 0) if args.workers is None else args.workers,
        dtype=args.dtype,
        force=args.force,
    )


if __name__ == '__main__':
    main()
