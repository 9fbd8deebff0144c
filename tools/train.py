"""Train a classifier of MMPretrain or a detector of MMDetection."""

import argparse

from arguments import add_run_arguments, run_config_of
from mmengine.dist import is_main_process

from gcp_mm.checks import check_disk, check_run, warnings_in
from gcp_mm.runtime import launch, set_auto_scale_lr, set_resume


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_run_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from this checkpoint or, without a path, from the latest intact one of the '
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
    cfg = run_config_of(args)
    if args.resume:
        set_resume(cfg, args.resume, args.trust)
    if args.auto_scale_lr:
        set_auto_scale_lr(cfg)
    warnings = check_run(cfg, 'train')

    def train(runner):
        if is_main_process():  # which writes the checkpoints, and the log
            for text in [*warnings, *warnings_in(check_disk(cfg, runner.model))]:
                runner.logger.warning(text)
        runner.train()

    launch(cfg, train)


if __name__ == '__main__':
    main()
