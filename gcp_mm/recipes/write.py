"""From a folder of pictures to a config."""

import json
import os
from pathlib import Path

from .._io import check_integer, write_atomically
from . import classifier as classifiers
from . import detector as detectors
from .coco import find_objects
from .folders import find_folders
from .network import find_network
from .pictures import look_at
from .schedule import plan

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
    if task == 'classify':
        found, ending = find_folders(data, seed), 'txt'
    else:
        found, ending = find_objects(data, masks, seed), 'json'
    split = found.was_split
    files = {name: out.with_name(f'{out.stem}_{name}.{ending}') for name in ('train', 'val')}
    files = files if split else {}
    for path in [out, *files.values()]:
        if path.exists() and not force:
            raise FileExistsError(f'{str(path)!r} exists; name another --out, or pass --force')
    chosen = find_network(network, weights, trust)
    pictures = look_at(found.paths('train'))
    fine, workers = chosen.weights is not None, 2 if (os.cpu_count() or 1) > 2 else 1
    if task == 'classify':
        module, images = classifiers, len(found.files['train'])
        batch = next(number for limit, number in module.BATCHES if images <= limit)
    else:
        module = detectors
        images = len({each['image_id'] for each in found.objects('train')})
        batch = module.BATCH * processes
    limits = (module.FINE_STEPS, module.FINE_EPOCHS) if fine else (module.STEPS, module.EPOCHS)
    schedule = plan(images, batch, processes, *limits)
    if task == 'classify':
        lists = {name: str(path) for name, path in files.items()}
        text = module.classifier(found, pictures, lists, chosen, schedule, size, workers)
    else:
        own = {name: str(path) for name, path in files.items()} or found.files
        scale = None if size is None else module.scale_to(size, pictures.sizes)
        text = module.detector(found, pictures, own, chosen, schedule, scale, workers, masks)
    for name, path in files.items():
        write_atomically(path, _listed(found, name, task).encode())
    write_atomically(out, text.encode())
    return [out, *files.values()]


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


def _listed(found, split, task):
    """What a file of a split holds."""
    if task != 'classify':
        return json.dumps(found.contents[split])
    return ''.join(f'{name} {label}\n' for name, label in found.files[split])
