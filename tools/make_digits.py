"""Write the digits as a classification set and as scenes for detection, in COCO's format."""

import argparse
import inspect
from pathlib import Path

from gcp_mm.data.digit_scenes import write_scenes
from gcp_mm.data.digits import write_classification


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        '--out', type=Path, default='data', help='folder to hold digits/ and digits_coco/'
    )
    defaults = {
        name: parameter.default
        for function in (write_classification, write_scenes)
        for name, parameter in inspect.signature(function).parameters.items()
        if name != 'root'
    }
    helps = dict(
        image_size='width and height of a classification image in pixels',
        val='digits kept for validation, of 1,797',
        seed='of the split and the scenes',
        scene_size='width and height of a scene in pixels',
        train_scenes='number of training scenes',
        val_scenes='number of validation scenes',
        max_digits='most digits in a scene',
    )
    for name, default in defaults.items():
        option = f'--{name.replace("_", "-")}'
        parser.add_argument(option, type=int, default=default, help=helps[name])
    options = vars(parser.parse_args())
    out = options.pop('out')

    for function, name in ((write_classification, 'digits'), (write_scenes, 'digits_coco')):
        accepted = inspect.signature(function).parameters
        written = function(out / name, **{k: v for k, v in options.items() if k in accepted})
        print(f'{out / name}: {"written" if written else "already complete"}')


if __name__ == '__main__':
    main()
