"""Train a classifier of MMPretrain or a detector of MMDetection."""

import argparse

from arguments import add_run_arguments, run, run_config_of

from mmengine.dist import is_main_process

from gcp_mm.checks import check_config, raise_errors, warnings_in
from gcp_mm.runtime import launch, only_job, set_auto_scale_lr, set_resume


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
        help='scale the learning rate by the ratio of the batch of all processes, without gradient '
        'accumulation, to the base batch size',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = run_config_of(args)
    with only_job(cfg, cfg.work_dir, folder=True):  # before it looks for the last checkpoint
        train(cfg, args)


def train(cfg, args):
    if args.resume:
        set_resume(cfg, args.resume, args.trust)
    if args.auto_scale_lr:
        set_auto_scale_lr(cfg)
    loaded = []
    findings = check_config(cfg, loaded=loaded)
    raise_errors(findings)

    def run_training(runner):
        if is_main_process():  # which writes the checkpoints, and the log
            disk = check_config(cfg, level='disk', model=runner.model)
            raise_errors(disk)
            for text in warnings_in([*findings, *disk]):
                runner.logger.warning(text)
        runner.train()

    launch(cfg, run_training, loaded)


if __name__ == '__main__':
    run(main)
