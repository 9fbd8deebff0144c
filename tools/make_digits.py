"""Write the digits as a classification set and as scenes for detection, in COCO's format."""

import argparse
from pathlib import Path

from arguments import run

from gcp_mm.data.digit_scenes import write_scenes
from gcp_mm.data.digits import write_classification, write_clutter


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('data'),
        help='folder to hold digits/ and digits_coco/; default: data',
    )
    parser.add_argument(
        '--hard',
        action='store_true',
        help='also digits_few/, 20 training images of each class, and digits_clutter/',
    )
    args = parser.parse_args()
    written = {
        'digits': write_classification(args.out / 'digits'),
        'digits_coco': write_scenes(args.out / 'digits_coco'),
    }
    if args.hard:
        written['digits_few'] = write_classification(args.out / 'digits_few', per_class=20)
        written['digits_clutter'] = write_clutter(args.out / 'digits_clutter')
    for name, new in written.items():
        print(f'{args.out / name}: {"written" if new else "already complete"}')


if __name__ == '__main__':
    run(main)
