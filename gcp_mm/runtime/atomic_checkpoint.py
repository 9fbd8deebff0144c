"""Checkpoints that a kill while they are written cannot break."""

import copy
import os.path as osp
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

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file, whose folder is made if it is absent."""
        self.put(obj.encode(encoding), filepath)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, but that a run killed at any moment can be continued.

    On a local disk every checkpoint, and the file `last_checkpoint` that names the latest, is
    written atomically, see :func:`write_atomically`. And on any storage what
    `max_keep_ckpts` and `save_best` make superfluous is removed after its successor has been
    written, where the stock hook does it before: with ``max_keep_ckpts=1`` there are two for a
    moment, not none.

    Arguments, file names and the files' content are those of the stock hook. A storage named by
    hand (`backend_args`) is left as it is. So is what `published_keys` makes when training ends:
    it is a copy, written in place.

    Raises:
        OSError: if a checkpoint cannot be written; the earlier ones are as they were.
    """

    def before_train(self, runner):
        backend = get_file_backend(self.out_dir or runner.work_dir)
        chosen = self.backend_args is not None or self.file_client_args is not None
        if type(backend) is LocalBackend and not chosen:
            self.backend_args = dict(backend=BACKEND)
        super().before_train(runner)

    def _save_checkpoint_with_step(self, runner, step, meta):
        """As the stock hook's, in another order: write, then name the latest, then remove."""
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = [self.keep_ckpt_ids.popleft()]
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        AtomicBackend().put_text(str(self.last_ckpt), osp.join(runner.work_dir, 'last_checkpoint'))
        for old in outdated:
            self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))

    def _save_best_checkpoint(self, runner, metrics):
        """As the stock hook's, but that the previous best is removed last."""
        backend, outdated = self.file_backend, []
        self.file_backend = copy.copy(backend)
        self.file_backend.remove = self.file_backend.rmtree = outdated.append
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = {getattr(self, 'best_ckpt_path', None)}
        best |= set(getattr(self, 'best_ckpt_path_dict', {}).values())
        for path in outdated:
            if path not in best:
                self._remove(path)

    def _remove(self, path):
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # DeepSpeed's
            self.file_backend.rmtree(path)
