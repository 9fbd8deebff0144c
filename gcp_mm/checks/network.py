"""The network of a config, its checkpoints, and room for those that it saves."""

import copy
import math
import shutil
from pathlib import Path

from mmengine.model import BaseDataPreprocessor, revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from ..checkpoints import (
    check_checkpoint_file,
    checkpoint_location,
    is_pretrained,
    load_pretrained,
)
from ..checkpoints.pretrained import count_matches, read_weights
from ..models.pretrained import StrictlyPretrained, pretrained_entries
from .context import Context, Finding, name_of, walk
from .schedule import checkpoint_hook

GIB = 2**30


def check_head(context: Context) -> list[Finding]:
    """Check that what follows the GCP neck or backbone fits what that gives."""
    backbone = context.cfg.model.get('backbone') or {}
    stages = backbone.get('out_indices', (3,))
    if context.scope == 'mmdet' and name_of(backbone) == 'GCPResNet' and 3 in stages:
        if backbone.get('conv5', 'none') != 'none':
            return [Finding('head', 'ok', 'the last map of the backbone has stride 32')]
        text = (
            "model.backbone.conv5='none': the last two maps of the backbone have stride 16, and "
            "MMDetection's detectors expect 16 and 32: set conv5='maxpool' (GCP_M) or 'stride' "
            '(GCP_D)'
        )
        return [Finding('head', 'warning', text)]
    neck, head = context.cfg.model.get('neck'), context.cfg.model.get('head')
    if isinstance(neck, list | tuple):
        neck = neck[-1] if neck else None
    if not neck or name_of(neck) != 'GlobalCovariancePooling':
        return [Finding('head', 'skipped', 'the model has no GCP neck')]
    try:
        right = MODELS.build(neck).out_channels
    except Exception as error:
        return [Finding('head', 'error', f'model.neck cannot be built: {error}')]
    if head and head.get('in_channels', right) != right:
        text = (
            f'model.head.in_channels={head["in_channels"]}, but the neck GlobalCovariancePooling '
            f'gives vectors of length {right}: set model.head.in_channels={right}'
        )
        return [Finding('head', 'error', text)]
    return [Finding('head', 'ok', f'the neck gives vectors of length {right}, as the head takes')]


def check_checkpoints(context: Context) -> list[Finding]:
    """Check that the checkpoints a config names are there and intact; for a test, `load_from`."""
    cfg = context.cfg
    names = {'': cfg.load_from} if cfg.get('load_from') else {}
    texts = []
    for path, node in walk(cfg.model, 'model') if context.split == 'train' else ():
        if is_pretrained(node) and node.get('checkpoint'):
            names[f'{path}.checkpoint: '] = node['checkpoint']
        elif is_pretrained(node):
            texts.append(f'{path}.checkpoint is empty: set it')
    for place, name in names.items():
        try:
            check_checkpoint_file(name)
        except (FileNotFoundError, TypeError, ValueError) as error:
            texts.append(f'{place}{error}')
    if texts:
        return [Finding('checkpoints', 'error', text) for text in texts]
    if not names:
        return [Finding('checkpoints', 'skipped', 'the config names none')]
    there = dict.fromkeys(map(str, names.values()))
    return [Finding('checkpoints', 'ok', f'there: {", ".join(there)}')]


def check_network(context: Context) -> list[Finding]:
    """Build the network and initialize it, checkpoints apart, into `context`."""
    config = copy.deepcopy(context.cfg.model)
    if context.cfg.get('data_preprocessor') is not None:
        config.setdefault('data_preprocessor', context.cfg.data_preprocessor)
    try:
        model = revert_sync_batchnorm(MODELS.build(config))  # SyncBN needs GPUs
        context.pretrained = pretrained_modules(model)
        for _, module, _ in context.pretrained:
            module.init_cfg = None
        model.init_weights()
    except Exception as error:
        if context.has_failed('head', 'model.neck'):
            return [Finding('network', 'skipped', 'it cannot be built, as its neck cannot')]
        return [Finding('network', 'error', f'{type(error).__name__}: {error}')]
    context.model = model
    wrong = [Finding('network', 'error', text) for text in wrong_class_tokens(model)]
    return wrong or [Finding('network', 'ok', describe_network(model))]


def wrong_class_tokens(model: nn.Module) -> list[str]:
    """Necks and heads that skip another number of leading tokens than the backbone gives."""
    backbone = getattr(model, 'backbone', None)
    if getattr(backbone, 'out_type', None) != 'raw':
        return []  # a map has none, and says so where they are asked for
    number = backbone.num_extra_tokens
    return [
        f'model.{name}.class_tokens={module.class_tokens}, but the backbone gives {number} leading '
        f'tokens that are not positions: set class_tokens={number}'
        for name, module in model.named_modules()
        if getattr(module, 'class_tokens', None) not in (None, number)
    ]


def describe_network(model: nn.Module) -> str:
    """Class of a network, those of its parts, and the number of its parameters."""
    number = _numel(model.parameters())
    trained = _numel(each for each in model.parameters() if each.requires_grad)
    parts = [each for each in model.children() if not isinstance(each, BaseDataPreprocessor)]
    text = f'{type(model).__name__} ({", ".join(type(each).__name__ for each in parts)}), '
    text += f'{number / 1e6:.2f} M parameters'
    return text if trained == number else f'{text}, {trained / 1e6:.2f} M of them trained'


def pretrained_modules(model: nn.Module) -> list[tuple[str, nn.Module, dict]]:
    """Name, module and `init_cfg` of each part of a network that starts from a checkpoint."""
    return [
        (name or 'the network', module, init_cfg)
        for name, module in model.named_modules()
        for init_cfg in pretrained_entries(getattr(module, 'init_cfg', None))
    ]


def check_weights(context: Context) -> list[Finding]:
    """Load the local checkpoints of a config into its network, as strictly as they can be.

    Where the run loads less strictly, as mmengine does by itself, a mismatch is a warning; but if
    nothing matches it is an error.
    """
    if context.model is None:
        return [Finding('weights', 'skipped', 'there is no network to fill')]
    parts = [*context.pretrained]
    if context.cfg.get('load_from'):
        parts.append(('the network', context.model, dict(checkpoint=context.cfg.load_from)))
    return [_load(context, *part) for part in parts] or [
        Finding('weights', 'skipped', 'the network starts from random weights')
    ]


def _load(context, name, module, init_cfg):
    checkpoint = str(init_cfg['checkpoint'])
    if '://' in checkpoint:
        text = f'{name}: {checkpoint} is not downloaded for this'
        return Finding('weights', 'skipped', text)
    options = {key: value for key, value in init_cfg.items() if key != 'type'}
    try:
        load_pretrained(module, **{'trust': context.trust, **options})
    except Exception as error:
        found = 0
        if isinstance(error, ValueError) and not isinstance(module, StrictlyPretrained):
            found = _count(module, options, context.trust)
        text = f'{name}: {type(error).__name__}: {error}'
        if not found:
            return Finding('weights', 'error', text)
        return Finding('weights', 'warning', f'{text}. mmengine loads {found} tensors, those alike')
    text = f'{name}: all {len(module.state_dict())} tensors come from {checkpoint}'
    return Finding('weights', 'ok', text)


def _count(module, options, trust):
    """Number of tensors that mmengine would load, 0 from a file that cannot be read."""
    try:
        weights, _ = read_weights(options['checkpoint'], trust=trust)
    except ValueError:
        return 0
    return count_matches(module, weights, options.get('prefix') or '')


def check_disk(context: Context) -> list[Finding]:
    """Compare the checkpoints of a training with the free space of the disk they go to.

    It is an error if two do not fit: one, and the next before it replaces that.
    """
    cfg, model = context.cfg, context.model
    folder, template = checkpoint_location(cfg)
    hook = checkpoint_hook(cfg)
    if hook is None or '://' in folder:
        return [Finding('disk', 'skipped', 'no checkpoint goes to a local disk')]
    if model is None:
        return [Finding('disk', 'skipped', 'the network is not built')]
    number = _number_of_checkpoints(hook, cfg)
    if number is None:
        text = 'how many checkpoints there will be is not known'
        return [Finding('disk', 'skipped', text)]
    # An optimizer keeps a number for each weight, SGD its momentum; Adam would be a second one.
    size = (1 + hook.save_optimizer) * sum(each.nbytes for each in model.state_dict().values())
    there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    names = (template.format('*'), 'best_*.pth')
    written = sum(path.stat().st_size for name in names for path in Path(folder).glob(name))
    free = shutil.disk_usage(there).free
    text = (
        f'{number} checkpoints of about {size / GIB:.2f} GiB at once, and {free / GIB:.2f} GiB are '
        f'free on the disk of {there}'
    )
    if free + written >= number * size:
        return [Finding('disk', 'ok', text)]
    text += ': make room, set work_dir to a folder of another disk, or '
    text += 'default_hooks.checkpoint.max_keep_ckpts=1'
    enough = free + written >= min(number, 2) * size
    return [Finding('disk', 'warning' if enough else 'error', text)]


def _number_of_checkpoints(hook, cfg):
    """The most checkpoints at once, as a new one is written before an old one is removed."""
    length = cfg.train_cfg.get('max_epochs' if hook.by_epoch else 'max_iters')
    kept = [hook.max_keep_ckpts + 1] if hook.max_keep_ckpts > 0 else []
    written = [math.ceil(length / hook.interval)] if length and hook.interval > 0 else []
    return min(kept + written, default=None)


def _numel(tensors):
    return sum(tensor.numel() for tensor in tensors)
