"""The names other projects give the weights of the paper's networks, and ours.

Recognized are files of torchvision; of the paper's authors, who keep torchvision's names and add
the layer's; and of the trainer that iSQRT-COV's authors published, a Sequential with numbers for
names (Li et al., CVPR 2018, https://arxiv.org/abs/1712.01034).
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

# (block, number of blocks of each stage) of a ResNet by its depth
RESNETS: dict[tuple[str, tuple[int, ...]], int] = {
    ('basic', (2, 2, 2, 2)): 18,
    ('basic', (3, 4, 6, 3)): 34,
    ('bottleneck', (3, 4, 6, 3)): 50,
    ('bottleneck', (3, 4, 23, 3)): 101,
    ('bottleneck', (3, 8, 36, 3)): 152,
}

# The first pattern that matches all of a name gives the other name.
_TRAINER = (
    (r'features\.0\.(.+)', r'conv1.\1'),
    (r'features\.1\.(.+)', r'bn1.\1'),
    *((rf'features\.{i + 3}\.(.+)', rf'layer{i}.\1') for i in range(1, 5)),
    (r'representation\.conv_dr_block\.0\.(.+)', r'layer_reduce.\1'),
    (r'representation\.conv_dr_block\.1\.(.+)', r'layer_reduce_bn.\1'),
    (r'classifier\.(.+)', r'fc.\1'),
)
_RESNET = (
    (r'((?:conv1|bn1|layer[1-4])\..+)', r'backbone.\1'),
    (r'layer_reduce\.(.+)', r'neck.reduction.0.conv.\1'),
    (r'layer_reduce_bn\.(.+)', r'neck.reduction.0.bn.\1'),
    (r'fc\.(.+)', r'head.fc.\1'),
)
_RESNET_BACK = (
    (r'backbone\.(.+)', r'\1'),
    (r'neck\.reduction\.0\.conv\.(.+)', r'layer_reduce.\1'),
    (r'neck\.reduction\.0\.bn\.(.+)', r'layer_reduce_bn.\1'),
    (r'head\.fc\.(.+)', r'fc.\1'),
)
_REDUCTION = (
    (r'dimension_reduction\.0\.(.+)', r'neck.reduction.0.conv.\1'),
    (r'dimension_reduction\.1\.(.+)', r'neck.reduction.0.bn.\1'),
)


def _mobilenet_rules() -> Iterator[tuple[str, str]]:
    yield r'features\.0\.0\.(.+)', r'backbone.conv1.conv.\1'
    yield r'features\.0\.1\.(.+)', r'backbone.conv1.bn.\1'
    number = 1
    for stage, blocks in enumerate((1, 2, 3, 4, 3, 3, 1), start=1):
        for block in range(blocks):
            ours = rf'backbone.layer{stage}.{block}.conv'
            last = 1 if number == 1 else 2  # the first block has no expansion
            for i in range(last):
                yield rf'features\.{number}\.conv\.{i}\.0\.(.+)', rf'{ours}.{i}.conv.\1'
                yield rf'features\.{number}\.conv\.{i}\.1\.(.+)', rf'{ours}.{i}.bn.\1'
            yield rf'features\.{number}\.conv\.{last}\.(.+)', rf'{ours}.{last}.conv.\1'
            yield rf'features\.{number}\.conv\.{last + 1}\.(.+)', rf'{ours}.{last}.bn.\1'
            number += 1
    yield rf'features\.{number}\.0\.(.+)', r'backbone.conv2.conv.\1'
    yield rf'features\.{number}\.1\.(.+)', r'backbone.conv2.bn.\1'
    yield from _REDUCTION
    yield r'classifier\.1\.(.+)', r'head.fc.\1'


def _shufflenet_rules() -> Iterator[tuple[str, str]]:
    yield r'conv1\.0\.(.+)', r'backbone.conv1.conv.\1'
    yield r'conv1\.1\.(.+)', r'backbone.conv1.bn.\1'
    # Position in the branch's Sequential of each convolution, its BN right behind it
    for branch, positions in ((1, (0, 2)), (2, (0, 3, 5))):
        for i, position in enumerate(positions):
            for stage in (2, 3, 4):
                ours = rf'backbone.layers.{stage - 2}.\1.branch{branch}.{i}'
                theirs = rf'stage{stage}\.(\d+)\.branch{branch}'
                yield rf'{theirs}\.{position}\.(.+)', rf'{ours}.conv.\2'
                yield rf'{theirs}\.{position + 1}\.(.+)', rf'{ours}.bn.\2'
    yield r'conv5\.0\.(.+)', r'backbone.layers.3.conv.\1'
    yield r'conv5\.1\.(.+)', r'backbone.layers.3.bn.\1'
    yield from _REDUCTION
    yield r'fc\.(.+)', r'head.fc.\1'


@dataclass(frozen=True)
class Network:
    """A classifier of the paper, as far as its weights tell.

    Attributes:
        architecture: 'resnet18' ... 'resnet152', 'mobilenet_v2' or 'shufflenet_v2'.
        reduction: channels the GCP neck reduces to, () for pooling of the features as they are;
            None for global average pooling.
        num_classes: outputs of the linear head.
    """

    architecture: str
    reduction: tuple[int, ...] | None
    num_classes: int

    def config(self) -> dict:
        """The `model` of a config of MMPretrain with exactly these weights."""
        backbone: dict[str, object]
        if self.architecture == 'mobilenet_v2':
            backbone, channels = dict(type='MobileNetV2'), 1280
        elif self.architecture == 'shufflenet_v2':
            backbone, channels = dict(type='GCPShuffleNetV2'), 1024
        else:
            depth = int(self.architecture.removeprefix('resnet'))
            backbone = dict(type='GCPResNet', depth=depth)
            channels = 512 if depth < 50 else 2048
        neck: dict[str, object]
        neck, width = dict(type='GlobalAveragePooling'), channels
        if self.reduction is not None:
            neck = dict(
                type='GlobalCovariancePooling', in_channels=channels, reduction=self.reduction
            )
            d = (channels, *self.reduction)[-1]
            width = d * (d + 1) // 2
        head = dict(type='LinearClsHead', num_classes=self.num_classes, in_channels=width)
        return dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)


def to_ours(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Network, str]:
    """Give the weights of another project's network the names of this one's.

    Args:
        state: weights by name, of a file in this module's docstring, with or without the
            'module.' of a parallel wrapper.

    Returns:
        The weights by our names, all of the network's; the network; and whose names they had.

    Raises:
        ValueError: for other names, another depth or width, weights that are left over, or a vector
            whose length is not that of D channels.
    """
    if all(key.startswith('module.') for key in state):
        state = {key.removeprefix('module.'): value for key, value in state.items()}
    trainer = 'features.4.0.conv1.weight' in state
    if trainer:
        state = rename(state, _TRAINER)
    rules: Iterable[tuple[str, str]]
    if 'layer1.0.conv1.weight' in state:
        architecture, rules = _resnet(state), _RESNET
    elif 'features.18.0.weight' in state:
        architecture, rules = 'mobilenet_v2', _mobilenet_rules()
    elif 'stage2.0.branch1.0.weight' in state:
        architecture, rules = 'shufflenet_v2', _shufflenet_rules()
    elif any(key.startswith('backbone.') for key in state):
        raise ValueError(
            f"the names are this project's already ({some(state)}); --reverse gives a ResNet "
            "torchvision's"
        )
    else:
        raise ValueError(
            "the names are not those of torchvision's or the authors' ResNet, MobileNetV2 or "
            f'ShuffleNetV2: {some(state)}'
        )
    ours = rename(state, tuple(rules))
    network = _network(architecture, ours)
    origin = "iSQRT-COV's trainer" if trainer else 'torchvision'
    if not trainer and network.reduction is not None:
        origin = "the paper's authors, and iSQRT-COV's release"
    return check_complete(ours, network), network, origin


def from_ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights of one of this project's ResNets torchvision's names.

    Those of its GCP layer get the ones the paper's authors gave them.

    Args:
        state: weights by name, of a complete classifier.

    Raises:
        ValueError: if these are other names, or those of a network that the authors have not.
    """
    if 'backbone.layer1.0.conv1.weight' not in state:
        raise ValueError(
            "the names are not those of this project's ResNets, the only networks with a way "
            f'back: {some(state)}'
        )
    architecture = _resnet([key.removeprefix('backbone.') for key in state])
    check_complete(state, _network(architecture, state))
    return rename(state, _RESNET_BACK)


def rename(state: dict[str, Tensor], rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Rename every weight by the first rule whose pattern matches all of its name.

    Raises:
        ValueError: if no rule matches a name, or two weights come to the same one.
    """
    renamed, left = {}, []
    for key, value in state.items():
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, key):
                new = match.expand(replacement)
                if new in renamed:
                    raise ValueError(f'two weights come to the name {new!r}, one is {key!r}')
                renamed[new] = value
                break
        else:
            left.append(key)
    if left:
        raise ValueError(f'{len(left)} keys of the file match none of the network: {some(left)}')
    return renamed


def check_complete(state: dict[str, Tensor], network: Network) -> dict[str, Tensor]:
    """Check that weights are all those of a network, and nothing else.

    Args:
        state: weights by our names.
        network: what they are to fill.

    Returns:
        The weights, with the counters of batches that files older than PyTorch 0.4.1 have not.

    Raises:
        ValueError: naming what is missing, left over, of another shape or no real numbers.
    """
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        own = MODELS.build(network.config()).state_dict()
    counters = {
        key: torch.zeros((), dtype=torch.long)
        for key in own.keys() - state.keys()
        if key.endswith('.num_batches_tracked')
    }
    types = [
        f'{key} {value.dtype}'
        for key, value in state.items()
        if key in own
        and (value.is_floating_point() != own[key].is_floating_point() or value.dtype == torch.bool)
    ]
    if difference := differences(own, state) or (types and f'other types: {some(types)}'):
        raise ValueError(
            f'these are not the weights of a {network.architecture} with reduction='
            f'{network.reduction}: {difference}'
        )
    return state | counters


def differences(own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """How the keys and shapes of `state` differ from those of the module's own, '' if they do not.

    Counters of batches may be missing: files older than PyTorch 0.4.1 have none.
    """
    found = {
        'missing keys': [
            key for key in own if key not in state and not key.endswith('num_batches_tracked')
        ],
        'unexpected keys': [key for key in state if key not in own],
        'other shapes': [
            f'{key} {tuple(state[key].shape)} for {tuple(value.shape)}'
            for key, value in own.items()
            if key in state and state[key].shape != value.shape
        ],
    }
    return '; '.join(f'{what}: {some(keys)}' for what, keys in found.items() if keys)


def _resnet(names: Collection[str]) -> str:
    """Architecture of a ResNet by torchvision's names of its weights."""
    blocks = [
        {match[1] for key in names if (match := re.match(rf'layer{i}\.(\d+)\.', key))}
        for i in range(1, 5)
    ]
    kind = 'bottleneck' if 'layer1.0.conv3.weight' in names else 'basic'
    depth = RESNETS.get((kind, tuple(map(len, blocks))))
    if depth is None:
        raise ValueError(
            f'no ResNet of the paper has {list(map(len, blocks))} {kind} blocks in its four stages'
        )
    return f'resnet{depth}'


def _network(architecture: str, state: dict[str, Tensor]) -> Network:
    """The network whose neck and head have these weights, by our names."""
    if 'head.fc.weight' not in state:
        raise ValueError(f'there is no classifier among the weights: {some(state)}')
    weight, reduce = state['head.fc.weight'], state.get('neck.reduction.0.conv.weight')
    if weight.ndim != 2 or (reduce is not None and reduce.ndim != 4):
        raise ValueError(
            f'expected matrices for the classifier and the reduction, got shapes '
            f'{tuple(weight.shape)} and {None if reduce is None else tuple(reduce.shape)}'
        )
    num_classes, length = weight.shape
    if reduce is not None:
        d = reduce.shape[0]
        if length != d * (d + 1) // 2:
            raise ValueError(
                f'the layer reduces to D = {d} channels, which makes vectors of length '
                f'{d * (d + 1) // 2}, and the classifier takes {length}'
            )
        return Network(architecture, (d,), num_classes)
    channels = Network(architecture, None, num_classes).config()['head']['in_channels']
    return Network(architecture, None if length == channels else (), num_classes)


def some(names: Collection[str], limit: int = 8) -> str:
    """The first few of `names`, and how many more."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(list(names)[:limit]) + more
