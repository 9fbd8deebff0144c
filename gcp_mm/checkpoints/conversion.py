"""From a checkpoint of another project to one of this project, and back."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._io import sha256, write_atomically
from ..ops.triangle import VECTOR_LAYOUT
from .key_map import from_ours, to_ours
from .mmdetection1 import is_mmdetection1, upgrade_detector
from .pretrained import read_weights
from .reading import check_intact


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    backbone_only: bool = False,
    reverse: bool = False,
    trust: bool = False,
    force: bool = False,
    publish: bool = False,
) -> Path:
    """Convert a checkpoint of another project to this project's keys, or back.

    The converted file holds only tensors and plain values, as `state_dict` and `meta`. The keys of
    `meta`:

    - classifiers: `architecture`, `reduction`, `num_classes`, `vector_layout` (layout of the
      covariance vectors), `source` (the project whose keys the source has) and `source_sha256`;
    - detectors: `architecture`, `num_classes`, `source`, `source_sha256`, and `dataset_meta` if the
      source has the names of the classes.

    Args:
        source: file with keys that :func:`.key_map.to_ours` recognizes, or a Faster or Mask R-CNN
            of MMDetection before 2.0; with `reverse`, one of this project's ResNets.
        target: file to write; its name ends in ``.pth``.
        backbone_only: leave out neck and head, to start a detector from the file.
        reverse: write a plain dict with torchvision's keys, and the authors' keys for the layer.
        trust: read a source that holds Python objects, which executes code from the file.
        force: overwrite an existing target.
        publish: add the first 8 digits of the file's SHA-256 to its name, as in OpenMMLab's
            releases: ``<target>-<digits>.pth``. Files of other content have other names.

    Returns:
        Path of the written file.

    Raises:
        FileNotFoundError: if the source does not exist.
        FileExistsError: if the target exists and neither `force` nor `publish` is set.
        ValueError: if the source is damaged, cannot be read or has unknown keys; if the weights of
            a classifier are not exactly those of its network; if `target` does not end in ``.pth``
            or is the source; if both `backbone_only` and `reverse` are set.
    """
    source, target = Path(source), Path(target)
    if target.suffix != '.pth':
        raise ValueError(f'target: expected a file name that ends in .pth, got {str(target)!r}')
    if backbone_only and reverse:
        raise ValueError('backbone_only, reverse: expected one of them, got both')
    if not publish and target.resolve() == source.resolve():
        raise ValueError(f'target: {str(target)!r} is the source; name another file')
    if target.exists() and not (force or publish):
        raise FileExistsError(
            f'target: {target} exists; name another, or write all the same with force=True '
            '(--force)'
        )
    check_intact(source, trust)
    state, meta = read_weights(source, trust=trust)
    # Of their own memory: no parameters, and no views of larger tensors
    state = {key: value.detach().clone() for key, value in state.items()}
    try:
        content: dict[str, Any]
        if reverse:
            content = dict(from_ours(state))
        else:
            state, found = _detector(state, meta) if is_mmdetection1(state) else _classifier(state)
            if backbone_only:
                state = {key: value for key, value in state.items() if key.startswith('backbone.')}
            content = dict(meta=found | dict(source_sha256=sha256(source)), state_dict=state)
    except ValueError as error:
        raise ValueError(f'checkpoint {str(source)!r}: {error}') from error
    return _write(content, target, publish)


def _classifier(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state, network, origin = to_ours(state)
    return state, dict(
        architecture=network.architecture,
        reduction=network.reduction,
        num_classes=network.num_classes,
        vector_layout=VECTOR_LAYOUT,
        source=origin,
    )


def _detector(
    state: dict[str, Tensor], meta: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state, num_classes = upgrade_detector(state)
    architecture = 'Mask R-CNN' if any('.mask_head.' in key for key in state) else 'Faster R-CNN'
    found = dict(
        architecture=architecture, num_classes=num_classes, source='MMDetection before 2.0'
    )
    classes = meta.get('CLASSES')
    if isinstance(classes, tuple | list) and len(classes) == num_classes:
        found['dataset_meta'] = dict(classes=tuple(classes))
    return state, found


def _write(content: dict[str, Any], target: Path, publish: bool) -> Path:
    """Write atomically; with `publish` under a name with the file's hash."""
    file = io.BytesIO()
    torch.save(content, file)
    if publish:
        digest = hashlib.sha256(file.getvalue()).hexdigest()
        target = target.with_name(f'{target.stem}-{digest[:8]}.pth')
    write_atomically(target, file.getvalue())
    return target
