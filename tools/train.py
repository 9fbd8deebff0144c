"""Train a classifier of MMPretrain or a detector of MMDetection."""

import argparse

from gcp_mm.engine import add_common_arguments, check_run, launch, load_config, set_resume


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from this checkpoint or, without a path, from the latest whole one of the '
        'work dir',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the ratio of the actual to the base batch size',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = load_config(args)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume:
        set_resume(cfg, args.resume, args.trust)
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
            raise ValueError(
                '--auto-scale-lr: the config does not say for which batch size its learning rate '
                'is; set auto_scale_lr = dict(base_batch_size=...)'
            )
        cfg.auto_scale_lr.enable = True
    check_run(cfg, 'train')
    launch(cfg, lambda runner: runner.train())


if __name__ == '__main__':
    main()
