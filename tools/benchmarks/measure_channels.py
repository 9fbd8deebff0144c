"""Accuracy on the digits by the channels D of the covariance and the size of the images.

Each pair trains with several seeds. OUT/results.jsonl holds what has been measured: run again, the
script continues. OUT/channels.md has a table of it, and one of the sizes that tools/make_config.py
chooses D for; OUT/channels.png is a plot.
"""

import argparse
import multiprocessing
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

from matplotlib.figure import Figure
from measure import describe_machine

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for the helpers of the tools

from arguments import run

import torch
from mmengine.device import get_device
from tqdm import tqdm

from gcp_mm._io import append_jsonl, markdown_table, read_jsonl, write_atomically, write_figure
from gcp_mm.data.digits import write_classification
from gcp_mm.recipes.classifier import choose_channels
from gcp_mm.runtime import launch, load_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/digits'
STRIDE = 16  # of the last map of a GCP network
CLASSES = (10, 100, 1000)
SIZES = (32, 64, 96, 128, 160, 192, 224, 448)  # of the table without a training


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', type=int, nargs='+', default=[32, 48, 64], help='pixels')
    parser.add_argument('--channels', type=int, nargs='+', default=[8, 32, 128], metavar='D')
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--epochs', type=int, default=3)
    parser.add_argument('--out', type=Path, default='work_dirs/channels')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / 'results.jsonl'
    records = read_jsonl(results) if results.exists() else []
    known = {key(record): record['top1'] for record in records}
    # D = 0 stands for average pooling
    runs = list(product(args.sizes, [0, *args.channels], range(args.seeds), [args.epochs]))
    # A process for each: what mmengine keeps for a whole process would go from one to the next.
    processes = multiprocessing.get_context('forkserver')
    processes.set_forkserver_preload(['mmpretrain.models', 'mmpretrain.datasets'])
    for size, channels, seed, epochs in tqdm(runs, unit='run'):
        record = dict(size=size, channels=channels, seed=seed, epochs=epochs)
        if key(record) in known:
            continue
        write_classification(args.out / f'digits-{size}', size)
        work_dir = args.out / 'run'
        shutil.rmtree(work_dir, ignore_errors=True)
        with ProcessPoolExecutor(1, processes) as pool:
            record['top1'] = pool.submit(train, args.out, work_dir, record).result()
        append_jsonl(results, record)
        known[key(record)] = record['top1']
    report(args, known)


def key(record):
    return tuple(record[name] for name in ('size', 'channels', 'seed', 'epochs'))


def train(out, work_dir, record):
    """Train as `configs/digits` does, with other sizes; returns the top-1 accuracy in percent."""
    size, channels, seed, epochs = key(record)
    name = 'resnet18-gcp_1xb64-5e_digits' if channels else 'resnet18_1xb64-5e_digits'
    data = str(out / f'digits-{size}')
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    options = {f'{loader}.dataset.data_root': data for loader in loaders}
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
    cfg = load_config(str(CONFIGS / f'{name}.py'), options, work_dir=str(work_dir))

    def evaluate(runner):
        runner.train()
        return runner.message_hub.get_scalar('val/accuracy/top1').current()

    return launch(cfg, evaluate)


def side_of(size):
    """Positions of the last map each way, for images of `size` pixels."""
    return -(-size // STRIDE)


def dimensions(size, channels):
    """Cells of a table: the size, positions, channels, vector and numbers in the classifier."""
    side, length = side_of(size), channels * (channels + 1) // 2 or 512
    heads = [f'{number * (length + 1):,}' for number in CLASSES]  # weights and biases
    where = f'{side}x{side} = {side**2}' if channels else 'GAP'
    return [f'{size}x{size}', where, channels or '', f'{length:,}', *heads]


def report(args, known):
    header = ['image', 'positions', 'D', 'vector']
    header += [f'head, {number:,} classes' for number in CLASSES]
    chosen = [dimensions(size, choose_channels(side_of(size) ** 2)) for size in SIZES]
    rows, points = [], {}
    for size, channels in product(args.sizes, [0, *args.channels]):
        values = [known[size, channels, seed, args.epochs] for seed in range(args.seeds)]
        spread = stdev(values) if len(values) > 1 else 0.0
        rows.append([*dimensions(size, channels)[:4], f'{fmean(values):.2f}', f'{spread:.2f}'])
        points.setdefault((size, side_of(size) ** 2), []).append((channels, fmean(values), spread))
    machine = describe_machine(torch.device(get_device()))
    text = '\n'.join(f'- {name}: {value}' for name, value in machine.items())
    text += f'\n- ResNet-18, {args.epochs} epochs, {args.seeds} seeds\n\n'
    text += markdown_table([*header[:4], 'top-1 (%)', 'std'], rows)
    text += f'\n\n{markdown_table(header, chosen)}\n'
    print(text)
    write_atomically(args.out / 'channels.md', text.encode())
    draw(args.out / 'channels.png', points)
    print(f'written: {args.out}/channels.md, channels.png')


def draw(path, points):
    figure = Figure(figsize=(6, 3.6), layout='constrained')
    axes = figure.subplots()
    for (size, positions), values in points.items():
        (_, gap, _), *covariance = values
        d, means, spreads = zip(*covariance, strict=True)
        label = f'{size}x{size} pixels, {positions} positions'
        line = axes.errorbar(d, means, spreads, marker='o', capsize=3, label=label)
        axes.axhline(gap, color=line[0].get_color(), linestyle=':', linewidth=1)
    axes.set_xscale('log', base=2)
    axes.set_xlabel('channels D of the covariance (dotted: average pooling)')
    axes.set_ylabel('top-1 on the validation digits (%)')
    axes.legend()
    write_figure(path, figure, 120)


if __name__ == '__main__':
    run(main)
