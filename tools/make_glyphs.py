"""Draw letters and digits with the fonts in some folders, as a classification set of 62 classes."""

import argparse
from pathlib import Path

from arguments import run

from gcp_mm.data.glyphs import write_glyphs


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        'folders', nargs='+', type=Path, metavar='FOLDER', help='such as /usr/share/fonts'
    )
    parser.add_argument('--out', type=Path, default=Path('data/glyphs'), help='folder to make')
    parser.add_argument('--per-family', type=int, default=2, help='fonts of a family at most')
    args = parser.parse_args()
    written = write_glyphs(args.out, args.folders, per_family=args.per_family)
    counts = {split: len(list(args.out.glob(f'{split}/0/*'))) for split in ('train', 'val')}
    print(
        f'{args.out}: {"written" if written else "already complete"}, '
        f'{counts["train"]} fonts for training, {counts["val"]} for validation, 62 classes'
    )


if __name__ == '__main__':
    run(main)
