"""Time to the first training step: tools/train.py beside the stock scripts of both frameworks.

    python tools/make_digits.py && python tools/benchmarks/benchmark_start.py

Each run is a process of its own, timed from its start to the log line of its first step, then
ended. The runs take turns; the ratio is of the medians. With --coco a Mask R-CNN starts on
annotation files as large as COCO's, made here, in place of the digits.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = dict(
    mmpretrain='configs/digits/resnet18-gcp_1xb64-5e_digits.py',
    mmdet='configs/digits/faster-rcnn_r18-gcp-m_fpn_4e_digits.py',
)
COCO_CONFIGS = dict(mmdet='configs/digits/mask-rcnn_r18_fpn_4e_digits.py')
LOADERS = [f'{split}_dataloader' for split in ('train', 'val', 'test')]
OPTIONS = [
    'default_hooks.logger.interval=1',
    *(f'{loader}.num_workers=0' for loader in LOADERS),
    *(f'{loader}.persistent_workers=False' for loader in LOADERS),
]


def make_coco(folder, split, images, objects):
    """Write annotations of random boxes and polygons; every image is the same file."""
    draw = random.Random(0)
    shapes = []
    for _ in range(1000):
        x, y, w, h = (round(draw.uniform(5, 200), 2) for _ in range(4))
        points = [(x + draw.random() * w, y + draw.random() * h) for _ in range(18)]
        polygon = [round(value, 2) for point in points for value in point]
        shape = dict(bbox=[x, y, w, h], area=round(w * h / 2, 2), segmentation=[polygon])
        shapes.append(json.dumps(dict(shape, iscrowd=0))[1:])
    (folder / split).mkdir(parents=True)
    Image.new('RGB', (640, 480)).save(folder / split / 'image.jpg')
    size = dict(file_name='image.jpg', width=640, height=480)
    content = dict(
        images=[dict(size, id=k) for k in range(images)],
        categories=[dict(id=k, name=str(k)) for k in range(10)],
    )
    with (folder / f'{split}.json').open('w') as file:
        file.write(f'{json.dumps(content)[:-1]}, "annotations": [')
        for k in range(1, objects + 1):
            ids = f'"id": {k}, "image_id": {draw.randrange(images)}, "category_id": {k % 10}'
            file.write(f'{{{ids}, {draw.choice(shapes)}{"," if k < objects else "]}"}')


def coco_options(folder):
    """Make files of COCO's size, and return the options of a config that read them."""
    make_coco(folder, 'train', 118_000, 860_000)
    make_coco(folder, 'val', 5_000, 36_000)
    options = [f'val_evaluator.ann_file={folder}/val.json']
    for loader in LOADERS:
        split = loader.split('_')[0].replace('test', 'val')
        options += [
            f'{loader}.dataset.data_root={folder}/',
            f'{loader}.dataset.ann_file={split}.json',
            f'{loader}.dataset.data_prefix.img={split}/',
        ]
    return options


def seconds_to_first_step(script, config, *options):
    """Start a training script and end it once it has logged a step.

    Raises:
        RuntimeError: with what it printed, if it ends without one.
    """
    lines = []
    with tempfile.TemporaryDirectory() as work_dir:
        command = [sys.executable, script, config, '--work-dir', work_dir, '--cfg-options']
        pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        start = time.perf_counter()
        with subprocess.Popen([*command, *OPTIONS, *options], cwd=ROOT, **pipe) as process:
            for line in process.stdout:
                lines.append(line)
                if 'Epoch(train)' in line:
                    seconds = time.perf_counter() - start
                    process.kill()
                    return seconds
    raise RuntimeError(f'{script} ended before its first step:\n{"".join(lines[-20:])}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=5, help='runs of each script')
    parser.add_argument('--coco', action='store_true', help="on annotations of COCO's size")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.coco:
            compare(COCO_CONFIGS, args.repeats, coco_options(Path(folder)))
        else:
            compare(CONFIGS, args.repeats, [])


def compare(configs, repeats, options):
    """Print a row for each config."""
    print('| config | stock script, s | tools/train.py, s | ratio |\n|---|---|---|---|')
    for framework, config in configs.items():
        stock = Path(find_spec(framework).origin).parent / '.mim/tools/train.py'
        random_weights = ['model.backbone.init_cfg=None'] if framework == 'mmdet' else []
        seconds = {stock: [], ROOT / 'tools/train.py': []}
        for _ in range(repeats):
            for script, values in seconds.items():
                values.append(seconds_to_first_step(script, config, *options, *random_weights))
        theirs, ours = map(median, seconds.values())
        print(f'| {config} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} |', flush=True)


if __name__ == '__main__':
    main()
