"""Robustness of GAP and GCP on corrupted digits, end to end: `make robustness`.

Trains ResNet-18 with either pooling from several seeds, corrupts and perturbs validation digits,
evaluates, and writes work_dirs/robustness/report.md, normalized by the mean of the GAP networks.
Every step is the command a user would type; a second run resumes or skips what is done.
"""

import shutil
from pathlib import Path

from arguments import run, run_script

from mmengine.runner import find_latest_checkpoint

from gcp_mm.hub import resolve_config

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path('work_dirs/robustness')
SEEDS = (0, 1, 2)
CONFIGS = {
    'GAP': 'configs/digits/resnet18_1xb64-5e_digits.py',
    'GCP': 'configs/digits/resnet18-gcp_1xb64-5e_digits.py',
}
# Digits of each class, of the 36 for validation. A digit becomes 95 images or 320 frames.
PER_CLASS = {'c': 10, 'p': 4}
SIZE = 64


def call(*command):
    print('\n[robustness] python', *command, flush=True)
    run_script(*command)


def train(config, seed, work_dir):
    """Train unless the last epoch's checkpoint exists; returns its path."""
    last = work_dir / f'epoch_{resolve_config(config).train_cfg.max_epochs}.pth'
    # The name of the latest checkpoint is written when that checkpoint is complete.
    if Path(find_latest_checkpoint(work_dir) or '').name != last.name:
        options = ('--work-dir', work_dir, '--cfg-options', f'randomness.seed={seed}')
        call('tools/train.py', config, '--resume', *options)
    return last


def copy_first(per_class, target):
    """Copy the first few validation digits of each class."""
    for source in sorted(Path('data/digits/val').iterdir()):
        folder = target / source.name
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(source.iterdir())[:per_class]:
            shutil.copy(file, folder)


def main():
    if Path.cwd() != ROOT:
        raise SystemExit(f'run this in the root of the project: cd {ROOT}')
    call('tools/make_digits.py')
    for kind, per_class in PER_CLASS.items():
        clean, target = Path(f'data/digits_{kind}_clean'), Path(f'data/digits_{kind}')
        copy_first(per_class, clean)
        # Not enlarged before the crop: the digits stay as large as those trained on.
        size = ('--size', SIZE, '--resize', SIZE)
        call('tools/make_corruptions.py', clean, target, '--kind', kind, *size)

    results = {name: [] for name in CONFIGS}
    for seed in SEEDS:
        for name, config in CONFIGS.items():
            work_dir = FOLDER / f'{name.lower()}_seed{seed}'
            checkpoint = train(config, seed, work_dir)
            call(
                *('tools/test_robustness.py', config, checkpoint, '--work-dir', work_dir),
                *('--imagenet-c', 'data/digits_c', '--imagenet-p', 'data/digits_p'),
                *('--clean', 'data/digits_c_clean', '--resize', 0, '--crop-size', SIZE),
                *('--name', f'{name}, seed {seed}'),
            )
            results[name].append(work_dir / 'robustness.json')
    baseline = FOLDER / 'baseline.json'
    mean = f'mean of {len(SEEDS)} GAP networks'
    call('tools/measure_baseline.py', baseline, *results['GAP'], '--name', mean)
    runs = [f'{name}={path}' for name, paths in results.items() for path in paths]
    report = ('--baseline', baseline, '--out', FOLDER / 'report')
    call('tools/compare_robustness.py', *runs, *report)


if __name__ == '__main__':
    run(main)
