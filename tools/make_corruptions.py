"""Make a set like ImageNet-C, and one like ImageNet-P, from a folder of clean images.

The clean images are SRC/<class>/<image>. Corrupted ones become
DST/<corruption>/<severity>/<class>/<stem>.JPEG, sequences DST/<perturbation>/<class>/<stem>.npy,
arrays (frames, height, width, 3) uint8 RGB; with --kind both, the former under DST/c and the latter
under DST/p. A run that was stopped continues with the same command.

These sets are not ImageNet-C or -P: DST/GENERATED.json says so. Compare results on them only with
results on the same folder.
"""

import argparse
import os
from pathlib import Path

from arguments import run

from gcp_mm.data import count_suffixes
from gcp_mm.robustness.errors import SEVERITIES
from gcp_mm.robustness.regenerate import NAMES, Recipe, find_left_out, make_set


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('src', type=Path, help='folder of clean images, <class>/<image>')
    add('dst', type=Path, help='folder to write into')
    add('--kind', choices=('c', 'p', 'both'), default='both', help='default: both')
    for option, kind in (('--corruptions', 'c'), ('--perturbations', 'p')):
        names = NAMES[kind]
        text = f'of {", ".join(names)}; default: all'
        add(option, nargs='+', metavar='NAME', choices=names, default=names, help=text)
    add(
        '--severities',
        nargs='+',
        type=int,
        choices=SEVERITIES,
        default=SEVERITIES,
        help='of the corruptions; default: all',
    )
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
    add('--seed', type=int, default=0, help='default: 0')
    add('--skip-bad', action='store_true', help='leave out and list images that cannot be read')
    return parser.parse_args()


def main():
    args = parse_args()
    common = dict(size=args.size, resize=args.resize, seed=args.seed)
    options = {
        'c': dict(names=args.corruptions, severities=args.severities),
        'p': dict(names=args.perturbations),
    }
    kinds = ('c', 'p') if args.kind == 'both' else (args.kind,)
    recipes = {kind: Recipe(kind, **options[kind], **common) for kind in kinds}
    if left_out := find_left_out(args.src):
        print(f'{args.src}: left out for their suffix or place: {count_suffixes(left_out)}')
    for kind, recipe in recipes.items():
        target = args.dst / kind if args.kind == 'both' else args.dst
        done = make_set(recipe, args.src, target, args.workers, args.skip_bad)
        print(f'{target}: {done["made"]} made, {done["found"]} were there')
        for image, reason in done['skipped'].items():
            print(f'{target}: left out {image!r}: {reason}')


if __name__ == '__main__':
    run(main)
