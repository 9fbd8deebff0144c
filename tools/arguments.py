"""Command-line arguments that several tools share, and the config that they name."""

import os
from argparse import ArgumentParser, Namespace

from mmengine.config import Config, DictAction

from gcp_mm.checkpoints import install_safe_readers
from gcp_mm.runtime import load_config, read_config


def add_config_arguments(parser: ArgumentParser) -> None:
    """Add `config` and `--cfg-options`."""
    parser.add_argument(
        'config',
        help='config file, of a classifier or of a detector, or the name of one that comes with '
        'their framework, such as mmpretrain::resnet/resnet152_8xb32_in1k.py',
    )
    add_options_argument(parser)


def add_options_argument(parser: ArgumentParser) -> None:
    """Add `--cfg-options`, parsed into a dict."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='override settings of the config: key=value, lists as key="[a,b]" without blanks; '
        'for a list of dicts write a config',
    )


def add_trust_argument(parser: ArgumentParser) -> None:
    """Add `--trust`."""
    parser.add_argument(
        '--trust',
        action='store_true',
        help='read checkpoints that hold Python objects, which executes what is in them',
    )


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that training and testing share in MMPretrain and MMDetection."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    add_trust_argument(parser)
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='of jobs'
    )
    # torch.distributed.launch passes this; torchrun sets the environment variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def config_of(args: Namespace) -> Config:
    """Read the config of :func:`add_config_arguments`, with files read safely from here on."""
    install_safe_readers(getattr(args, 'trust', False))
    return read_config(args.config, args.cfg_options)


def run_config_of(args: Namespace) -> Config:
    """Load the config of :func:`add_run_arguments`, with files read safely from here on."""
    install_safe_readers(args.trust)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return load_config(
        args.config, args.cfg_options, work_dir=args.work_dir, amp=args.amp, launcher=args.launcher
    )
