"""From a folder of pictures to a config."""

import os
from functools import partial
from pathlib import Path

from .._io import check_integer, write_atomically
from .classifier import classifier
from .coco import find_objects
from .detector import detector
from .folders import find_folders
from .network import find_network
from .pictures import look_at

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
) -> list[Path]:
    """Look at a dataset, and write a config that trains on it.

    Args:
        data: folder; of class folders ``{train,val}/<class>/<picture>`` or ``<class>/<picture>``
            to classify, else with files in COCO's format.
        task: 'classify', 'detect' or 'segment'.
        out: path of the config (.py). The lists of a split go beside it.
        network: see :func:`.find_network`.
        weights: checkpoint to start from, as :func:`.find_network` takes it.
        size: side of the images of a classifier, of a detector their longest side, in pixels; None
            for one that fits the pictures.
        processes: of the training.
        seed: of the split of a dataset that is not split.
        trust: read a checkpoint that holds Python objects, which executes what is in it.
        force: replace files that exist.

    Returns:
        Paths of the files written, the config first.

    Raises:
        FileExistsError: if a file to be written exists, and `force` is not set.
        FileNotFoundError: if there is no folder `data`, or no file `weights`.
        ValueError: for a dataset that no training could use, or a wrong argument.
    """
    data, out = Path(data), Path(out)
    _check(data, task, out, size, processes)
    masks = task == 'segment'
    classify = task == 'classify'
    found = find_folders(data, seed) if classify else find_objects(data, masks, seed)
    lists = {}
    if found.was_split:
        lists = {s: out.with_name(f'{out.stem}_{s}{found.suffix}') for s in ('train', 'val')}
    outputs = [out, *lists.values()]
    for path in outputs:
        if path.resolve() in [source.resolve() for source in found.sources]:
            raise ValueError(f'out: {str(path)!r} would be written, and is an input; name another')
        if path.exists() and not force:
            raise FileExistsError(f'{str(path)!r} exists; name another --out, or pass --force')
    make = classifier if classify else partial(detector, masks=masks)
    text = make(
        found,
        look_at([*found.paths('train'), *found.paths('val')]),
        {split: str(path) for split, path in lists.items()},
        find_network(network, weights, trust),
        size=size,
        processes=processes,
        workers=2 if (os.cpu_count() or 1) > 2 else 1,
    )
    for split, path in lists.items():
        write_atomically(path, found.listing(split).encode())
    write_atomically(out, text.encode())
    return outputs


def _check(data, task, out, size, processes):
    if task not in TASKS:
        raise ValueError(f'task: expected one of {TASKS}, got {task!r}')
    if not data.is_dir():
        raise FileNotFoundError(f'data: there is no folder {str(data)!r}')
    if out.suffix != '.py':
        raise ValueError(f'out: expected a name that ends in .py, got {str(out)!r}')
    check_integer('processes', processes, 1)
    if size is not None:
        check_integer('size', size, 32)
