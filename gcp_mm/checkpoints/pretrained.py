"""Strict loading of a pretrained trunk.

mmengine's own `Pretrained` initialiser only logs the keys that did not match, so that a wrong
prefix trains from random weights and says so in one line among thousands.
"""

import re
import zipfile
from pathlib import Path

from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn


def is_pretrained(init_cfg: dict) -> bool:
    """Whether an `init_cfg` loads a checkpoint: its type is mmengine's `Pretrained`."""
    kind = init_cfg.get('type')
    return kind is PretrainedInit or str(kind).split('.')[-1] == 'Pretrained'


def load_pretrained(
    module: nn.Module, checkpoint: str, prefix: str | None = None, map_location: str = 'cpu'
) -> None:
    """Load weights into `module` and prove that all of it was filled from one like it.

    Keys of the file that belong to other parts of a network (`fc.weight`, `head.fc.weight`) are
    left alone; a key that begins with the name of a child of `module` has to exist in it, so that
    a deeper network's file is refused too.

    Args:
        module: the module to fill, in place.
        checkpoint: local path, or any address :class:`mmengine.runner.CheckpointLoader` takes
            (``torchvision://resnet50``, ``https://...``).
        prefix: what the keys of the module's weights begin with in the file, such as
            ``'backbone.'``.
        map_location: device to read the file onto.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it cannot be read, or its keys or shapes are not the module's; the message
            names them.
    """
    prefix = prefix or ''
    if prefix and not prefix.endswith('.'):
        prefix += '.'
    weights = _read_state_dict(checkpoint, map_location)
    state = {key[len(prefix) :]: w for key, w in weights.items() if key.startswith(prefix)}
    children = {name.split('.')[0] for name in module.state_dict()}
    state = {key: w for key, w in state.items() if key.split('.')[0] in children}

    where = f'checkpoint {checkpoint!r} with prefix {prefix!r}'
    if not state:
        raise ValueError(
            f'{where} holds none of the weights of {type(module).__name__}, such as '
            f'{next(iter(module.state_dict()))!r}; {_suggest_prefix(weights, children)}'
        )
    own = module.state_dict()
    shapes = [
        f'{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}'
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    # Files older than PyTorch 0.4.1 have no such counter, and nothing depends on it.
    missing = [k for k in own if k not in state and not k.endswith('num_batches_tracked')]
    unexpected = [key for key in state if key not in own]
    if missing or unexpected or shapes:
        raise ValueError(
            f'{where} is not a {type(module).__name__} like this one: '
            f'missing keys: {_some(missing)}; unexpected keys: {_some(unexpected)}; '
            f'other shapes: {_some(sorted(shapes))}. Check the depth and the prefix.'
        )
    module.load_state_dict(state)
    print_log(
        f'{type(module).__name__}: loaded all {len(own)} tensors from {where}', logger='current'
    )


def check_checkpoint_file(checkpoint: str) -> None:
    """Check that a checkpoint is there and whole, without reading its weights.

    Args:
        checkpoint: local path, or an address with a scheme, which passes.

    Raises:
        TypeError: if `checkpoint` is not a string.
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty or, a zip archive as PyTorch writes them since 1.6, truncated.
    """
    if not isinstance(checkpoint, str):
        raise TypeError(f'checkpoint: expected a path or an address, got {checkpoint!r}')
    if re.match(r'[\w-]+:', checkpoint):
        return
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'checkpoint {checkpoint!r} does not exist; train the network it comes from first, '
            'or name another file'
        )
    with path.open('rb') as file:
        start = file.read(2)
    if not start or (start == b'PK' and not zipfile.is_zipfile(path)):
        raise _unreadable(checkpoint, f'it ends after {path.stat().st_size} bytes')


def _read_state_dict(checkpoint, map_location):
    check_checkpoint_file(checkpoint)
    try:
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location, logger=None)
    except OSError:
        raise  # no way to it, or none to a disk: says so itself
    except Exception as error:  # whatever unpickling arbitrary bytes comes to
        raise _unreadable(checkpoint, error) from error
    if not isinstance(content, dict):
        raise ValueError(
            f'checkpoint {checkpoint!r} holds a {type(content).__name__}, not a dict of weights'
        )
    return content.get('state_dict', content)


def _unreadable(checkpoint, reason):
    return ValueError(
        f'checkpoint {checkpoint!r} cannot be read ({reason}); it is truncated or no checkpoint: '
        'copy or train it again, or name another file'
    )


def _suggest_prefix(weights, children):
    """Name the prefixes under which the file does hold the children's weights."""
    child = '|'.join(map(re.escape, children))
    found = {m[1] for key in weights if (m := re.match(rf'(?:(.*?\.)??)(?:{child})\.', key))}
    found = sorted(repr(prefix) for prefix in found if prefix)
    if found:
        return f'it does under prefix {" or ".join(found)}'
    return f'its keys are {_some(list(weights))}'


def _some(names, limit=8):
    """The first few of `names`, and how many more."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return (', '.join(names[:limit]) or 'none') + more
