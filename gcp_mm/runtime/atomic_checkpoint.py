"""Checkpoints that a kill while they are written cannot break."""

import copy
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from .._io import write_atomically

BACKEND = 'atomic'


@register_backend(BACKEND)
class AtomicBackend(LocalBackend):
    """The local disk, written by :func:`write_atomically`; mmengine knows it as 'atomic'."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, whose folder is made if it is absent."""
        write_atomically(filepath, obj)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook with atomic writes: you can resume a run killed at any moment.

    On a local disk every checkpoint is written atomically, see :func:`write_atomically`. On any
    storage, a checkpoint that `max_keep_ckpts` or `save_best` makes superfluous is removed only
    after its successor is complete and named in `last_checkpoint`; the stock hook removes it
    before. With ``max_keep_ckpts=1`` two checkpoints therefore exist for a moment.

    Arguments, file names and contents are those of the stock hook. Two kinds of files are not
    written atomically: those on a storage set by `backend_args`, and the copy that `published_keys`
    makes at the end of training.

    Raises:
        OSError: if a checkpoint cannot be written; the earlier ones are unchanged.
    """

    def before_train(self, runner):
        backend = get_file_backend(self.out_dir or runner.work_dir)
        chosen = self.backend_args is not None or self.file_client_args is not None
        if type(backend) is LocalBackend and not chosen:
            self.backend_args = dict(backend=BACKEND)
        super().before_train(runner)
        if self.backend_args == dict(backend=BACKEND) and is_main_process():
            # A run that was killed leaves its own.
            for part in Path(self.out_dir).glob('*.pth.*.part'):
                part.unlink(missing_ok=True)

    def _save_checkpoint_with_step(self, runner, step, meta):
        with self._removals_last():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics):
        with self._removals_last():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removals_last(self):
        """Context that puts off what the stock hook removes; after an error nothing is removed.

        mmengine has no option for the order, so its calls of the file backend are noted.
        """
        backend, outdated = self.file_backend, []
        self.file_backend = copy.copy(backend)
        self.file_backend.remove = lambda path: outdated.append((backend.remove, path))
        # Checkpoints of DeepSpeed are folders.
        self.file_backend.rmtree = lambda path: outdated.append((backend.rmtree, path))
        try:
            yield
        finally:
            self.file_backend = backend
        best = {getattr(self, 'best_ckpt_path', None)}
        best |= set(getattr(self, 'best_ckpt_path_dict', {}).values())
        for remove, path in outdated:
            if path not in best:
                remove(path)
