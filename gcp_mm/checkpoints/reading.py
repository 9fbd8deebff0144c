"""Reading of checkpoint files without running anything that is in them.

A checkpoint is a pickle, and a pickle is a program. PyTorch's `weights_only` reads tensors and
plain Python values alone; mmengine falls back to running the program where that fails.
"""

import codecs
import contextlib
import hashlib
import io
import pickle
import re
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlparse

import mmengine.fileio
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import get_torchvision_models
from torch._weights_only_unpickler import _get_allowed_globals

from .._io import sha256
from ..compat.records import DTYPES, RECORDS


def read_checkpoint(checkpoint: str, map_location: str = 'cpu', trust: bool = False) -> object:
    """Read a checkpoint, by default without executing anything that is in it.

    Args:
        checkpoint: local path, or an address: ``https://...``, ``torchvision://resnet50``, or one
            that a file backend of mmengine serves. A download whose name ends in a hash, as in
            ``resnet50-0676ba61.pth``, is checked against it.
        map_location: device to read the tensors onto.
        trust: read a file with arbitrary Python objects too, which executes what it says.

    Returns:
        What was saved: tensors, containers, numbers and strings.

    Raises:
        TypeError: if `checkpoint` is not a string or a path.
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, truncated, a web page or no checkpoint, if a download does not
            have the hash in its name, or if it holds Python objects and `trust` is not set.
    """
    file = _open(checkpoint)
    try:
        with _own_statistics():
            return _read_safely(file, map_location)
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL (\S+)', str(error))
        if not found:
            raise _unreadable(checkpoint, 'PyTorch refuses what is in it') from error
        if not trust:
            raise ValueError(
                f'checkpoint {str(checkpoint)!r} holds more than tensors and plain values '
                f'({found[1]}): reading it would execute what the file says. If you trust where it '
                'comes from, say so with trust=True (--trust), which does that'
            ) from error
    except OSError:
        raise  # no way to it, or none to a disk: says so itself
    except Exception as error:  # whatever unpickling arbitrary bytes comes to
        raise _unreadable(checkpoint, error) from error
    if isinstance(file, io.IOBase):
        file.seek(0)
    return torch.load(file, map_location=map_location, weights_only=False)


def check_checkpoint_file(checkpoint: str) -> None:
    """Check that a checkpoint is there and complete, without reading its weights.

    Args:
        checkpoint: local path, or an address with a scheme, which passes.

    Raises:
        TypeError: if `checkpoint` is not a string or a path.
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder, empty, a web page, a program of TorchScript or, a zip archive
            as PyTorch writes them since 1.6, truncated.
    """
    if not isinstance(checkpoint, str | Path):
        raise TypeError(f'checkpoint: expected a path or an address, got {checkpoint!r}')
    if _scheme(checkpoint):
        return
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        raise ValueError(f'checkpoint {str(checkpoint)!r} is a folder; name a file in it')
    if not path.is_file():
        raise FileNotFoundError(
            f'checkpoint {str(checkpoint)!r} does not exist; train the network it comes from '
            'first, or name another file'
        )
    with path.open('rb') as file:
        start = file.read(64)
    if start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b'<':
        raise ValueError(
            f'checkpoint {str(checkpoint)!r} cannot be read (it is a web page): no checkpoint. '
            'Sites that share large files send one in their place, to ask for a confirmation or '
            'to say that a quota is used up: download it with a browser'
        )
    if not start or (start[:2] == b'PK' and not zipfile.is_zipfile(path)):
        raise _unreadable(checkpoint, f'it ends after {path.stat().st_size} bytes')
    if start[:2] == b'PK' and _is_program(path):
        raise ValueError(
            f'checkpoint {str(checkpoint)!r} is a program of TorchScript, not a file of weights; '
            'save the state_dict() of the network it was made from'
        )


def _scheme(checkpoint):
    """The scheme of an address, '' for a local path."""
    match = re.match(r'([\w-]+)://', str(checkpoint))
    return match[1] if match else ''


def _open(checkpoint):
    """A path of `checkpoint`, or its bytes, once it is known to be there."""
    check_checkpoint_file(checkpoint)
    scheme, address = _scheme(checkpoint), str(checkpoint)
    if not scheme:
        return Path(checkpoint).expanduser()
    if scheme in ('torchvision', 'modelzoo'):
        models = get_torchvision_models()
        name = address.partition('://')[2]
        if name not in models:
            raise ValueError(f'checkpoint {address!r}: torchvision has no weights {name!r}')
        address, scheme = models[name], 'https'
    if scheme in ('http', 'https'):
        return _download(address)
    return io.BytesIO(mmengine.fileio.get(address))


def _download(url):
    """Path of a file from the web, kept where PyTorch keeps them; checks the hash in its name."""
    name = Path(urlparse(url).path).name or 'checkpoint'
    hashed = re.search(r'-([0-9a-f]{8,64})\.', name)
    if not hashed:  # other addresses end alike
        name = f'{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}'
    path = Path(torch.hub.get_dir()) / 'checkpoints' / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path))
        except OSError as error:
            raise OSError(f'checkpoint {url!r} cannot be downloaded: {error}') from error
    found = sha256(path)  # of a file that was there already, too
    if hashed and not found.startswith(hashed[1]):
        path.unlink()
        raise ValueError(
            f'checkpoint {url!r}: its name promises the SHA-256 {hashed[1]}..., the download has '
            f'{found[:16]}...; it was removed. Try again, or ask who offers it'
        )
    try:
        check_checkpoint_file(path)
    except ValueError:
        path.unlink()  # for the next attempt to download it again
        raise
    return path


def _is_program(path):
    """Whether a zip archive is of TorchScript: PyTorch would build its objects by its own code."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split('/')[-1] == 'constants.pkl' for name in archive.namelist())
    except Exception as error:  # whatever a damaged table of contents comes to
        raise _unreadable(path, error) from error


def _read_safely(file, map_location):
    """torch.load with `weights_only` for what a Runner saves.

    Raises:
        pickle.UnpicklingError: for other objects, with 'GLOBAL <name>' in its message.
    """
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        # RECORDS are allowed since `import gcp_mm`, see gcp_mm.compat.records.allow_records.
        return torch.load(file, map_location=map_location, weights_only=True)
    # Before PyTorch 2.6 `weights_only` knows no exceptions, and does not hold for every format.
    module = types.ModuleType('restricted_pickle')
    module.Unpickler = _Unpickler
    module.load = lambda file, **options: _Unpickler(file, **options).load()
    return torch.load(file, map_location=map_location, pickle_module=module, weights_only=False)


class _Unpickler(pickle._Unpickler):
    """The rules of PyTorch's `weights_only`, and RECORDS; in Python, for these to be changed."""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def find_class(self, module, name):
        full = f'{module}.{name}'.replace('__builtin__', 'builtins')  # Python 2's name of it
        allowed = _get_allowed_globals() | RECORDS
        if full not in allowed:
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {full}')
        return allowed[full]

    def load_reduce(self):
        function = self.stack[-2]
        if not any(function is known for known in (_get_allowed_globals() | RECORDS).values()):
            raise pickle.UnpicklingError(f'call of GLOBAL {function!r}')
        super().load_reduce()
        if isinstance(self.stack[-1], np.dtype) and type(self.stack[-1]) not in DTYPES:
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype {self.stack[-1]}')

    def load_build(self):
        state = self.stack.pop()
        built = self.stack[-1]
        if type(built) is OrderedDict:
            built.__dict__.update(state)
        elif type(built) in (torch.Tensor, HistoryBuffer, np.ndarray, *DTYPES):
            built.__setstate__(state)
        else:
            raise pickle.UnpicklingError(f'state of GLOBAL {type(built).__name__}')

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build


@contextlib.contextmanager
def _own_statistics():
    """Keep the statistics of all HistoryBuffers, to which one that is read adds its own."""
    HistoryBuffer()  # the first one registers mmengine's, and may not have been made yet
    before = HistoryBuffer._statistics_methods.copy()
    try:
        yield
    finally:
        HistoryBuffer._statistics_methods.clear()
        HistoryBuffer._statistics_methods.update(before)


def _unreadable(checkpoint, reason):
    first_line = (str(reason).strip() or type(reason).__name__).partition('\n')[0]
    return ValueError(
        f'checkpoint {str(checkpoint)!r} cannot be read ({first_line}); it is truncated or no '
        'checkpoint: copy or train it again, or name another file'
    )
