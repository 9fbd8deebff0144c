"""Make a set like ImageNet-C (--kind c) or ImageNet-P (--kind p) from a folder of clean images.

The clean images are SRC/<class>/<image>. Corrupted ones become
DST/<corruption>/<severity>/<class>/<stem>.JPEG, sequences DST/<perturbation>/<class>/<stem>.npy,
arrays (frames, height, width, 3) uint8 RGB. A run that was stopped continues with the same command.

These sets are not ImageNet-C or -P: DST/GENERATED.json says so. Compare results on them only with
results on the same folder.
"""

import argparse
import os
from pathlib import Path

from arguments import run

from gcp_mm.robustness.regenerate import NAMES, Recipe, make_set


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('src', type=Path, help='folder of clean images, <class>/<image>')
    add('dst', type=Path, help='folder to write into')
    add('--kind', choices=('c', 'p'), required=True, help='c: corruptions, p: perturbations')
    names = '; '.join(f'{kind}: {", ".join(names)}' for kind, names in NAMES.items())
    add('--names', nargs='+', metavar='NAME', help=f'some of them; default: all. {names}')
    add(
        '--size',
        type=int,
        default=224,
        help='width and height in pixels, at least 64; blurs and shifts are as many pixels wide '
        'at any size; default: 224',
    )
    add(
        '--resize',
        type=int,
        help='short side of an image before the central crop; the size itself keeps all of a '
        'square image; default: 256/224 of the size',
    )
    add('--workers', type=int, default=os.cpu_count(), help='processes; default: one a CPU')
    add('--skip-bad', action='store_true', help='leave out and list images that cannot be read')
    return parser.parse_args()


def main():
    args = parse_args()
    recipe = Recipe(args.kind, args.names, args.size, args.resize)
    done = make_set(recipe, args.src, args.dst, args.workers, args.skip_bad)
    print(f'{args.dst}: {done["made"]} made, {done["found"]} were there')
    for image, reason in done['skipped'].items():
        print(f'{args.dst}: left out {image!r}: {reason}')


if __name__ == '__main__':
    run(main)
