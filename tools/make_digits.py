"""Write the digits as a classification set and as scenes for detection, in COCO's format."""

import argparse
from pathlib import Path

from arguments import run

from gcp_mm.data.digit_scenes import write_scenes
from gcp_mm.data.digits import write_classification, write_clutter


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        '--out', type=Path, default='data', help='folder to hold digits/ and digits_coco/'
    )
    sizes = dict(
        image_size=(64, 'width and height of a classification image in pixels'),
        scene_size=(160, 'width and height of a scene in pixels'),
        train_scenes=(400, 'number of training scenes'),
        val_scenes=(100, 'number of validation scenes'),
    )
    for name, (default, help) in sizes.items():
        option = f'--{name.replace("_", "-")}'
        parser.add_argument(option, type=int, default=default, help=help)
    parser.add_argument(
        '--hard',
        action='store_true',
        help='also digits_few/, 20 training images of each class, and digits_clutter/',
    )
    options = vars(parser.parse_args())
    out, image_size, hard = options.pop('out'), options.pop('image_size'), options.pop('hard')
    sets = [
        (out / 'digits', write_classification, dict(image_size=image_size)),
        (out / 'digits_coco', write_scenes, options),
    ]
    if hard:
        sets += [
            (out / 'digits_few', write_classification, dict(image_size=image_size, per_class=20)),
            (out / 'digits_clutter', write_clutter, {}),
        ]
    for folder, write, arguments in sets:
        written = write(folder, **arguments)
        print(f'{folder}: {"written" if written else "already complete"}')


if __name__ == '__main__':
    run(main)
