"""What several tools share: arguments, configs, lists of findings, and how a mistake ends them."""

import contextlib
import logging
import os
import os.path as osp
import subprocess
import sys
import traceback
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

from startup import Screen

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

from gcp_mm.checkpoints import install_safe_readers
from gcp_mm.checks import Finding
from gcp_mm.checks.data import build_dataset, find_annotated, find_datasets
from gcp_mm.runtime import load_config, read_config

# What a user can put right. Any other exception is a fault of the program.
MISTAKES = (ValueError, TypeError, OSError, ImportError, FloatingPointError, KeyError)
SIGNS = dict(ok='ok', warning='WARNING', error='ERROR', skipped='skipped')  # of findings


def run(main: Callable[[], object]) -> None:
    """Run a tool. A mistake of the user ends it with a line and exit code 2, not a traceback.

    `--debug`, which every tool takes, shows the traceback. The log file of a run gets it too.
    """
    debug = '--debug' in sys.argv
    if debug:
        sys.argv.remove('--debug')
    try:
        with contextlib.redirect_stdout(Screen(sys.stdout)):
            main()
    except MISTAKES as error:
        # A registry's KeyError is a sentence, that of a program's fault the key alone.
        if debug or (isinstance(error, KeyError) and ' ' not in str(error.args[:1])):
            raise
        _log_traceback()
        text = str(error.args[0] if isinstance(error, KeyError) else error) or repr(error)
        if 'Original Traceback' in text:  # of a dataloader's worker
            text = text.strip().splitlines()[-1]
        name = Path(sys.argv[0]).name
        print(f'{name}: error: {printable(text)} (--debug: traceback)', file=sys.stderr)
        sys.exit(2)


def run_script(*command: object) -> None:
    """Run a Python script in a process of its own; its failure, once said, ends this one."""
    status = subprocess.run([sys.executable, *map(str, command)]).returncode
    if status:
        sys.exit(status)


def _log_traceback():
    """Add the traceback of the current exception to the log file of a run, if there is one."""
    handlers = MMLogger.get_current_instance().handlers
    for file in [each for each in handlers if isinstance(each, logging.FileHandler)]:
        with contextlib.suppress(OSError), open(file.baseFilename, 'a') as log:  # a full disk
            log.write(traceback.format_exc())


def printable(text: str) -> str:
    """A text with the control characters in it, such as those of a file's name, escaped."""
    return ''.join(c if c.isprintable() or c == '\n' else ascii(c)[1:-1] for c in text)


def print_findings(findings: Iterable[Finding]) -> int:
    """Print a line for each finding as it comes; returns 1 if one of them is an error, else 0.

    What the frameworks print meanwhile goes to the standard error.
    """
    failed = False
    out = sys.stdout
    with contextlib.redirect_stdout(Screen(sys.stderr)):
        for finding in findings:
            line = f'{finding.check:<11} {SIGNS[finding.status]:<7} {finding.text}'
            print(printable(line), file=out, flush=True)
            failed |= finding.status == 'error'
    return int(failed)


def check_outputs(
    outputs: Iterable[str | Path | None],
    files: Iterable[str | Path | None],
    folders: Iterable[str | Path] = (),
) -> None:
    """Check that a tool does not write over what it reads. Links count as what they lead to.

    Args:
        outputs: files and folders that will be written; None where there is none.
        files: that are read; addresses and names of configs are left alone.
        folders: whose files are read, in which nothing may be written.

    Raises:
        ValueError: for an output that is one of `files`, or in one of `folders`.
    """
    files = {Path(path).resolve() for path in files if path and Path(path).is_file()}
    folders = {Path(path).resolve() for path in folders}
    for output in filter(None, outputs):
        place = Path(output).resolve()
        if place in files or not folders.isdisjoint([place, *place.parents]):
            raise ValueError(
                f'output {str(output)!r}: it is, or is in, an input ({str(place)!r}), which would '
                'be overwritten; name another'
            )


def add_config_arguments(parser: ArgumentParser) -> None:
    """Add `config` and `--cfg-options`."""
    parser.add_argument(
        'config',
        help='config file; the name of a config of this project, such as '
        'resnet18-gcp_1xb64-5e_digits; or gcp_mm::..., mmpretrain::..., mmdet::...',
    )
    add_options_argument(parser)


def add_options_argument(parser: ArgumentParser) -> None:
    """Add `--cfg-options`, parsed into a dict."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=_assignment,
        action=DictAction,
        default={},
        help='override settings of the config: key=value, lists as key="[a,b]" without blanks; '
        'for a list of dicts write a config',
    )


def _assignment(text):
    try:
        DictAction._parse_iterable(text.split('=', 1)[1])  # which asserts that brackets are closed
    except (AssertionError, IndexError):
        raise ArgumentTypeError(f'expected key=value, got {text!r}') from None
    return text


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
    parser.add_argument('--amp', action='store_true', help='mixed precision, on a GPU')
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='how the processes are started; default: %(default)s',
    )
    # torch.distributed.launch passes this; torchrun sets the environment variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def device(name: str) -> str:
    """The type of an argument that names a device, which has to be there."""
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        raise ArgumentTypeError(str(error).splitlines()[0]) from None
    return name


def config_of(args: Namespace) -> Config:
    """Read the config of :func:`add_config_arguments`, with files read safely from here on.

    Raises:
        ValueError: if it has no model.
    """
    install_safe_readers(getattr(args, 'trust', False))
    cfg = read_config(args.config, args.cfg_options)
    if not cfg.get('model'):
        raise ValueError(f'config: {args.config!r} has no model; name the config of a network')
    return cfg


def run_config_of(args: Namespace) -> Config:
    """Load the config of :func:`add_run_arguments`, with files read safely from here on."""
    install_safe_readers(args.trust)
    local_rank = os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', str(args.local_rank))
    os.environ.setdefault('LOCAL_RANK', local_rank)
    cfg = load_config(
        args.config, args.cfg_options, work_dir=args.work_dir, amp=args.amp, launcher=args.launcher
    )
    show_dir = getattr(args, 'show_dir', None)
    check_outputs(
        [getattr(args, 'out', None), show_dir],
        [args.config, getattr(args, 'checkpoint', None), *_annotations(cfg)],
        _image_folders(cfg) if show_dir else (),
    )
    return cfg


def _annotations(cfg):
    """Annotation files of the tests of a config."""
    found = find_annotated((cfg.get('test_dataloader'), cfg.get('test_evaluator')))
    return [osp.join(each.get('data_root') or '', each['ann_file']) for each in found]


def _image_folders(cfg):
    """Folders that hold an image of a config's test."""
    folders = set()
    for config in find_datasets(cfg.get('test_dataloader')):
        try:
            dataset = build_dataset(config, cfg.get('default_scope'), serialize_data=False)
        except Exception:  # the checks of the config tell of it
            continue
        images = dataset.data_list if dataset else ()
        folders |= {osp.dirname(image['img_path']) for image in images if 'img_path' in image}
    return folders
