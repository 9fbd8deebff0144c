"""Compare the gradients of GCP, of GAP and of GAP with K-FAC: Table 1 of the paper in numbers.

GAP gets the backbone of the network with GCP, and a classifier that is fitted to it. Prints a
report and writes it to second_order.md, with second_order.json, in the output folder.
docs/guides/second_order.md explains the numbers.
"""

import argparse
from pathlib import Path

from arguments import add_config_arguments, add_trust_argument, config_of, run

from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from gcp_mm import get_model
from gcp_mm._io import check_writable, table_of_dicts, write_report
from gcp_mm.checks import check_config, raise_errors
from gcp_mm.studies.second_order import compare_gradients


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='its checkpoint, of a classifier with GCP')
    parser.add_argument(
        '--split',
        choices=('train', 'test'),
        default='train',
        help="which of the config's dataloaders the images come from",
    )
    parser.add_argument('--images', type=int, default=512, help='images to measure on, at least')
    parser.add_argument(
        '--head-images', type=int, default=5000, help='images to fit the GAP classifier to, at most'
    )
    parser.add_argument(
        '--damping',
        type=float,
        nargs='+',
        default=[1, 0.1, 0.01, 0.001, 0.0001],
        help="K-FAC's lambda",
    )
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/second_order'), help='folder for the results'
    )
    add_trust_argument(parser)
    args = parser.parse_args()
    if min(args.images, args.head_images, *args.damping) <= 0:
        parser.error('--images, --head-images and --damping: expected positive numbers')
    return args


def report(found):
    sections = [
        '# Gradients of GCP, GAP, and GAP with K-FAC',
        f'{found["images"]} images of the {found["split"]} set, network in evaluation mode. X has '
        f'{found["positions"]} positions, {found["channels"]} channels. W: `{found["layer"]}` of '
        f'`{found["checkpoint"]}`. The classifier with GAP is fitted to {found["head_images"]} '
        'images.',
        table_of_dicts(found['networks']),
        '## dL/dX of GCP, against eq. (6)',
        table_of_dicts(found['formulas']),
        '## dL/dW',
        table_of_dicts(found['weight']),
    ]
    return '\n\n'.join(sections) + '\n'


def main():
    args = parse_args()
    check_writable(args.out / 'second_order.json')
    cfg = config_of(args)
    raise_errors(check_config(cfg, args.split))
    model = get_model(cfg, args.checkpoint, get_device(), args.trust)
    init_default_scope(cfg.default_scope)
    set_random_seed(cfg.get('randomness', {}).get('seed') or 0)
    found = compare_gradients(
        model,
        Runner.build_dataloader(cfg[f'{args.split}_dataloader'], seed=0),
        args.images,
        args.head_images,
        args.damping,
        weight_decay=cfg.optim_wrapper.optimizer.get('weight_decay', 0),
    )
    found |= {name: getattr(args, name) for name in ('split', 'config', 'checkpoint')}
    write_report(args.out, 'second_order', report(found), found)


if __name__ == '__main__':
    run(main)
