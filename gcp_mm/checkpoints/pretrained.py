"""Strict loading of a pretrained backbone.

mmengine's own `Pretrained` initializer only logs the keys that did not match, so that a wrong
prefix trains from random weights and says so in one line among thousands.
"""

import re
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit
from torch import Tensor, nn

from ..ops.triangle import VECTOR_LAYOUT
from .key_map import differences, some
from .mmdetection1 import is_mmdetection1
from .reading import read_checkpoint


def is_pretrained(init_cfg: dict) -> bool:
    """Whether the type of an `init_cfg` is mmengine's `Pretrained`, which loads a checkpoint."""
    kind = init_cfg.get('type')
    return kind is PretrainedInit or str(kind).split('.')[-1] == 'Pretrained'


def load_pretrained(
    module: nn.Module,
    checkpoint: str | Path,
    prefix: str | None = None,
    map_location: str = 'cpu',
    trust: bool = False,
) -> dict:
    """Load weights into `module`, and raise an error unless they fill it exactly.

    Keys of other parts of a network (`fc.weight`, `head.fc.weight`) are ignored. A key that begins
    with the name of a child of `module` must exist in `module`, so the file of a deeper network is
    refused, too. Weights that only training uses may be absent: those whose names begin with an
    entry of `optional_weights`, a tuple, which `module` or a module in it may have.

    Args:
        module: the module to fill, in place.
        checkpoint: local path or address, see :func:`.reading.read_checkpoint`.
        prefix: prefix of the module's keys in the file, such as ``'backbone.'``.
        map_location: device of the tensors that are read.
        trust: read a file that holds Python objects, which executes code from the file.

    Returns:
        The `meta` of the checkpoint; {} if it has none.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it cannot be read, or its keys or shapes differ from the module's. The
            message names them, and the setting of the config that explains the difference.
    """
    prefix = prefix or ''
    if prefix and not prefix.endswith('.'):
        prefix += '.'
    weights, meta = read_weights(checkpoint, map_location, trust)
    found = {key[len(prefix) :]: w for key, w in weights.items() if key.startswith(prefix)}
    own = module.state_dict()
    children = {name.split('.')[0] for name in own}
    state = {key: w for key, w in found.items() if key.split('.')[0] in children}

    where = f'checkpoint {str(checkpoint)!r} with prefix {prefix!r}'
    if not state:
        raise ValueError(
            f'{where} holds none of the weights of {type(module).__name__}, such as '
            f'{next(iter(own))!r}; {_suggest_prefix(weights, children)}'
        )
    optional = tuple(
        f'{name}.{each}'.lstrip('.')
        for name, part in module.named_modules()
        for each in getattr(part, 'optional_weights', ())
    )
    state = {key: w for key, w in own.items() if key.startswith(optional)} | state
    if difference := differences(own, state):
        raise ValueError(
            f'{where} is of another network than this {type(module).__name__}. '
            f'{_explain(own, found)} In detail: {difference}'
        )
    module.load_state_dict(state)
    print_log(
        f'{type(module).__name__}: loaded all {len(own)} tensors from {where}', logger='current'
    )
    return meta


def read_weights(
    checkpoint: str | Path, map_location: str = 'cpu', trust: bool = False
) -> tuple[dict, dict]:
    """The weights in a checkpoint by name, and its `meta`, {} where there is none.

    Args:
        checkpoint: see :func:`.reading.read_checkpoint`, as for the other arguments.

    Raises:
        ValueError: if it holds something else, or its vectors are laid out otherwise than this
            version's; besides what :func:`.reading.read_checkpoint` raises.
    """
    content = read_checkpoint(checkpoint, map_location, trust)
    state = content.get('state_dict', content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise ValueError(
            f'checkpoint {str(checkpoint)!r} holds a {type(state).__name__}, not a dict of weights'
        )
    if not all(isinstance(key, str) for key in state):
        raise ValueError(f'checkpoint {str(checkpoint)!r} names its weights by other than strings')
    strange = [key for key, value in state.items() if not _is_plain(value)]
    if strange:
        raise ValueError(
            f'checkpoint {str(checkpoint)!r} holds other things than tensors with values among '
            f'its weights: {some(strange)}'
        )
    meta = content.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    layout = meta.get('vector_layout', VECTOR_LAYOUT)
    if layout != VECTOR_LAYOUT:
        raise ValueError(
            f'checkpoint {str(checkpoint)!r} is for covariance vectors of layout {layout!r}, and '
            f'this version of gcp_mm makes {VECTOR_LAYOUT!r}: use the version it was made with'
        )
    return state, meta


def count_matches(module: nn.Module, weights: dict, prefix: str = '') -> int:
    """Number of tensors of `module` that `weights` has under the same name in the same shape.

    Args:
        module: the module.
        weights: tensors by name.
        prefix: what the names in `weights` begin with besides, as in :func:`load_pretrained`.
    """
    prefix = prefix and prefix.removesuffix('.') + '.'
    pairs = ((weights.get(prefix + name), own) for name, own in module.state_dict().items())
    return sum(isinstance(found, Tensor) and found.shape == own.shape for found, own in pairs)


def _is_plain(value: object) -> bool:
    """Whether a value is a tensor with a number for each of its elements."""
    if not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and not value.is_meta and not value.is_quantized


def _explain(own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """How the network of a config and that of a file differ, in the words of a config."""
    kinds = ('roi_head.', 'rpn_head.', 'bbox_head.'), ('head.',)
    for kind, other in (kinds, kinds[::-1]):
        if any(key.startswith(kind) for key in own) and any(key.startswith(other) for key in state):
            names = ('detector', 'classifier') if kind == kinds[0] else ('classifier', 'detector')
            return f'The config is of a {names[0]}, the file of a {names[1]}.'
    if is_mmdetection1(state):
        return (
            'The file is a detector of MMDetection before 2.0: convert it with '
            'tools/convert_checkpoint.py.'
        )
    (pools, widths), (file_pools, file_widths) = map(neck_reduction, (own, state))
    if pools != file_pools:
        words = {True: 'global covariance pooling', False: 'none (global average pooling)'}
        return (
            f'The config is of a network with {words[pools]}, the file of one with '
            f'{words[file_pools]}: take the config or the file of the other.'
        )
    texts = []
    if widths != file_widths:
        d = file_widths[-1]
        texts.append(
            f'The neck reduces to {widths} channels and in the file to {file_widths}: set '
            f'model.neck.reduction={file_widths} and model.head.in_channels={d * (d + 1) // 2}.'
        )
    for layer, more in (('head.fc', 0), ('roi_head.bbox_head.fc_cls', 1)):
        classes, file_classes = (
            len(weights[f'{layer}.weight']) - more if f'{layer}.weight' in weights else None
            for weights in (own, state)
        )
        if None not in (classes, file_classes) and classes != file_classes:
            texts.append(
                f'The file has {file_classes} classes and the config {classes}: set num_classes='
                f'{file_classes} or, to train on other classes, load the backbone alone with the '
                "init_cfg of the backbone, dict(type='Pretrained', prefix='backbone.')."
            )
    return ' '.join(texts) or 'Check the depth and the prefix.'


def neck_reduction(weights: dict[str, Tensor]) -> tuple[bool, tuple[int, ...]]:
    """Whether weights, by name, have a GCP neck with its own, and the channels it reduces to."""
    matches = [re.fullmatch(r'neck\.reduction\.(\d+)\.conv\.weight', key) for key in weights]
    keys = sorted((match for match in matches if match), key=lambda match: int(match[1]))
    widths = tuple(len(weights[match[0]]) for match in keys)
    return bool(widths), widths


def _suggest_prefix(weights: dict[str, Tensor], children: set[str]) -> str:
    """Name the prefixes under which the file does hold the children's weights."""
    child = '|'.join(map(re.escape, children))
    found = {m[1] for key in weights if (m := re.match(rf'(?:(.*?\.)??)(?:{child})\.', key))}
    if prefixes := sorted(repr(prefix) for prefix in found if prefix):
        return f'it does under prefix {" or ".join(prefixes)}'
    return (
        f'its keys are {some(weights)}. tools/convert_checkpoint.py makes '
        "files of torchvision and of the paper's authors fit"
    )
