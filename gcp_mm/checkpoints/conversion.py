"""From a checkpoint of another project to one of this project, and back."""

import glob
import hashlib
import io
from pathlib import Path

import torch

from .._io import sha256, write_atomically
from ..ops.triangle import VECTOR_LAYOUT
from .intact import check_intact
from .key_map import from_ours, to_ours
from .pretrained import read_weights


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    backbone_only: bool = False,
    reverse: bool = False,
    trust: bool = False,
    force: bool = False,
) -> Path:
    """Write a checkpoint with the weights of another under this project's names.

    The file holds tensors and plain values alone, `state_dict` and `meta`. `meta` says what the
    network is (`architecture`, `reduction`, `num_classes`), how its covariance vectors are laid
    out (`vector_layout`), and the SHA-256 of the source (`source_sha256`).

    Args:
        source: file with names that :func:`.key_map.to_ours` recognises; with `reverse`, those of
            one of this project's ResNets.
        target: where to write, a name in ``.pth``. As OpenMMLab's releases are, the file is called
            ``<target>-<the first 8 digits of its SHA-256>.pth``.
        backbone_only: leave out neck and head, for a detector.
        reverse: write torchvision's names, and those the paper's authors gave the layer, in a
            plain dict, as torchvision's releases are.
        trust: read a source that holds Python objects, which executes what is in it.
        force: write although there is an earlier ``<target>-<digits>.pth``. It stays.

    Returns:
        Path of the file written.

    Raises:
        FileNotFoundError: if there is no such source.
        FileExistsError: if there is such a target already, and not `force`.
        ValueError: if the source is damaged, cannot be read, has other names, or its weights
            are not exactly those of the network; if `target` does not end in ``.pth``; if
            `backbone_only` and `reverse` are asked for together.
    """
    source, target = Path(source), Path(target)
    if target.suffix != '.pth':
        raise ValueError(f'target: expected a file name that ends in .pth, got {str(target)!r}')
    if backbone_only and reverse:
        raise ValueError('backbone_only, reverse: expected one of them, got both')
    names = f'{glob.escape(target.stem)}-{"[0-9a-f]" * 8}.pth'
    earlier = [file for file in target.parent.glob(names) if file.absolute() != source.absolute()]
    if earlier and not force:
        raise FileExistsError(
            f'target: {", ".join(map(str, sorted(earlier)))} exists; name another, or write one '
            'more beside it with force=True (--force)'
        )
    check_intact(source, trust)
    state, _ = read_weights(source, trust=trust)
    # Of their own memory: no parameters, and no views of larger tensors
    state = {key: value.detach().clone() for key, value in state.items()}
    try:
        content = from_ours(state) if reverse else _ours(state, source, backbone_only)
    except ValueError as error:
        raise ValueError(f'checkpoint {str(source)!r}: {error}') from error
    return _write(content, target)


def _ours(state, source, backbone_only):
    state, network = to_ours(state)
    meta = dict(
        architecture=network.architecture,
        reduction=network.reduction,
        num_classes=network.num_classes,
        vector_layout=VECTOR_LAYOUT,
        source_sha256=sha256(source),
    )
    if backbone_only:
        state = {key: value for key, value in state.items() if key.startswith('backbone.')}
    return dict(meta=meta, state_dict=state)


def _write(content, target):
    """Write atomically, under a name with the file's hash."""
    file = io.BytesIO()
    torch.save(content, file)
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    path = target.with_name(f'{target.stem}-{digest[:8]}.pth')
    write_atomically(path, file.getvalue())
    return path
