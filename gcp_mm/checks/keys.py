"""Keys of a config that nothing reads, and types that no registry has."""

import difflib
import inspect
import re
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from .finding import Finding
from .registered import (
    find_classes,
    is_own,
    own_parameters,
    package_of,
    parameters_of,
    unknown_type,
)
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
# The loops that a Runner takes where a config names none
LOOP_TYPES = dict(val_cfg='mmengine.ValLoop', test_cfg='mmengine.TestLoop')
# Built with just these keys, so that another one is a TypeError whoever wrote the class
BUILT_AS_IT_IS = re.compile(r'model|(train|val|test)_cfg|optim_wrapper(\.\w+)?\.optimizer')


def check_keys(cfg: Config, split: str) -> list[Finding]:
    """Compare the keys in a config with the arguments of the classes that they are for.

    An unknown or missing one of a class of this package is an error. Of a class of the frameworks
    an unknown one is a warning, if its constructor names all that it takes: another package may
    build it in its own way. It is an error of the model, an optimizer or a loop, which mmengine
    builds; so is a `type` that no registry has, where mmengine, MMPretrain or MMDetection build it.

    Args:
        cfg: the final config.
        split: 'train', which also validates, or 'test'.

    Returns:
        All that are found, each with the place in the config, the key and the nearest name.
    """
    found, number = [*_misspelt_parts(cfg)], 0
    unknown = []  # places that no class takes: what is beneath them is not of interest
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        for path, node, scope in _modules(cfg, split):
            if any(_is_in(path, place) for place in unknown):
                continue
            number += 1
            findings = _check_module(path, node, scope)
            places = [finding.text.split(':')[0] for finding in findings]
            unknown += [place for place in places if place != path]
            found += findings
    return found or [Finding('ok', f'the keys of {number} modules are arguments of theirs')]


def _modules(cfg, split) -> Iterator[tuple[str, dict, str | None]]:
    """Place, config and scope of everything with a `type`, given or by default."""
    for part in PARTS[split]:
        scopes = [(part, cfg.get('default_scope'))]
        for path, node in walk(cfg.get(part), part):
            if node.get('_scope_'):
                scopes.append((path, node['_scope_']))
            scope = next(scope for place, scope in reversed(scopes) if _is_in(path, place))
            if path == 'train_cfg' and node and not node.get('type'):
                kind = 'EpochBasedTrainLoop' if node.get('by_epoch', True) else 'IterBasedTrainLoop'
                node = {'type': f'mmengine.{kind}', **node}
            if path in LOOP_TYPES:
                node = {'type': LOOP_TYPES[path], **node}
            if node.get('type'):
                yield path, node, scope


def _is_in(path, place):
    return path == place or path.startswith((f'{place}.', f'{place}['))


def _misspelt_parts(cfg) -> Iterator[Finding]:
    parts = set(inspect.signature(Runner).parameters)
    for key in cfg:
        near = difflib.get_close_matches(key, sorted(parts - set(cfg)), n=1, cutoff=0.8)
        if near and key not in parts:
            text = f'{key}: nothing reads it, and the config has no {near[0]}: did you mean that?'
            yield Finding('warning', text)


def _check_module(path, node, scope) -> list[Finding]:
    """What is wrong with the type and the keys of a module."""
    metric = 'evaluator' in path
    classes = find_classes(node['type'], metric, scope)
    if not classes and not (metric and find_classes(node['type'], scope=scope)):  # an Evaluator
        text = unknown_type(path, node['type'], scope)
        return [Finding('error', text)] if text else []
    own = [found for found in classes if is_own(found)]
    check = _check_own if own else _check_framework
    # Of several classes of one name, that of another registry may be meant.
    return min((check(path, node, found) for found in own or classes), key=len, default=[])


def _check_own(path, node, found):
    texts = _unknown(path, node, parameters_of(found))
    if not _is_layer(path):
        texts += _missing(path, node, own_parameters(found)[0])
    return [Finding('error', text) for text in texts]


def _check_framework(path, node, found):
    as_it_is = BUILT_AS_IT_IS.fullmatch(path)
    package = package_of(found)
    if not (package in FRAMEWORKS or (as_it_is and package == 'torch')) or _is_layer(path):
        return []
    parameters, closed = own_parameters(found)
    # What else CheckpointHook takes it hands on to where there is no argument of that name.
    if not closed and found is not CheckpointHook:
        return []
    texts = _unknown(path, {key: node[key] for key in node if key not in READ_BEFORE}, parameters)
    return [Finding('error' if as_it_is else 'warning', text) for text in texts]


def _is_layer(path):
    return any(layer in path.replace('[', '.').split('.') for layer in LAYERS)


def _unknown(path, node, parameters) -> list[str]:
    texts = []
    names = sorted(parameters.keys() - SUPPLIED)
    for key in node:
        if key in parameters or key in BUILDERS:
            continue
        near = difflib.get_close_matches(key, names, n=1)
        known = f'did you mean {near[0]!r}?' if near else f'it takes {", ".join(names)}'
        texts.append(f'{path}.{key}: {name_of(node)} has no such argument; {known}')
    return texts


def _missing(path, node, parameters) -> list[str]:
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in node and name not in SUPPLIED
    ]
    if not missing:
        return []
    return [f'{path}: {name_of(node)} needs {", ".join(missing)}: set {path}.{missing[0]}']
