"""Reading of checkpoint files without running anything that is in them, and checks of them.

A checkpoint is a pickle, and a pickle is a program, which mmengine runs where PyTorch's
`weights_only` refuses it. Here :mod:`.unpickling` reads tensors and plain Python values alone.
"""

import codecs
import errno
import hashlib
import io
import os
import pickle
import re
import tarfile
import types
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine.fileio
import torch
from mmengine.fileio.backends import prefix_to_backends
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models

from .._io import near_paths, sha256
from .unpickling import Unpickler

# Tables of addresses by name, by the scheme that stands for them
NAMED = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'openmmlab': get_external_models,
    'open-mmlab': get_external_models,
}


def read_checkpoint(checkpoint: str | Path, map_location: str = 'cpu', trust: bool = False) -> Any:
    """Read a checkpoint, by default without executing code from the file.

    Args:
        checkpoint: local path, or an address: ``https://...``, ``torchvision://resnet50``,
            ``openmmlab://detectron/resnet50_caffe``, or an address of one of mmengine's file
            backends. If the name of a download ends in a hash, as in ``resnet50-0676ba61.pth``,
            the content is checked against it.
        map_location: device of the tensors.
        trust: accept arbitrary Python objects, which executes code from the file.

    Returns:
        The content of the file: tensors, containers, numbers and strings.

    Raises:
        TypeError: if `checkpoint` is not a string or a path.
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, truncated, a web page or no checkpoint, if a download does not
            have the hash in its name, or if it holds Python objects and `trust` is not set.
    """
    file = _open(checkpoint)
    records = _check_content(file, checkpoint)
    try:
        return _read_safely(file, map_location, records)
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL (.+?)(?= was not|$)', str(error))
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


def check_checkpoint_file(checkpoint: str | Path) -> None:
    """Check that a checkpoint exists and is complete, without reading its weights.

    Args:
        checkpoint: local path or address. Of an address only the scheme is checked.

    Raises:
        TypeError: if `checkpoint` is not a string or a path.
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder, empty, a web page, a TorchScript program, or a truncated or
            compressed zip archive (PyTorch's format since 1.6); if the scheme is unknown.
    """
    if not isinstance(checkpoint, str | Path):
        raise TypeError(f'checkpoint: expected a path or an address, got {checkpoint!r}')
    if _scheme(checkpoint):
        return
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        raise ValueError(f'checkpoint {str(checkpoint)!r} is a folder; name a file in it')
    if not path.is_file():
        near = ' or '.join(map(repr, near_paths(path)))
        raise FileNotFoundError(
            f'checkpoint {str(checkpoint)!r} does not exist; '
            f'{f"did you mean {near}? Else " if near else ""}train the network it comes from '
            'first, or name another file'
        )
    _check_content(path, checkpoint)


def check_intact(checkpoint: str | Path, trust: bool = False) -> None:
    """Verify every byte of a checkpoint against its checksums.

    The file is a zip archive with a CRC-32 of each record. PyTorch does not compare these when it
    loads a file. The check finds truncated files, blocks of zeros and flipped bits. It does not
    interpret the content or compare it with a network. A file in the format before PyTorch 1.6 has
    no checksums; it is loaded instead.

    Args:
        checkpoint: local path.
        trust: as in :func:`gcp_mm.checkpoints.read_checkpoint`, for the old format.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, truncated, damaged or no checkpoint.
    """
    check_checkpoint_file(checkpoint)
    path = Path(checkpoint).expanduser()
    if not zipfile.is_zipfile(path):
        read_checkpoint(checkpoint, trust=trust)
    elif damage := _damaged_record(path):
        raise ValueError(
            f'checkpoint {str(checkpoint)!r} is damaged ({damage}): copy or train it again, or '
            'name another file'
        )


def _damaged_record(path: Path) -> str | None:
    """What is wrong in a zip archive, or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except Exception as error:  # whatever reading arbitrary bytes comes to
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # of the disk; EINVAL: the archive names an offset before the file
        return str(error) or type(error).__name__
    return record and f'its record {record!r}'


def _check_content(file: Path | io.BytesIO, checkpoint: str | Path) -> dict[str, int] | None:
    """Check how a file begins and, of a zip archive, its table of contents.

    Args:
        file: path, or bytes.
        checkpoint: what to call it.

    Returns:
        What a zip archive, as PyTorch writes them since 1.6, has of each storage, in bytes by key;
        None for another file.
    """
    if isinstance(file, io.BytesIO):
        start = bytes(file.getbuffer()[:64])
    else:
        with file.open('rb') as opened:
            start = opened.read(64)
    if start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b'<':
        raise ValueError(
            f'checkpoint {str(checkpoint)!r} cannot be read (it is a web page): no checkpoint. '
            'Sites that share large files send one in their place, to ask for a confirmation or '
            'to say that a quota is used up: download it with a browser'
        )
    if not start or (start[:2] == b'PK' and not zipfile.is_zipfile(file)):
        raise _unreadable(checkpoint, f'it ends after {_size(file)} bytes')
    if start[:2] != b'PK':
        if tarfile.is_tarfile(file):  # PyTorch would unpack it
            raise _unreadable(checkpoint, 'it is a tar archive, as of PyTorch before 0.2')
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            records = {info.filename.lower(): info.file_size for info in archive.infolist()}
            doubled = len(archive.infolist()) - len(records)
    except Exception as error:  # whatever a damaged table of contents comes to
        raise _unreadable(checkpoint, error) from error
    if any(name.split('/')[-1] == 'constants.pkl' for name in records):
        # PyTorch would build its objects by its own code.
        raise ValueError(
            f'checkpoint {str(checkpoint)!r} is a program of TorchScript, not a file of weights; '
            'save the state_dict() of the network it was made from'
        )
    if doubled or sum(records.values()) > _size(file):
        raise ValueError(
            f'checkpoint {str(checkpoint)!r} cannot be read: its {sum(records.values()):,} bytes '
            f'of records are compressed into {_size(file):,}, or have one name, which PyTorch '
            'never writes; unpack it, and save it again by torch.save'
        )
    return {name.partition('/data/')[2]: size for name, size in records.items()}


def _scheme(checkpoint: str | Path) -> str:
    """The scheme of an address, '' for a local path.

    Raises:
        ValueError: for one that nothing here reads, such as 'pavi' and 'mmcls', of mmengine.
    """
    match = re.match(r'(?:[\w-]+:)?([\w-]+)://', str(checkpoint))
    scheme = match[1] if match else ''
    known = {*prefix_to_backends, *NAMED}
    if scheme not in known:
        raise ValueError(
            f'checkpoint {str(checkpoint)!r}: the scheme {scheme!r} is none of '
            f'{", ".join(sorted(known - {""}))}; download the file, and name its path'
        )
    return scheme


def _open(checkpoint: str | Path) -> Path | io.BytesIO:
    """A path of `checkpoint`, or its bytes, once it is known to be there."""
    check_checkpoint_file(checkpoint)
    scheme, address = _scheme(checkpoint), str(checkpoint)
    if not scheme:
        return Path(checkpoint).expanduser()
    if scheme in NAMED:
        models, name = NAMED[scheme](), address.partition('://')[2]
        if name not in models:
            raise ValueError(f'checkpoint {address!r}: {scheme} has no weights {name!r}')
        address = models[name]
        if not address.startswith(('https://', 'http://')):
            raise ValueError(f'checkpoint {name!r}: {scheme} names {address!r}, no address')
        scheme = 'https'
    if scheme in ('http', 'https'):
        return _download(address)
    return io.BytesIO(mmengine.fileio.get(address))


def _download(url: str) -> Path:
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


def _read_safely(file: Path | io.BytesIO, map_location: str, records: dict[str, int] | None) -> Any:
    """Read tensors, plain values and what a Runner saves, by :class:`Unpickler`.

    Args:
        file: path or bytes.
        map_location: as of `torch.load`.
        records: bytes by key of the records of tensors in a zip archive, None of another file.

    Raises:
        pickle.UnpicklingError: for other objects, with 'GLOBAL <name>' in its message.
    """
    if os.environ.get('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0').lower() in ('1', 'y', 'yes', 'true'):
        return torch.load(file, map_location=map_location, weights_only=True)  # as the user wants
    if isinstance(file, io.BytesIO):
        file.seek(0)
    module = types.ModuleType('restricted_pickle')
    limited = type('Limited', (Unpickler,), dict(size=_size(file), records=records))
    vars(module).update(
        Unpickler=limited, load=lambda file, **options: limited(file, **options).load()
    )
    return torch.load(file, map_location=map_location, pickle_module=module, weights_only=False)


def _size(file: Path | io.BytesIO) -> int:
    return len(file.getbuffer()) if isinstance(file, io.BytesIO) else file.stat().st_size


def _unreadable(checkpoint: str | Path, reason: str | Exception) -> ValueError:
    first_line = (str(reason).strip() or type(reason).__name__).partition('\n')[0]
    return ValueError(
        f'checkpoint {str(checkpoint)!r} cannot be read ({first_line}); it is truncated or no '
        'checkpoint: copy or train it again, or name another file'
    )
