"""Say what is wrong with a config, and with the packages, data and disk it needs, before a job."""

import argparse
import sys
from contextlib import redirect_stdout

from arguments import add_config_arguments, add_trust_argument
from mmengine.logging import MMLogger

from gcp_mm.checkpoints import install_safe_readers
from gcp_mm.checks import all_checks, run_check
from gcp_mm.checks.batch import processes
from gcp_mm.runtime import load_config, set_auto_scale_lr

SIGNS = dict(ok='ok', warning='WARNING', error='ERROR', skipped='skipped')
LONG = dict(network='building it', loss='one training step, which takes seconds on a CPU')


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='where logs and checkpoints will go')
    add_trust_argument(parser)
    parser.add_argument(
        '--gpus', type=int, default=processes('pytorch'), help='processes of the job, by default 1'
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='as the job will have it: see tools/train.py'
    )
    args = parser.parse_args()
    if args.gpus < 1:
        parser.error(f'--gpus {args.gpus}: expected at least 1')
    return args


def main():
    args = parse_args()
    install_safe_readers(args.trust)
    cfg = load_config(args.config, args.cfg_options, work_dir=args.work_dir)
    if args.auto_scale_lr:
        set_auto_scale_lr(cfg)
    MMLogger.get_current_instance().setLevel('WARNING')  # each weight's initialisation is logged
    failed = False
    for name, check in all_checks(cfg, args.gpus, args.trust):
        if name in LONG:
            print(f'({LONG[name]})', file=sys.stderr, flush=True)
        with redirect_stdout(sys.stderr):  # what the frameworks say meanwhile
            findings = run_check(check)
        for finding in findings:
            print(f'{name:<11} {SIGNS[finding.status]:<7} {finding.text}', flush=True)
            failed |= finding.status == 'error'
    raise SystemExit(1 if failed else 0)


if __name__ == '__main__':
    main()
