"""Make a set like ImageNet-C, and one like ImageNet-P, from a folder of clean images.

The clean images are SRC/<class>/<image>. Corrupted ones become
DST/<corruption>/<severity>/<class>/<stem>.JPEG, sequences DST/<perturbation>/<class>/<stem>, a
folder of frames; with --kind both, the former under DST/c and the latter under DST/p. A run that
was stopped goes on with the same command.

What this makes is no ImageNet-C or -P: DST/GENERATED.json says so, and results on it compare only
with results on the same folder.
"""

import argparse
import os
from pathlib import Path

from gcp_mm.robustness.errors import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from gcp_mm.robustness.regenerate import FORMATS, Recipe, make_set
from gcp_mm.robustness.stability import PERTURBATIONS, VALIDATION_PERTURBATIONS


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('src', type=Path, help='folder of clean images, <class>/<image>')
    add('dst', type=Path, help='folder to write into')
    add('--kind', choices=('c', 'p', 'both'), default='both', help='default: both')
    add(
        '--corruptions',
        **names(CORRUPTIONS + EXTRA_CORRUPTIONS, CORRUPTIONS + EXTRA_CORRUPTIONS),
    )
    add(
        '--severities',
        nargs='+',
        type=int,
        choices=SEVERITIES,
        default=SEVERITIES,
        help='of the corruptions; default: all',
    )
    add('--perturbations', **names(PERTURBATIONS + VALIDATION_PERTURBATIONS, PERTURBATIONS))
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
        help='short side of an image before the centre is cut out; the size itself keeps all of a '
        'square image; default: 256/224 of the size',
    )
    add(
        '--format',
        choices=FORMATS,
        default='png',
        help='of a sequence: a folder of PNGs or an array in a .npy file, both exact, or H.264 '
        'as the official set has, with losses (needs imageio-ffmpeg); default: png',
    )
    add('--workers', type=int, default=os.cpu_count(), help='processes; default: one a CPU')
    add('--seed', type=int, default=0, help='default: 0')
    add(
        '--skip-bad',
        action='store_true',
        help='leave out images that cannot be read, and list them',
    )
    return parser.parse_args()


def names(choices, default):
    return dict(
        nargs='+',
        metavar='NAME',
        choices=choices,
        default=default,
        help=f'default: {", ".join(default)}'
        + (f'; others: {", ".join(others)}' if (others := choices[len(default) :]) else ''),
    )


def main():
    args = parse_args()
    common = dict(size=args.size, resize=args.resize, seed=args.seed)
    options = {
        'c': dict(names=args.corruptions, severities=args.severities),
        'p': dict(names=args.perturbations, frames=args.format),
    }
    kinds = ('c', 'p') if args.kind == 'both' else (args.kind,)
    try:
        recipes = {kind: Recipe(kind, **options[kind], **common) for kind in kinds}
        for kind, recipe in recipes.items():
            target = args.dst / kind if args.kind == 'both' else args.dst
            done = make_set(recipe, args.src, target, args.workers, args.skip_bad)
            print(f'{target}: {done["made"]} made, {done["found"]} were there')
            for image, reason in done['skipped'].items():
                print(f'{target}: left out {image}: {reason}')
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise SystemExit(f'make_corruptions.py: error: {error}') from None


if __name__ == '__main__':
    main()
