"""What has to be settled before PyTorch and OpenMMLab's packages are imported.

Outside its environment a tool ends here with the commands that make and activate it. Imported
before any package that may be absent; a script runs it to check a Python.
"""

import os
import re
import shlex
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ('numpy', 'torch', 'torchvision', 'mmengine', 'mmcv', 'gcp_mm')
# What the frameworks say and nobody can act upon: what it begins with, by the module that says it
WARNINGS = {
    r'mmengine\.utils\.package_utils|importlib': 'pkg_resources is deprecated',
    r'mmengine\.model\.wrappers\.distributed': '`broadcast_buffers` is deprecated',
    # Those of the inferencers, which draw into no folder
    r'mmengine\.visualization\.visualizer': 'Failed to add <class .*LocalVisBackend',
    # The summary of a run has the number of threads.
    r'mmengine\.utils\.dl_utils\.setup_env': 'Setting (OMP|MKL)_NUM_THREADS environment variable',
    # Another metric than CocoMetric, by which both frameworks evaluate, needs it.
    r'mmdet\.evaluation\.metrics\.faster_coco_metric': 'faster_coco_eval is not installed',
}
LINES = {
    'mmdet.datasets, mmpretrain.datasets': r'Could not import OneDL\b',
    'pycocotools.coco': r'(loading annotations into memory\.\.\.|creating index\.\.\.|'
    r'Loading and preparing results\.\.\.|index created!|(Done|DONE) \(t=[\d.]+s\))$',
    'mmengine.runner.checkpoint': 'Loads checkpoint by ',
    'mmengine.fileio': r'.*WARNING.* - "(FileClient|HardDiskBackend)" (will be|is the alias)',
    # Before the losses of each epoch
    'mmengine.hooks.logger_hook': r'.*INFO.* - Exp name: ',
    'mmengine.registry': r'.*WARNING.* - Failed to search registry with scope "\w+" in '
    r'the "function" registry',
}
NOISE = re.compile('|'.join(LINES.values()))


class Screen:
    """A text stream, such as the standard output, without the lines of `LINES`."""

    def __init__(self, stream):
        self.stream = stream
        self.dropped = False

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        """Write a text; `print` gives the line break of a line apart."""
        dropped = self.dropped and text == '\n'
        self.dropped = bool(NOISE.match(text))
        return len(text) if dropped or self.dropped else self.stream.write(text)


def advice() -> str:
    """The commands that make and activate the environment, from the current folder."""
    if Path.cwd() == ROOT:
        return 'make install, then . .venv/bin/activate'
    root = shlex.quote(str(ROOT))
    return f'make -C {root} install, then . {root}/.venv/bin/activate'


def check_environment() -> None:
    """End the program, with a line, if a package that every tool needs cannot be found."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
            text = f'{sys.executable} has no {", ".join(missing)}; {advice()}'
            print(f'{Path(sys.argv[0]).name}: error: {text}', file=sys.stderr)
        sys.exit(2)


def leave_out_warnings() -> None:
    """Ignore `WARNINGS`, of whichever category."""
    for module, message in WARNINGS.items():
        warnings.filterwarnings('ignore', message=message, module=module)


check_environment()
leave_out_warnings()
