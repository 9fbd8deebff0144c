"""Keys of a config that nothing reads."""

import difflib

from mmengine.config import Config
from mmengine.registry import DefaultScope

from .finding import Finding
from .registered import find_classes, is_own, own_parameters, parameters_of
from .tree import name_of, walk

# What mmengine's Runner builds of a config; other entries at its top are variables of its author.
TRAINING = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler')
VALIDATION = ('val_dataloader', 'val_cfg', 'val_evaluator')
TEST = ('test_dataloader', 'test_cfg', 'test_evaluator')
ALWAYS = ('model', 'data_preprocessor', 'default_hooks', 'custom_hooks', 'visualizer')
PARTS = dict(train=(*ALWAYS, *TRAINING, *VALIDATION), test=(*ALWAYS, *TEST))
# Keys that are read before the constructor is called
BUILDERS = {
    *('type', '_scope_', '_delete_', 'priority', 'convert_to_iter_based', 'constructor'),
    *('paramwise_cfg', 'by_epoch'),
}
# What the Runner adds to a config when it builds
SUPPLIED = {'dataloader', 'evaluator', 'optimizer', 'params', 'runner'}
# Keys that a class of the frameworks reads from the config of another before that is built
READ_BEFORE = {'bg_cls_weight', 'pretrained'}
# Beneath these keys mmcv reads some on its own, and gives the number of channels.
LAYERS = ('norm_cfg', 'conv_cfg', 'act_cfg', 'upsample_cfg', 'init_cfg', 'override', 'policies')
FRAMEWORKS = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet')


def check_keys(cfg: Config, split: str) -> list[Finding]:
    """Compare the keys in a config with the arguments of the classes that they are for.

    An unknown or missing one of a class of this package is an error. Of a class of the frameworks
    an unknown one is a warning, if its constructor names all that it takes: another package may
    build it in its own way.

    Args:
        cfg: the final config.
        split: 'train', which also validates, or 'test'.

    Raises:
        ValueError: with the place in the config, the key and the nearest name.
    """
    found, number = [], 0
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        for part in PARTS[split]:
            for path, node in walk(cfg.get(part), part):
                if not node.get('type'):
                    continue
                number += 1
                text = unknown_key(path, node)
                if text:
                    found.append(Finding('warning', text))
    return found or [Finding('ok', f'the keys of {number} modules are arguments of theirs')]


def unknown_key(path: str, node: dict) -> str | None:
    """Say which key of a config its class does not take, or None.

    Args:
        path: the config's place, such as 'model.neck'.
        node: the config, with a `type`.

    Raises:
        ValueError: as for :func:`check_keys`.
    """
    classes = find_classes(node['type'], metric='evaluator' in path)
    own = [found for found in classes if is_own(found)]
    if own:
        (found,) = own
        text = _unknown(path, node, parameters_of(found))
        if text:
            raise ValueError(text)
        if not _is_layer(path):
            _check_missing(path, node, own_parameters(found)[0])
        return None
    texts = [_unknown_to_framework(path, node, found) for found in classes]
    return texts[0] if texts and all(texts) else None  # of several one may be meant


def _unknown_to_framework(path, node, found):
    if found.__module__.split('.')[0] not in FRAMEWORKS or _is_layer(path):
        return None
    parameters, closed = own_parameters(found)
    if not closed:
        return None
    return _unknown(path, {key: node[key] for key in node if key not in READ_BEFORE}, parameters)


def _is_layer(path):
    return any(layer in path.replace('[', '.').split('.') for layer in LAYERS)


def _unknown(path, node, parameters):
    for key in node:
        if key in parameters or key in BUILDERS:
            continue
        names = sorted(parameters.keys() - SUPPLIED)
        near = difflib.get_close_matches(key, names, n=1)
        known = f'did you mean {near[0]!r}?' if near else f'it takes {", ".join(names)}'
        return f'{path}.{key}: {name_of(node)} has no such argument; {known}'
    return None


def _check_missing(path, node, parameters):
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in node and name not in SUPPLIED
    ]
    if missing:
        raise ValueError(
            f'{path}: {name_of(node)} needs {", ".join(missing)}: set {path}.{missing[0]}'
        )
