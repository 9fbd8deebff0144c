"""Parameters and multiply-adds of a classifier or a detector, for one image.

Global covariance pooling is counted by its textbook definition, as in Table 9 of the paper, however
it is evaluated. That table's bottlenecks have their stride in the first 1x1 convolution:
--cfg-options model.backbone.style=caffe.
"""

import argparse

from arguments import add_config_arguments, config_of, run

import gcp_mm  # noqa: F401  registers its modules for stock configs with --cfg-options
from gcp_mm.studies.complexity import config_complexity


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='size of the image, pixels; 224 224 by default, 800 1280 for a detector',
    )
    args = parser.parse_args()
    cfg = config_of(args)
    detector = cfg.get('default_scope') == 'mmdet'
    complexity = config_complexity(cfg, args.shape or ((800, 1280) if detector else (224, 224)))
    print(f'image            {" x ".join(map(str, complexity.image))}')
    print(f'parameters       {complexity.parameters / 1e6:10.3f} M')
    print(f'multiply-adds    {complexity.total / 1e9:10.3f} G, of')
    for name, number in complexity.multiply_adds.items():
        print(f'  {name:<15}{number / 1e9:10.3f} G')
    print(f'not counted: biases; {", ".join(complexity.uncounted)}')
    if 'rpn_head' in cfg.model:
        print('The heads are counted for the proposals an untrained network makes of random noise.')


if __name__ == '__main__':
    run(main)
