"""Short trainings by the real tools, to be interrupted and compared."""

import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import DictAction
from mmengine.runner import Runner
from torch.multiprocessing import start_processes

from gcp_mm.checkpoints import read_checkpoint
from gcp_mm.runtime import launch, load_config
from gcp_mm.runtime.resume import set_resume

ROOT = Path(__file__).resolve().parents[2]
CLS = 'configs/digits/resnet18-gcp_1xb64-5e_digits.py'
DRAWING = ROOT / 'tests/helpers/drawing.py'
# Settings that make CLS and its like narrow: 136 features of a covariance of 16 channels.
NARROW = {
    'model.backbone.stem_channels': 8,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': 64,
    'model.neck.reduction': [16],
    'model.head.in_channels': 136,
}
MARK = 'GCP_MM_TEST_RUN'
DEFAULTS = dict(PYTHON=sys.executable, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
# The processes of FORKS begin after the imports, which take seconds.
FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload(['tests.helpers.preloaded'])


@dataclass
class Training:
    """A training that checkpoints every epoch.

    Attributes:
        config: file.
        options: settings, key=value, that make it short.
        epochs: their number.
    """

    config: Path
    options: list[str]
    epochs: int

    def command(self, work_dir, *arguments, processes=None, **fault):
        """Of tools/train.py or, with `processes`, tools/dist_train.sh.

        Args:
            work_dir: of the run.
            arguments: such as '--resume', and settings as 'key=value'.
            processes: on this machine.
            fault: arguments of tests.helpers.faults.FaultHook, or none.
        """
        if fault:
            fault['type'] = 'FaultHook'
        settings = [word for word in map(str, arguments) if '=' in word]
        return [
            *(['tools/dist_train.sh'] if processes else ['tools/train.py']),
            *(str(self.config), *([str(processes)] if processes else [])),
            *('--work-dir', str(work_dir)),
            *(str(word) for word in arguments if str(word) not in settings),
            *('--cfg-options', *self.options, *settings),
            *(f'default_hooks.fault.{key}={value}' for key, value in fault.items()),
        ]

    def final(self, work_dir):
        """What is left after the last epoch: weights, buffers, momentum, schedule."""
        content = read_checkpoint(Path(work_dir) / f'epoch_{self.epochs}.pth')
        return {key: content[key] for key in ('state_dict', 'optimizer', 'param_schedulers')}


def start(*command, **environment):
    """Start a command in the project's root.

    Returns:
        The Popen; its `output`, a file, gets what it says, and its `mark` is in the environment of
        all that it starts.
    """
    if str(command[0]).endswith('.py'):
        command = (sys.executable, *command)
    output = tempfile.TemporaryFile()  # noqa: SIM115 - goes with the process
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **DEFAULTS, 'PORT': free_port(), MARK: mark, **environment},
    )
    process.output, process.mark = output, mark
    return process


def said(process):
    """What a process of :func:`start` has said up to now."""
    file = process.output.fileno()
    # not by reading on: the process writes where the file's one position is
    return os.pread(file, os.fstat(file).st_size, 0).decode(errors='replace')


def wait_for(process, words, timeout=600):
    """Wait until a process has said something, or has ended, for so many seconds at most."""
    end = time.monotonic() + timeout
    while process.poll() is None and words not in said(process) and time.monotonic() < end:
        time.sleep(0.02)


def finish(process, timeout=600):
    """Wait for a process; it and all it started are killed after so many seconds.

    Returns:
        A CompletedProcess.
    """
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        kill(process)
        raise AssertionError(f'not done after {timeout} s: {said(process)}') from None
    return subprocess.CompletedProcess(process.args, process.returncode, said(process))


def fork(script, *arguments, timeout=600):
    """Run a Python script in the project's root, in a process that has imported the packages.

    Returns:
        A CompletedProcess, as of :func:`finish`.
    """
    with tempfile.NamedTemporaryFile() as output:
        words = [str(word) for word in (script, *arguments)]
        process = FORKS.Process(target=_run_script, args=(output.name, words))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f'not done after {timeout} s: {Path(output.name).read_text()}')
        said = Path(output.name).read_text(errors='replace')
        return subprocess.CompletedProcess(words, process.exitcode, said)


def _run_script(output, words):
    os.setpgrp()  # with all that it starts
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(ROOT)
    os.environ.update(DEFAULTS, PORT=free_port())
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    runpy.run_path(words[0], run_name='__main__')


def run_pair(function, *arguments):
    """Run `function(rank, *arguments)` in two processes that have imported the packages."""
    start_processes(function, arguments, nprocs=2, start_method='forkserver')


def members(process):
    """Ids of a process and of all that it started, whatever session they are in."""
    ids = []
    for folder in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):  # ended meanwhile
            if f'{MARK}={process.mark}'.encode() in (folder / 'environ').read_bytes():
                ids.append(int(folder.name))
    return ids


def kill(process):
    """Kill a process and all that it started."""
    for number in members(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait()


def free_port():
    """For launchers: tests may run side by side."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


def config_of(path, *options, **settings):
    """The config of a run as :func:`load_config` gives it, options written as on a command line."""
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction, default={})
    parsed = parser.parse_args(['--cfg-options', *map(str, options)])
    return load_config(str(path), parsed.cfg_options, **settings)


def train_here(config, work_dir, *options, run=Runner.train, resume=None, **changes):
    """Train in this process, which spares seconds of imports.

    Args:
        config: file.
        work_dir: of the run, a Path.
        options: settings, 'key=value'.
        run: what to do with the Runner.
        resume: as of :func:`gcp_mm.runtime.resume.set_resume`.
        changes: settings by their dotted names, after the options.
    """
    cfg = config_of(config, *options, work_dir=str(work_dir))
    cfg.merge_from_dict({'experiment_name': work_dir.name, **changes})
    if resume:
        set_resume(cfg, resume)
    return launch(cfg, run)
