"""How sharp the loss of a checkpoint is in its weights, and a picture of its surroundings.

On some training images, with batch normalization's running statistics: the loss and its gradient,
the smallest and the largest eigenvalue, the trace and the spectral density of the Hessian, the
curvature along the gradient, the effective beta-smoothness along it, and the loss on a plane
through the weights (Li et al., 2018).
docs/guides/landscape.md says what the numbers mean.
"""

import argparse
from pathlib import Path

from arguments import add_config_arguments, add_trust_argument, config_of, run

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mmengine.dataset import default_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, init_default_scope
from tqdm import tqdm

from gcp_mm import get_model
from gcp_mm._io import check_writable, markdown_table, write_figure, write_report
from gcp_mm.checks import check_config, raise_errors
from gcp_mm.ops.precision import full_float32
from gcp_mm.studies.curvature import (
    Hessian,
    filter_normalized_direction,
    gradient,
    loss_surface,
    smoothness_along_gradient,
    spectrum_of,
)

ETAS = (0.001, 0.003, 0.01, 0.03, 0.1)  # steps along the gradient


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument(
        '--out', type=Path, help='folder; default: landscape/ beside the checkpoint'
    )
    parser.add_argument(
        '--images',
        type=int,
        default=128,
        help='number of random training images, loaded by the validation pipeline',
    )
    parser.add_argument('--batch-size', type=int, default=64, help='images at a time')
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed of the images and directions'
    )
    parser.add_argument(
        '--products',
        type=int,
        default=40,
        help='Hessian-vector products for the density, and as many for the trace',
    )
    parser.add_argument(
        '--tolerance', type=float, default=0.01, help='relative tolerance of the eigenvalues'
    )
    parser.add_argument('--grid', type=int, default=21, help='points from -1 to 1 along each axis')
    add_trust_argument(parser)
    args = parser.parse_args()
    if min(args.images, args.batch_size, args.tolerance) <= 0:
        parser.error('--images, --batch-size and --tolerance: expected positive numbers')
    if args.products < 2 or args.products % 2:
        parser.error(f'--products {args.products}: expected an even number from 2 on')
    if args.grid < 3 or args.grid % 2 == 0:
        parser.error(f'--grid {args.grid}: expected an odd number from 3 on, for a central point')
    args.out = args.out or Path(args.checkpoint).parent / 'landscape'
    return args


def read_batches(cfg, model, args):
    """Random images of the training set, as the model takes them."""
    dataset = cfg.train_dataloader.dataset
    dataset.pipeline = cfg.val_dataloader.dataset.pipeline
    dataset = DATASETS.build(dataset)
    generator = torch.Generator().manual_seed(args.seed)
    chosen = torch.randperm(len(dataset), generator=generator)[: args.images]
    return [
        model.data_preprocessor(default_collate([dataset[int(i)] for i in some]), training=False)
        for some in tqdm(chosen.split(args.batch_size), desc='images')
    ]


def measure(model, batches, args):
    params = [p for p in model.parameters() if p.requires_grad]
    total = sum(len(batch['inputs']) for batch in batches)

    def part(batch):  # of the mean loss over all images
        return model.parse_losses(model(**batch, mode='loss'))[0] * (len(batch['inputs']) / total)

    loss = [lambda batch=batch: part(batch) for batch in batches]
    generator = torch.Generator().manual_seed(args.seed)
    directions = [filter_normalized_direction(params, generator) for _ in range(2)]
    with torch.no_grad():
        value = sum(part() for part in loss).item()
    g = gradient(loss, params)
    torch.manual_seed(args.seed)  # of the vectors that the Hessian is multiplied with
    with tqdm(desc='Hessian', unit=' products') as bar:
        hessian = Hessian(loss, params, bar.update)
        sharpness = (g @ (hessian @ g) / (g @ g)).item()
        spectrum = spectrum_of(hessian, args.products, args.tolerance)
    steps = np.linspace(-1, 1, args.grid).tolist()
    return dict(
        images=total,
        loss=value,
        gradient_norm=g.norm().item(),
        **spectrum,
        sharpness_along_gradient=sharpness,
        etas=ETAS,
        smoothness=smoothness_along_gradient(loss, params, ETAS),
        steps=steps,
        surface=loss_surface(loss, params, directions, steps).tolist(),
    )


def report(found):
    rows = {
        'loss': found['loss'],
        'norm of the gradient': found['gradient_norm'],
        'smallest eigenvalue of the Hessian': found['smallest_eigenvalue'],
        'largest eigenvalue': found['largest_eigenvalue'],
        'trace': found['trace'],
        'curvature along the gradient': found['sharpness_along_gradient'],
        'effective beta-smoothness along it': max(found['smoothness']),
    }
    return markdown_table(('', ''), [(key, f'{value:.4g}') for key, value in rows.items()]) + '\n'


def draw(found, path):
    """The loss along each direction, and on their plane, and the density of the Hessian."""
    steps, surface = found['steps'], np.array(found['surface'])
    figure = Figure(figsize=(14, 4), layout='constrained')
    line, plane, spectrum = figure.subplots(1, 3)
    middle = len(steps) // 2
    line.plot(steps, surface[:, middle], label='direction 1')
    line.plot(steps, surface[middle], label='direction 2')
    line.set(xlabel='step', ylabel='loss', yscale='log')
    line.legend()
    line.grid(alpha=0.3)
    # No color where the loss is infinite or no number.
    logarithm = np.ma.masked_invalid(np.log10(np.maximum(surface, np.finfo(np.float32).tiny)))
    filled = plane.contourf(steps, steps, logarithm.T, levels=30)
    figure.colorbar(filled, label=r'$\log_{10}$ loss')
    plane.plot(0, 0, 'w+')
    plane.set(xlabel='direction 1', ylabel='direction 2', aspect='equal')
    spectrum.plot(found['density']['eigenvalues'], found['density']['values'])
    spectrum.set(xlabel='eigenvalue of the Hessian', ylabel='density', yscale='log')
    spectrum.grid(alpha=0.3)
    for axis in (line.xaxis, plane.xaxis, plane.yaxis, spectrum.xaxis):
        axis.set_major_locator(MaxNLocator(5))
    write_figure(path, figure, dpi=100)


def main():
    args = parse_args()
    check_writable(args.out / 'landscape.json')
    cfg = config_of(args)
    raise_errors(check_config(cfg, 'train'))
    init_default_scope(cfg.default_scope)
    model = get_model(cfg, args.checkpoint, get_device(), args.trust)
    batches = read_batches(cfg, model, args)
    with full_float32():
        found = measure(model, batches, args)
    settings = {key: getattr(args, key) for key in ('config', 'checkpoint', 'seed')}
    write_report(args.out, 'landscape', report(found), settings | found)
    draw(found, args.out / 'surface.png')
    print(f'written: {args.out}/surface.png')


if __name__ == '__main__':
    run(main)
