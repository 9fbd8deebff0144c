"""Accuracy on the digits by the channels D of the covariance and the size of the images.

Each pair trains with several seeds. A second table has the sizes of vector and classifier for the D
that tools/make_config.py chooses.
"""

import argparse
import math
import multiprocessing
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

from measure import describe_machine, write_report

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for the helpers of the tools

from arguments import run

import torch
from mmengine.device import get_device
from tqdm import tqdm

from gcp_mm._io import spread
from gcp_mm.data.digits import write_classification
from gcp_mm.recipes.classifier import choose_channels
from gcp_mm.runtime import launch, load_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/digits'
STRIDE = 16  # of the last map of a GCP network
SIZES = (32, 64, 96, 128, 160, 192, 224, 448)  # of the table without a training


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', type=int, nargs='+', default=[32, 48, 64], help='pixels')
    parser.add_argument('--channels', type=int, nargs='+', default=[8, 32, 128], metavar='D')
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--epochs', type=int, default=3)
    parser.add_argument('--out', type=Path, default='work_dirs/channels', help='folder')
    args = parser.parse_args()
    # A process for each training: what mmengine keeps for a whole process would go from one to the
    # next.
    processes = multiprocessing.get_context('forkserver')
    processes.set_forkserver_preload(['mmpretrain.models', 'mmpretrain.datasets'])
    accuracies = {}
    # D = 0 stands for average pooling
    for what in tqdm([*product(args.sizes, [0, *args.channels], range(args.seeds))], unit='run'):
        with ProcessPoolExecutor(1, processes) as pool:
            top1 = pool.submit(train, args.out, args.epochs, *what).result()
        accuracies.setdefault(what[:2], []).append(top1)
    machine = describe_machine(torch.device(get_device()))
    machine |= dict(network='ResNet-18', epochs=args.epochs, seeds=args.seeds)
    rows = [
        dimensions(*pair) | {'top-1 (%)': spread(values, 2)} for pair, values in accuracies.items()
    ]
    write_report(args.out, 'channels', machine, rows)
    write_report(args.out, 'sizes', {}, [classifiers(size) for size in SIZES])


def train(out, epochs, size, channels, seed):
    """Train as `configs/digits` does, with other sizes; returns the top-1 accuracy in percent."""
    name = 'resnet18-gcp_1xb64-5e_digits' if channels else 'resnet18_1xb64-5e_digits'
    data = out / f'digits-{size}'
    write_classification(data, size)
    shutil.rmtree(out / 'run', ignore_errors=True)
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    options = {f'{loader}.dataset.data_root': str(data) for loader in loaders}
    if channels:
        options['model.neck.reduction'] = (channels,)
        options['model.head.in_channels'] = channels * (channels + 1) // 2
    options |= {
        'train_dataloader.dataset.pipeline.1.crop_size': size,
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': epochs,
        'param_scheduler.end': epochs,
        'default_hooks.checkpoint.interval': -1,
        'randomness.seed': seed,
        'log_level': 'WARNING',
    }
    cfg = load_config(str(CONFIGS / f'{name}.py'), options, work_dir=str(out / 'run'))

    def evaluate(runner):
        runner.train()
        return runner.message_hub.get_scalar('val/accuracy/top1').current()

    return launch(cfg, evaluate)


def dimensions(size, channels):
    """Columns of both tables, for images of `size` pixels."""
    side = math.ceil(size / STRIDE)
    return {
        'image': f'{size}x{size}',
        'positions': f'{side}x{side} = {side**2}' if channels else 'GAP',
        'D': channels or None,
        'vector': channels * (channels + 1) // 2 or 512,
    }


def classifiers(size):
    """A row of the second table: weights and biases of a classifier of the vectors."""
    row = dimensions(size, choose_channels(math.ceil(size / STRIDE) ** 2))
    heads = {f'head, {n:,} classes': n * (row['vector'] + 1) for n in (10, 100, 1000)}
    return row | heads


if __name__ == '__main__':
    run(main)
