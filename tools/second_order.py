"""Compare the gradients of GCP, of GAP and of GAP with K-FAC: Table 1 of the paper in numbers.

Prints a report and writes it to second_order.md, with second_order.json and second_order.png, in
the output folder. docs/second_order.md says what the numbers mean.
"""

import argparse
import copy
import json
import math
from pathlib import Path
from statistics import fmean, median

import matplotlib
import torch
from arguments import add_trust_argument
from mmengine.config import DictAction
from mmengine.runner import Runner
from mmpretrain.models.necks import GlobalAveragePooling
from torch import nn
from tqdm import tqdm

from gcp_mm.checkpoints import check_checkpoint_file, install_safe_readers, load_pretrained
from gcp_mm.checks import check_config, raise_errors
from gcp_mm.models import GlobalCovariancePooling
from gcp_mm.ops import global_covariance_pooling
from gcp_mm.ops.psd_eigh import psd_eigh
from gcp_mm.runtime import launch, load_config
from gcp_mm.studies.kfac import damping_shares, kfac_layers
from gcp_mm.studies.second_order import (
    Spectrum,
    cosine,
    fit_head,
    last_conv,
    measure_formulas,
    measure_gradients,
    spectrum,
)

matplotlib.use('Agg')
import matplotlib.pyplot as plt


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of a classifier with GCP')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument(
        '--gap',
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        required=True,
        help='config and checkpoint of the classifier with GAP',
    )
    parser.add_argument(
        '--split',
        choices=('train', 'test'),
        default='train',
        help="which of the first config's dataloaders the images come from",
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
    parser.add_argument('--out', default='work_dirs/second_order', help='folder for the results')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, help='override both configs'
    )
    add_trust_argument(parser)
    args = parser.parse_args()
    for name, value in (('--images', args.images), ('--head-images', args.head_images)):
        if value < 1:
            parser.error(f'{name} {value}: expected at least 1')
    if min(args.damping) <= 0:
        parser.error(f'--damping {min(args.damping)}: expected positive numbers')
    return args


class Network:
    """A classifier of MMPretrain, its checkpoint loaded, cut at the input X of its pooling layer.

    Args:
        runner: holds the model.
        checkpoint: file.
        neck_type: of the neck the model has to have.
        trust: read a file that holds Python objects.

    Raises:
        ValueError: if it has another.
    """

    def __init__(self, runner, checkpoint, neck_type, trust=False):
        self.model = runner.model
        if not isinstance(getattr(self.model, 'neck', None), neck_type):
            raise ValueError(
                f'{runner.cfg.filename}: expected a classifier whose neck is a '
                f'{neck_type.__name__}, got {type(getattr(self.model, "neck", None)).__name__}'
            )
        load_pretrained(self.model, checkpoint, trust=trust)
        self.model.eval()
        self.config, self.checkpoint = str(runner.cfg.filename), checkpoint

    def batch(self, data):
        """Images and targets of what a dataloader gives, as the network wants them."""
        data = self.model.data_preprocessor(data, training=False)
        return data['inputs'], torch.cat([sample.gt_label for sample in data['data_samples']])

    def features(self, images):
        x = self.model.extract_feat(images, stage='backbone')[-1]
        return getattr(self.model.neck, 'reduction', nn.Identity())(x)

    def classify(self, x):
        neck = self.model.neck
        if isinstance(neck, GlobalCovariancePooling):
            x = global_covariance_pooling(x, neck.iterations, neck.norm, neck.method)
            return self.model.head((x,))
        return self.model.head(neck((x,)))

    def loss(self, scores, targets):
        return self.model.head.loss_module(scores, targets)

    def last_conv(self, images):
        """Name and layer, which has to be one that K-FAC is for."""
        name = last_conv(lambda: self.features(images), self.model)
        layers = kfac_layers(self.model)
        if name not in layers:
            raise ValueError(f'{self.config}: K-FAC is not made for its last convolution, {name}')
        return name, layers[name]


def use(config, args, run):
    """Build the Runner of a config, as tools/test.py does, and give it to `run`."""
    cfg = load_config(config, args.cfg_options, work_dir=args.out)
    raise_errors(check_config(cfg, args.split))
    return launch(cfg, run)


@torch.no_grad()
def read(network, loader, args):
    """Batches to measure on, as the loader gives them; mean X and targets for a classifier."""
    data, vectors, targets, seen = [], [], [], 0
    wanted = max(args.images, args.head_images)
    with tqdm(total=min(wanted, len(loader.dataset)), desc='read', unit='image') as bar:
        for one in loader:
            if seen < args.images:
                data.append(one)
            images, labels = network.batch(one)
            vectors.append(network.features(images).mean((2, 3)))
            targets.append(labels)
            seen += len(images)
            bar.update(len(images))
            if seen >= wanted:
                break
    return data, torch.cat(vectors)[: args.head_images], torch.cat(targets)[: args.head_images]


def summary(values):
    """Of the images that have a number: one whose gradient is zero has no cosine, for example."""
    finite = [value for value in values if math.isfinite(value)]
    values = finite or [math.nan]
    return dict(
        images=len(finite),
        mean=fmean(values),
        min=min(values),
        median=median(values),
        max=max(values),
    )


def per_image(matrices):
    """Spectra of each image's matrix."""
    columns = zip(*map(spectrum, matrices), strict=True)
    return dict(zip(Spectrum._fields, map(summary, columns), strict=True))


def kfac_rows(gradients, name, dampings, references):
    """What K-FAC makes of a layer's gradient, for each damping."""
    factors = gradients.factors[name]
    # One eigendecomposition serves every damping, and gives the condition numbers.
    (lam_a, u_a), (lam_g, u_g) = map(psd_eigh, factors)
    gradient = gradients.layers[name]
    rotated = u_g.mT @ gradient.double() @ u_a
    for damping in dampings:
        share_a, share_g = damping_shares(*factors, damping)
        of_a, of_g = lam_a.clamp(min=0) + share_a, lam_g.clamp(min=0) + share_g
        yield weight_row(
            f'GAP + K-FAC, damping {damping:g}',
            (u_g @ (rotated / of_g[:, None] / of_a) @ u_a.mT).to(gradient.dtype),
            references,
            damping=damping,
            preconditioner_condition=(of_a.max() / of_a.min() * of_g.max() / of_g.min()).item(),
        )


def weight_row(name, gradient, references, **more):
    cosines = {key: cosine(gradient, other) for key, other in references.items()}
    return dict(gradient=name, **spectrum(gradient)._asdict(), cosine=cosines, **more)


def measure_gcp(runner, args):
    """The network with GCP: eq. (6) and (7), and GAP beside GCP on the same trunk.

    Returns:
        The results, and the data they were measured on.
    """
    network = Network(runner, args.checkpoint, GlobalCovariancePooling, args.trust)
    head = network.model.head
    loader = Runner.build_dataloader(runner.cfg[f'{args.split}_dataloader'], seed=0)
    data, vectors, targets = read(network, loader, args)
    batches = [network.batch(one) for one in data]
    name, conv = network.last_conv(batches[0][0])
    decay = runner.cfg.optim_wrapper.optimizer.get('weight_decay', 0)
    fitted = fit_head(vectors, targets, network.loss, head.num_classes, decay)

    gcp = measure_gradients(
        *(network.features, network.classify, network.loss, {name: conv}),
        tqdm(batches, desc='GCP', unit='batch'),
    )
    gap = measure_gradients(
        *(network.features, lambda x: fitted(x.mean((2, 3))), network.loss),
        {name: conv, 'classifier': fitted},
        tqdm(batches, desc='GAP on the same trunk', unit='batch'),
    )
    references = dict(GCP=gcp.layers[name], GAP=gap.layers[name])
    weight = [
        weight_row('GCP', gcp.layers[name], references),
        weight_row('GAP', gap.layers[name], references),
        *kfac_rows(gap, name, args.damping, references),
    ]
    classifier = dict(GAP=gap.layers['classifier'])
    features = {
        label: dict(
            per_image(gradients.features),
            cosine=summary(map(cosine, gradients.features, gcp.features)),
        )
        for label, gradients in (('GCP', gcp), ('GAP', gap))
    }

    head = copy.deepcopy(head).double()
    formulas = {}
    for images, labels in tqdm(batches, desc='eq. (6) and (7)', unit='batch'):
        with torch.no_grad():
            x = network.features(images)
        part = measure_formulas(
            x,
            lambda v, labels=labels: head.loss_module(head((v,)), labels),
            network.model.neck.iterations,
        )
        for key, columns in part.items():
            for column, values in columns.items():
                formulas.setdefault(key, {}).setdefault(column, []).extend(values)
    results = dict(
        config=network.config,
        checkpoint=network.checkpoint,
        layer=name,
        images=len(gcp.features),
        positions=x[0, 0].numel(),
        channels=x.shape[1],
        head_images=len(vectors),
        loss=dict(GCP=gcp.loss, GAP=gap.loss),
        accuracy=dict(GCP=gcp.accuracy, GAP=gap.accuracy),
        formulas={
            key: {column: summary(values) for column, values in columns.items()}
            for key, columns in formulas.items()
        },
        features=features,
        weight=weight,
        classifier=[
            weight_row('GAP', classifier['GAP'], classifier),
            *kfac_rows(gap, 'classifier', args.damping, classifier),
        ],
    )
    return results, data


def measure_gap(runner, args, data):
    """The network with GAP, with its own trunk, on the same images."""
    network = Network(runner, args.gap[1], GlobalAveragePooling, args.trust)
    batches = [network.batch(one) for one in data]
    name, conv = network.last_conv(batches[0][0])
    gap = measure_gradients(
        *(network.features, network.classify, network.loss, {name: conv}),
        tqdm(batches, desc='GAP', unit='batch'),
    )
    references = dict(GAP=gap.layers[name])
    return dict(
        config=network.config,
        checkpoint=network.checkpoint,
        layer=name,
        loss=gap.loss,
        accuracy=gap.accuracy,
        features=per_image(gap.features),
        weight=[
            weight_row('GAP', gap.layers[name], references),
            *kfac_rows(gap, name, args.damping, references),
        ],
    )


def table(header, rows):
    return [
        '| ' + ' | '.join(header) + ' |',
        '|---' * len(header) + '|',
        *('| ' + ' | '.join(map(cell, row)) + ' |' for row in rows),
        '',
    ]


def cell(value):
    return value if isinstance(value, str) else f'{value:.3g}'


def fixed(value, digits):
    """A number with so many decimals, never a negative zero."""
    return f'{round(value, digits) + 0.0:.{digits}f}'


def weight_table(rows):
    names = list(rows[0]['cosine'])
    return table(
        [
            *('gradient', 'norm', 'rank', 'condition', 'stable rank'),
            *(f'cosine with {name}' for name in names),
            'condition of H^-1',
        ],
        [
            [
                *(row[key] for key in ('gradient', 'norm', 'rank', 'condition', 'stable_rank')),
                *(fixed(row['cosine'][name], 3) for name in names),
                row.get('preconditioner_condition', ''),
            ]
            for row in rows
        ],
    )


def feature_table(rows):
    return table(
        ['network', 'norm', 'rank', 'condition', 'stable rank', 'cosine with GCP: mean'],
        [
            [
                name,
                *(row[column]['median'] for column in Spectrum._fields),
                fixed(row['cosine']['mean'], 3) if 'cosine' in row else '',
            ]
            for name, row in rows.items()
        ],
    )


def formula_table(rows):
    return table(
        [
            *('dL/dX by', 'images', 'cosine: mean', 'min', 'max', 'norm: median'),
            'condition of F^-1: median',
        ],
        [
            [
                key,
                str(columns['cosine']['images']),
                *(fixed(columns['cosine'][kind], 4) for kind in ('mean', 'min', 'max')),
                columns['norm']['median'],
                columns['condition']['median'] if 'condition' in columns else '',
            ]
            for key, columns in rows.items()
        ],
    )


def report(results):
    gcp, gap = results['gcp'], results['gap']

    def network_row(name, of, loss, accuracy):
        return [name, f'`{of["checkpoint"]}`', f'`{of["layer"]}`', loss, f'{100 * accuracy:.2f}']

    fitted = f'GAP on the trunk of GCP, classifier fitted to {gcp["head_images"]} images'
    return [
        '# Gradients of GCP, GAP, and GAP with K-FAC',
        '',
        f'{gcp["images"]} images of the {results["split"]} set, networks in evaluation mode. X of '
        f'GCP: {gcp["positions"]} positions, {gcp["channels"]} channels.',
        '',
        *table(
            ['network', 'checkpoint', 'W', 'loss', 'accuracy (%)'],
            [
                network_row('GCP', gcp, gcp['loss']['GCP'], gcp['accuracy']['GCP']),
                network_row(fitted, gcp, gcp['loss']['GAP'], gcp['accuracy']['GAP']),
                network_row('GAP', gap, gap['loss'], gap['accuracy']),
            ],
        ),
        '## dL/dX of GCP, against eq. (6)',
        '',
        *formula_table(gcp['formulas']),
        '## dL/dX of each image: medians',
        '',
        *feature_table(
            {
                'GCP': gcp['features']['GCP'],
                'GAP on the trunk of GCP': gcp['features']['GAP'],
                'GAP': gap['features'],
            }
        ),
        f'## dL/dW on the trunk of GCP: `{gcp["layer"]}`',
        '',
        *weight_table(gcp['weight']),
        '## dL/dW of the classifier fitted to the trunk of GCP',
        '',
        *weight_table(gcp['classifier']),
        f'## dL/dW of the network with GAP: `{gap["layer"]}`',
        '',
        *weight_table(gap['weight']),
    ]


def plot(rows, path):
    """Cosines of GAP + K-FAC on the trunk of GCP, against the damping."""
    figure, axes = plt.subplots(figsize=(6, 4), layout='constrained')
    damped_rows = sorted((row for row in rows if 'damping' in row), key=lambda row: row['damping'])
    for name, marker in (('GAP', 's'), ('GCP', 'o')):
        axes.plot(
            [row['damping'] for row in damped_rows],
            [row['cosine'][name] for row in damped_rows],
            marker=marker,
            label=f'with {name}',
        )
    axes.axhline(rows[0]['cosine']['GAP'], color='grey', ls='--', lw=1, label='of GAP with GCP')
    axes.set(xscale='log', xlabel='damping', ylabel='cosine of GAP + K-FAC, at dL/dW')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    args = parse_args()
    install_safe_readers(args.trust)
    for checkpoint in (args.checkpoint, args.gap[1]):
        check_checkpoint_file(checkpoint)
    gcp, data = use(args.config, args, lambda runner: measure_gcp(runner, args))
    gap = use(args.gap[0], args, lambda runner: measure_gap(runner, args, data))
    results = dict(split=args.split, gcp=gcp, gap=gap)
    out = Path(args.out)
    lines = report(results)
    (out / 'second_order.json').write_text(json.dumps(results, indent=1) + '\n')
    (out / 'second_order.md').write_text('\n'.join(lines))
    plot(gcp['weight'], out / 'second_order.png')
    print('\n'.join(lines))


if __name__ == '__main__':
    main()
