"""Images a second of LoadCheckedImage against MMCV's LoadImageFromFile, on JPEGs written here.

Both load the same files in turns, in one thread, from the page cache, and do nothing else.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from measure import describe_machine, interleave, write_report
from mmcv.transforms import LoadImageFromFile

from gcp_mm.data import LoadCheckedImage


def write_jpegs(folder, count, height, width):
    """JPEGs of smooth noise, of about the size in bytes of photographs; returns their paths."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        image = cv2.resize(rng.integers(256, size=(60, 80, 3), dtype=np.uint8), (width, height))
        image = cv2.add(image, rng.integers(20, size=image.shape, dtype=np.uint8))
        paths.append(str(folder / f'{number}.jpg'))
        cv2.imwrite(paths[-1], image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def load_all(transform, paths):
    for path in paths:
        transform({'img_path': path})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=64)
    parser.add_argument('--size', type=int, nargs=2, default=[375, 500], metavar=('H', 'W'))
    parser.add_argument('--repeats', type=int, default=20, help='turns of each')
    parser.add_argument('--out', type=Path, default='work_dirs/benchmarks/loading', help='folder')
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(Path(folder), args.images, *args.size)
        size = sum(Path(path).stat().st_size for path in paths) / len(paths)
        loaders = {each.__name__: each() for each in (LoadImageFromFile, LoadCheckedImage)}
        steps = {name: partial(load_all, loader, paths) for name, loader in loaders.items()}
        seconds = interleave(steps, args.repeats, torch.device('cpu'))
    rows = [
        {
            'transform': name,
            'images a second': len(paths) / seconds[name],
            'time / LoadImageFromFile': seconds[name] / seconds['LoadImageFromFile'],
        }
        for name in seconds
    ]
    height, width = args.size
    image = f'{height} x {width}, {size / 1e3:.0f} kB on average'
    machine = describe_machine(torch.device('cpu')) | dict(image=image)
    write_report(args.out, 'loading', machine, rows)


if __name__ == '__main__':
    main()
