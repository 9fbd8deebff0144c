"""Images a second of an evaluation on ImageNet-C's layout, and of making such sets.

'official loop' is what the authors of ImageNet-C run: torchvision's ImageFolder, a DataLoader, the
network, and a count of right answers. It and tools/test_robustness.py evaluate the same network on
the same JPEGs in turns, once with the network and once without, from the start of the workers to
the last batch; ours also hashes the files. Then all corruptions of some images are made, by one
process and by one a core.
"""

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from benchmark_loading import write_jpegs
from measure import describe_machine, interleave, write_report
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from gcp_mm.robustness.errors import CORRUPTIONS
from gcp_mm.robustness.evaluation import part_config, run_part
from gcp_mm.robustness.regenerate import Recipe, make_set
from gcp_mm.robustness.results import files_hash
from gcp_mm.runtime import launch, load_config, unwrap

CONFIG = 'configs/digits/resnet18-gcp_1xb64-5e_digits.py'
PART = 'noise/1'
LOOPS = ('official loop', 'tools/test_robustness.py')


def official_loader(folder, preprocessor, batch, workers):
    mean, std = (torch.tensor(preprocessor[key]) / 255 for key in ('mean', 'std'))
    steps = [transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(mean, std)]
    images = datasets.ImageFolder(folder, transforms.Compose(steps))
    return DataLoader(images, batch, num_workers=workers)


def official_loop(model, loader):
    """Top-1 error, as in the script test.py of ImageNet-C's repository."""
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in loader:
            correct += (model(images).argmax(1) == labels).sum().item()
    return 1 - correct / len(loader.dataset)


def check_equal(model, official, ours):
    """Raise AssertionError unless both loaders give a network the same images and labels."""
    images, labels = next(iter(official))
    batch = next(iter(ours))
    inputs = model.data_preprocessor(dict(inputs=torch.stack(batch['inputs'])))['inputs']
    torch.testing.assert_close(images, inputs)
    assert labels.tolist() == [sample.gt_label for sample in batch['data_samples']]


def exhaust(loader):
    for _ in loader:
        pass


def compare_loops(root, args):
    """A row for each loop, with the network and without."""
    cfg = load_config(CONFIG, work_dir=str(root / 'work_dir'))
    ours = part_config('clean', root / PART, args.batch, args.workers)
    cfg.test_cfg = dict(type='LogitsLoop')
    cfg.test_dataloader, cfg.test_evaluator = ours

    def run(runner):
        runner.call_hook('before_run')
        model = unwrap(runner.model)
        loader_of = partial(official_loader, root / PART, cfg.data_preprocessor)
        official = loader_of(args.batch, args.workers)
        mine = runner.build_dataloader(ours[0])
        check_equal(model, official, mine)
        evaluations = {
            LOOPS[0]: lambda: official_loop(model, official),
            LOOPS[1]: lambda: (files_hash(root / PART), run_part(runner, *ours)),
        }
        loading = {LOOPS[0]: lambda: exhaust(official), LOOPS[1]: lambda: exhaust(mine)}
        cpu = torch.device('cpu')
        return tuple(interleave(steps, args.repeats, cpu) for steps in (evaluations, loading))

    count = len(list((root / PART).glob('*/*')))
    evaluations, loading = launch(cfg, run)
    return [
        {
            'loop': name,
            'images a second': count / evaluations[name],
            'time / official': evaluations[name] / evaluations[LOOPS[0]],
            'images a second, without the network': count / loading[name],
            'time / official, without the network': loading[name] / loading[LOOPS[0]],
        }
        for name in LOOPS
    ]


def time_making(root):
    """A row for each number of processes: corrupted images a second, all corruptions together."""
    rows = []
    for workers in sorted({1, os.cpu_count()}):
        start = time.perf_counter()
        recipe = Recipe('c', CORRUPTIONS)
        done = make_set(recipe, root / 'source', root / f'made-{workers}', workers, False)
        seconds = time.perf_counter() - start
        rate = done['made'] / seconds
        row = {'processes': workers, 'images a second': rate, 'of each': rate / workers}
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=256, help='to evaluate')
    parser.add_argument('--corrupt', type=int, default=13, help='images to corrupt')
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--workers', type=int, default=2, help='processes that load images')
    parser.add_argument('--repeats', type=int, default=3, help='turns of each')
    parser.add_argument('--out', type=Path, default='work_dirs/benchmarks/robustness')
    args = parser.parse_args()
    machine = describe_machine(torch.device('cpu'))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in map(str, range(10)):  # as many classes as the network has
            (root / PART / name).mkdir(parents=True)
            write_jpegs(root / PART / name, args.images // 10, 224, 224)
        (root / 'source/a').mkdir(parents=True)
        write_jpegs(root / 'source/a', args.corrupt, 375, 500)
        write_report(args.out, 'evaluation', machine, compare_loops(root, args))
        write_report(args.out, 'making', machine, time_making(root))


if __name__ == '__main__':
    main()
