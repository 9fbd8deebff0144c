"""Check a config, and the packages, data and disk space that it needs, before a job."""

import argparse

from arguments import add_config_arguments, add_trust_argument, print_findings, run

from mmengine.logging import MMLogger

from gcp_mm.checkpoints import install_safe_readers
from gcp_mm.checks import run_checks, world_size
from gcp_mm.ops.arguments import check_integer
from gcp_mm.runtime import load_config, set_auto_scale_lr


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='where logs and checkpoints will go')
    add_trust_argument(parser)
    parser.add_argument(
        '--gpus', type=int, default=world_size('pytorch'), help='processes of the job; default: 1'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='check a job that is started with --auto-scale-lr',
    )
    args = parser.parse_args()
    check_integer('--gpus', args.gpus)
    return args


def main():
    args = parse_args()
    install_safe_readers(args.trust)
    cfg = load_config(args.config, args.cfg_options, work_dir=args.work_dir)
    if args.auto_scale_lr:
        set_auto_scale_lr(cfg)
    MMLogger.get_current_instance().setLevel('WARNING')  # each weight's initialization is logged
    findings = run_checks(cfg, level='network', processes=args.gpus, trust=args.trust)
    raise SystemExit(print_findings(findings))


if __name__ == '__main__':
    run(main)
