"""A hook that ends a run where a test wants it: killed, or on a full disk."""

import os
import random
import resource
import signal
import threading
import time

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

LIMIT = 200_000  # bytes a file may have: less than a checkpoint, more than a log


@HOOKS.register_module()
class FaultHook(Hook):
    """End the run in an epoch.

    Args:
        epoch: counted from 1.
        at: 'random', killed at some moment from the beginning of the epoch on; 'step', between
            the first and the second; 'write', with 200 kB of a checkpoint written; 'rename', with
            all of it, and not yet its name; 'name', before `last_checkpoint` is replaced;
            'remove', before the outdated checkpoint is; 'validation'; 'full': no file can grow
            beyond 200 kB.
    """

    def __init__(self, epoch, at):
        self.epoch = epoch
        self.at = at

    def before_train_epoch(self, runner):
        if self.due(runner, 'random'):
            # not from the generators that the training uses
            threading.Timer(random.SystemRandom().uniform(0, 0.5), kill).start()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx and self.due(runner, 'step'):
            kill()

    def after_train_epoch(self, runner):
        if self.due(runner, 'write', 'full'):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
            if self.at == 'write':  # the kernel kills; Python would get an error in its place
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        if self.due(runner, 'rename'):
            kill_in('replace', lambda part, path: path.endswith('.pth'))
        if self.due(runner, 'name'):
            kill_in('replace', lambda part, path: path.endswith('last_checkpoint'))
        if self.due(runner, 'remove'):
            kill_in('remove', lambda path: path.endswith('.pth'))

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.at == 'validation' and runner.epoch == self.epoch:  # already counted on
            kill()

    def after_train(self, runner):
        if self.at == 'random':
            time.sleep(60)  # for a kill that comes late

    def due(self, runner, *points):
        return self.at in points and runner.epoch + 1 == self.epoch


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in(name, when):
    """Have a function of `os` kill the process where its arguments are such."""
    function = getattr(os, name)

    def deadly(*args):
        if when(*map(str, args)):
            kill()
        return function(*args)

    setattr(os, name, deadly)
