"""From which checkpoint an interrupted run continues."""

import logging
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint

from ..checkpoints import check_intact, checkpoint_location, read_checkpoint


def find_checkpoint(
    work_dir: str | Path, folder: str | Path | None = None, template: str = 'epoch_{}.pth'
) -> str | None:
    """The newest intact checkpoint of a run, by :func:`check_intact`.

    That is the one that the file `last_checkpoint` names or, with a warning, the newest intact one
    before it. A later one is taken only if it was saved after that one: by this run, which ended
    before it could name it, and not by an earlier one. Without that file all are considered.

    Args:
        work_dir: of the run, where `last_checkpoint` is.
        folder: folder of the checkpoints, by default the work dir. A file there goes before one of
            the same name at the path in `last_checkpoint`: the run may have been moved or copied.
        template: name of a checkpoint, '{}' for its number; the best (`best_*`) have others.

    Returns:
        Its path, or None if there is no checkpoint at all.

    Raises:
        ValueError: if there are some, and none is intact.
    """
    folder = Path(folder or work_dir)
    pattern = r'(\d+)'.join(re.escape(part) for part in template.split('{}'))
    numbers = {
        path: int(match[1])
        for path in folder.glob('*')
        if (match := re.fullmatch(pattern, path.name))
    }
    candidates = sorted(numbers, key=numbers.get, reverse=True)
    named = find_latest_checkpoint(str(work_dir))
    if named:
        latest = folder / Path(named).name
        latest = latest if latest.exists() else Path(named)
        match = re.fullmatch(pattern, latest.name)
        number = int(match[1]) if match else 0
        later = [path for path in candidates if numbers[path] > number] if match else []
        candidates = [
            *_saved_after(latest, later),
            *(latest, *(path for path in candidates if numbers[path] < number)),
        ]
    elif Path(work_dir, 'last_checkpoint').exists():  # a kill while mmengine wrote it
        candidates.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    reasons = []
    for path in candidates:
        try:
            check_intact(path)
        except (FileNotFoundError, ValueError) as error:
            reasons.append(str(error))
            continue
        if reasons:
            print_log(
                f'{"; ".join(reasons)}. Resuming from {str(path)!r} instead',
                logger='current',
                level=logging.WARNING,
            )
        return str(path)
    if reasons:
        raise ValueError(
            f'--resume: no checkpoint of {str(work_dir)!r} can be used: {"; ".join(reasons)}. To '
            'start anew, remove them and the file last_checkpoint'
        )
    return None


def set_resume(cfg: Config, resume: str, trust: bool = False) -> None:
    """Set in a config from where it resumes, if it does.

    Args:
        cfg: the config, changed in place. On a remote storage nothing is checked.
        resume: path or address of a checkpoint, or 'auto': what :func:`find_checkpoint` finds.
            Without any, the run starts from the config's own `load_from` if it has one.
        trust: as in :func:`gcp_mm.checkpoints.read_checkpoint`.

    Raises:
        FileNotFoundError: if `resume` does not exist.
        ValueError: if it, or with 'auto' every checkpoint of the run, is broken.
    """
    if resume == 'auto':
        folder, template = checkpoint_location(cfg)
        if '://' in folder:
            resume = find_latest_checkpoint(cfg.work_dir)
        else:
            resume = find_checkpoint(cfg.work_dir, folder, template)
    elif '://' not in resume:
        check_intact(resume, trust)
    cfg.resume = bool(resume)
    if resume:
        cfg.load_from = resume
    else:
        print_log(f'--resume: no checkpoint in {cfg.work_dir!r} yet', logger='current')


def _saved_after(latest, others):
    """Those of `others` that are intact and were saved after `latest`, by what they say of it."""
    times = {}
    for path in (latest, *others) if others else ():
        try:
            check_intact(path)
            times[path] = read_checkpoint(path)['meta']['time']
        except (FileNotFoundError, KeyError, TypeError, ValueError):
            continue  # not fit to be resumed from; `latest` is looked at again where that counts
    return [path for path in others if path in times and times[path] >= times.get(latest, '~')]
