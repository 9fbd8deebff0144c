"""Time to the first training step: tools/train.py beside the stock scripts of both frameworks.

    python tools/make_digits.py && python tools/benchmarks/benchmark_start.py

Each run is a process of its own, timed from its start to the log line of its first step, then
ended. The runs take turns; the ratio is of the medians.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = dict(
    mmpretrain='configs/digits/resnet18-gcp_1xb64-5e_digits.py',
    mmdet='configs/digits/faster-rcnn_r18-gcp-m_fpn_4e_digits.py',
)
LOADERS = [f'{split}_dataloader' for split in ('train', 'val', 'test')]
OPTIONS = [
    'default_hooks.logger.interval=1',
    *(f'{loader}.num_workers=0' for loader in LOADERS),
    *(f'{loader}.persistent_workers=False' for loader in LOADERS),
]


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
    args = parser.parse_args()
    print('| config | stock script, s | tools/train.py, s | ratio |\n|---|---|---|---|')
    for framework, config in CONFIGS.items():
        stock = Path(find_spec(framework).origin).parent / '.mim/tools/train.py'
        options = ['model.backbone.init_cfg=None'] if framework == 'mmdet' else []
        seconds = {stock: [], ROOT / 'tools/train.py': []}
        for _ in range(args.repeats):
            for script, values in seconds.items():
                values.append(seconds_to_first_step(script, config, *options))
        theirs, ours = map(median, seconds.values())
        print(f'| {config} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} |', flush=True)


if __name__ == '__main__':
    main()
