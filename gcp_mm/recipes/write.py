"""From a folder of images to a config."""

from functools import partial
from pathlib import Path

from .._io import write_atomically
from ..checks.machine import number_of_cores
from ..ops.arguments import check_integer
from .classifier import classifier
from .coco import find_objects
from .detector import detector
from .folders import find_folders
from .images import inspect_images
from .network import find_network

TASKS = ('classify', 'detect', 'segment')


def write_config(
    data: str | Path,
    task: str,
    out: str | Path,
    *,
    network: str = 'resnet18-gcp',
    weights: str | None = None,
    size: int | None = None,
    processes: int = 1,
    seed: int = 0,
    trust: bool = False,
    force: bool = False,
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Inspect a dataset, and write a config that trains on it.

    Args:
        data: folder of the dataset. For 'classify' it has class folders,
            ``{train,val}/<class>/<image>`` or ``<class>/<image>``; otherwise files in COCO format.
        task: 'classify', 'detect' or 'segment'.
        out: path of the config (.py). The lists of a split are written beside it.
        network: name of the network, see :func:`.find_network`.
        weights: checkpoint to start from, see :func:`.find_network`.
        size: side of a classifier's images, or longest side of a detector's, in pixels; by default
            chosen from the images.
        processes: number of processes of the training.
        seed: seed of the split, for a dataset without one.
        trust: read a checkpoint that holds Python objects, which executes code from the file.
        force: replace existing files.

    Returns:
        The files written, the config first, and notes on the data, a sentence each, which the
        config has too.

    Raises:
        FileExistsError: if a file to be written exists, and `force` is not set.
        FileNotFoundError: if the folder `data` or the file `weights` does not exist.
        ValueError: if the dataset cannot be used for training, or an argument is wrong.
    """
    data, out = Path(data), Path(out)
    _check(data, task, out, size, processes)
    chosen = find_network(network, weights, task != 'classify', trust)
    suffix = '.txt' if task == 'classify' else '.json'
    lists = {s: out.with_name(f'{out.stem}_{s}{suffix}') for s in ('train', 'val')}
    if task == 'classify':
        found, make = find_folders(data, seed), classifier
    else:
        found = find_objects(data, seed, lists.values())
        make = partial(detector, masks=task == 'segment')
    lists = lists if found.was_split else {}
    for path in [out, *lists.values()]:
        if path.exists() and not force:
            raise FileExistsError(f'{str(path)!r} exists; name another --out, or pass --force')
    sizes = inspect_images([*found.infos('train'), *found.infos('val')])
    names = {split: str(path) for split, path in lists.items()}
    workers = min(8, max(1, number_of_cores() // processes // 2))
    text = make(found, sizes, names, chosen, size=size, processes=processes, workers=workers)
    for split, path in lists.items():
        write_atomically(path, found.listing(split).encode())
    write_atomically(out, text.encode())
    return (out, *lists.values()), found.notes


def _check(data, task, out, size, processes):
    if task not in TASKS:
        raise ValueError(f'task: expected one of {TASKS}, got {task!r}')
    if not data.is_dir():
        raise FileNotFoundError(f'data: there is no folder {str(data)!r}')
    if out.suffix != '.py':
        raise ValueError(f'out: expected a name that ends in .py, got {str(out)!r}')
    check_integer('processes', processes)
    if size is not None:
        check_integer('size', size, 32)
