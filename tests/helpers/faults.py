"""A hook that ends a run where a test wants it: killed, or on a full disk."""

import builtins
import os
import resource
import signal
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook, checkpoint_hook
from mmengine.registry import HOOKS

LIMIT = 200_000  # bytes a file may have: less than a checkpoint, more than a log


@HOOKS.register_module()
class FaultHook(Hook):
    """End the run in an epoch.

    Args:
        epoch: counted from 1.
        at: 'step', killed between the first and the second; 'machine', the same with its launcher;
            'hang', stopped and not ended; 'write', with 200 kB of a checkpoint
            written; 'rename', with all of it, and not yet its name; 'name', before
            `last_checkpoint` is written; 'remove', before the outdated checkpoint is;
            'validation'; 'full': no file can grow beyond 200 kB; 'log': nor its logs at all.
        rank: of the process.
    """

    def __init__(self, epoch, at, rank=0):
        self.epoch = epoch
        self.at = at
        self.rank = rank

    def before_train_epoch(self, runner):
        if self.due(runner, 'log'):
            size = Path(runner.log_dir, 'vis_data/scalars.json').stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx and self.due(runner, 'machine'):
            os.kill(os.getppid(), signal.SIGKILL)
        if batch_idx and self.due(runner, 'hang'):
            os.kill(os.getpid(), signal.SIGSTOP)
        if batch_idx and self.due(runner, 'step', 'machine'):
            kill()

    def after_train_epoch(self, runner):
        if self.due(runner, 'write', 'full'):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
            if self.at == 'write':  # the kernel kills; Python would get an error in its place
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        if self.due(runner, 'rename'):
            kill_in(os, 'replace', lambda part, path: path.endswith('.pth'))
        if self.due(runner, 'name'):
            kill_in(checkpoint_hook, 'open', lambda path, _: path.endswith('last_checkpoint'))
        if self.due(runner, 'remove'):
            kill_in(os, 'remove', lambda path: path.endswith('.pth'))

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.at == 'validation' and runner.epoch == self.epoch:  # already counted on
            kill()

    def due(self, runner, *points):
        at_hand = runner.epoch + 1 == self.epoch and get_rank() == self.rank
        return at_hand and self.at in points


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in(module, name, when):
    """Have a function that a module calls kill the process where its arguments are such."""
    function = getattr(module, name, None) or getattr(builtins, name)

    def deadly(*args):
        if when(*map(str, args)):
            kill()
        return function(*args)

    setattr(module, name, deadly)
