"""Checkpoints that a run starts from: they are there, and fill what they are for."""

from mmengine.config import Config
from mmengine.model import BaseModule
from torch import nn

from ..checkpoints import check_checkpoint_file, is_pretrained, load_pretrained
from ..models.pretrained import StrictlyPretrained
from .finding import Finding
from .tree import walk


def check_checkpoints(cfg: Config, split: str) -> list[Finding]:
    """Check that the checkpoints a config names are there and whole.

    Args:
        cfg: the final config.
        split: 'train' or 'test', which has no use for those of the trunk.

    Raises:
        FileNotFoundError: for an absent one.
        ValueError: for one that is cut short, or no checkpoint, or an `init_cfg` without its name.
    """
    names = [cfg.load_from] if cfg.get('load_from') else []
    pretrained = walk(cfg.model, 'model') if split == 'train' else ()
    for path, node in pretrained:
        if is_pretrained(node):
            if not node.get('checkpoint'):
                raise ValueError(f'{path}.checkpoint is empty: set it')
            names.append(node['checkpoint'])
    for name in names:
        check_checkpoint_file(name)
    if not names:
        return [Finding('skipped', 'the config names none')]
    return [Finding('ok', f'there: {", ".join(dict.fromkeys(map(str, names)))}')]


def pretrained_modules(model: nn.Module) -> list[tuple[str, BaseModule, dict]]:
    """Name, module and `init_cfg` of each part of a network that starts from a checkpoint."""
    found = []
    for name, module in model.named_modules():
        init_cfgs = getattr(module, 'init_cfg', None) or ()
        for init_cfg in [init_cfgs] if isinstance(init_cfgs, dict) else init_cfgs:
            if is_pretrained(init_cfg):
                found.append((name or 'the network', module, dict(init_cfg)))
    return found


def load_checkpoints(
    model: nn.Module,
    pretrained: list[tuple[str, BaseModule, dict]],
    load_from: str | None = None,
    trust: bool = False,
) -> list[Finding]:
    """Load what :func:`pretrained_modules` found, and `load_from`, as strictly as there is.

    Where the run loads less strictly, as mmengine does by itself, a mismatch is a warning.

    Args:
        model: the network, filled in place.
        pretrained: of it.
        load_from: the config's, None where it is resumed or has none.
        trust: read files that hold Python objects, which executes what is in them.

    Raises:
        ValueError: for a file that does not fit a module that has to be filled.
    """
    found = []
    parts = [
        (name, module, {key: value for key, value in init_cfg.items() if key != 'type'})
        for name, module, init_cfg in pretrained
    ]
    if load_from:
        parts.append(('the network', model, dict(checkpoint=load_from)))
    for name, module, options in parts:
        checkpoint = str(options['checkpoint'])
        if '://' in checkpoint:
            found.append(Finding('skipped', f'{name}: {checkpoint} is not downloaded for this'))
            continue
        try:
            load_pretrained(module, **{'trust': trust, **options})
        except ValueError as error:
            if isinstance(module, StrictlyPretrained):
                raise ValueError(f'{name}: {error}') from error
            found.append(Finding('warning', f'{name}: {error}. mmengine leaves out what differs'))
        else:
            tensors = len(module.state_dict())
            found.append(Finding('ok', f'{name}: all {tensors} tensors come from {checkpoint}'))
    return found or [Finding('skipped', 'the network starts from random weights')]
