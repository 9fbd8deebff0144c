"""Keys of a config that nothing reads, and types that no registry has."""

import copy
import difflib
import inspect
import os.path as osp
import re
from collections.abc import Iterator
from importlib import import_module

from mmengine import registry as mmengine_registry
from mmengine.hooks import CheckpointHook
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    DefaultScope,
    Registry,
)
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .context import Context, Finding, name_of, walk

# Metrics are left out: some have the name of their dataset.
ROOTS = [root for root in vars(mmengine_registry).values() if isinstance(root, Registry)]
ROOTS.remove(METRICS)
DATASET = r'\w+_dataloader\.dataset(\.dataset|\.datasets\[\d+\])*'
SCHEDULER = r'param_scheduler(\.\w+)?(\[\d+\])?'
# Registries that a `type` is looked up in, by its path in the config
REGISTRIES = {
    r'model(\.(backbone|neck|head|rpn_head|roi_head|bbox_head|mask_head)(\[\d+\])?)*': [MODELS],
    r'(model\.)?data_preprocessor': [MODELS],
    r'(default_hooks\.\w+|custom_hooks\[\d+\])': [HOOKS],
    r'(train|val|test)_cfg': [LOOPS],
    r'(val|test)_evaluator(\.metrics)?(\[\d+\])?': [METRICS, EVALUATOR],
    SCHEDULER: [PARAM_SCHEDULERS],
    r'optim_wrapper': [OPTIM_WRAPPERS],
    r'optim_wrapper(\.\w+)?\.optimizer': [OPTIMIZERS],
    r'\w+_dataloader\.(batch_)?sampler': [DATA_SAMPLERS],
    DATASET: [DATASETS],
    rf'{DATASET}\.pipeline\[\d+\]': [TRANSFORMS],
}
# What mmengine's Runner builds of a config; other entries at its top are variables of its author.
ALWAYS = ('model', 'data_preprocessor', 'default_hooks', 'custom_hooks', 'visualizer')
PARTS = dict(
    train=(
        *(*ALWAYS, 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'),
        *('val_dataloader', 'val_cfg', 'val_evaluator'),
    ),
    test=(*ALWAYS, 'test_dataloader', 'test_cfg', 'test_evaluator'),
)
# Keys that are read before the constructor is called, or from the config of another class
READ_BEFORE = {
    *('type', '_scope_', '_delete_', 'priority', 'convert_to_iter_based', 'constructor'),
    *('paramwise_cfg', 'by_epoch'),
}
# Keys that a class of the frameworks reads from the config of another before that is built
FRAMEWORKS_READ = {'bg_cls_weight', 'pretrained'}
# What the Runner adds to a config when it builds
SUPPLIED = {'dataloader', 'evaluator', 'optimizer', 'params', 'runner'}
# Beneath these keys mmcv reads some on its own, and gives the number of channels.
LAYERS = {'norm_cfg', 'conv_cfg', 'act_cfg', 'upsample_cfg', 'init_cfg', 'override', 'policies'}
FRAMEWORKS = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet')
# Built with just these keys, so that another one is a TypeError whoever wrote the class
BUILT_AS_IT_IS = re.compile(
    rf'model|(train|val|test)_cfg|optim_wrapper(\.\w+)?\.optimizer|{SCHEDULER}'
)


def check_keys(context: Context) -> list[Finding]:
    """Compare the keys in a config with the arguments of the classes that they are for.

    An unknown or missing one of a class of this package is an error. Of a class of the frameworks
    an unknown one is a warning, if its constructor names all that it takes: another package may
    build it in its own way. It is an error of the model, an optimizer or a loop, which mmengine
    builds; so is a `type` that no registry has, where mmengine, MMPretrain or MMDetection build it.
    """
    found = [*_misspelt_parts(context.cfg), *_strings_of_classes(context), *_untyped(context)]
    number = 0
    unknown = []  # paths of keys that no class takes: what is beneath them is not of interest
    for path, node, scope in _modules(context):
        if any(_is_in(path, parent) for parent in unknown):
            continue
        number += 1
        findings = _check_module(path, node, scope)
        paths = [finding.text.split(':')[0] for finding in findings]
        unknown += [each for each in paths if each != path]
        found += findings
    return found or [
        Finding('keys', 'ok', f'the keys of {number} modules are arguments of their classes')
    ]


def find_classes(kind, registries: list[Registry] = ROOTS, scope: str | None = None) -> list:
    """Classes and functions that a config's `type` can mean, one of each registry that has it.

    Args:
        kind: the `type`. Without a scope it is looked for in `scope`, then in mmengine's, as a
            Registry does when it builds.
        registries: mmengine's root registries to look in.
        scope: of a `_scope_` in the config; None for the current default scope.
    """
    if not isinstance(kind, str):
        return [kind]
    own_scope, name = Registry.split_scope_key(kind)
    scope = own_scope or scope
    if scope is None and DefaultScope.get_current_instance() is not None:
        scope = DefaultScope.get_current_instance().scope_name
    if scope in ('mmpretrain', 'mmdet'):
        import_module(f'{scope}.registry')
    found = []
    for root in registries:
        child = root.children.get(scope)
        if child is not None:
            child.import_from_location()
        for registry in (child, root):
            if registry is not None and name in registry.module_dict:
                module = registry.module_dict[name]
                load = getattr(module, 'load_lazily', None)
                found.append(load() if load else module)
                break
    return found


def package_of(found) -> str:
    """Name of the package of a class or function."""
    return found.__module__.split('.')[0]


def own_parameters(found) -> tuple[dict[str, inspect.Parameter], bool]:
    """Parameters that a class's constructor, or a function, names; and whether they are all."""
    signature = inspect.signature(found.__init__ if inspect.isclass(found) else found)
    named = {name: each for name, each in signature.parameters.items() if name != 'self'}
    kinds = {parameter.kind for parameter in named.values()}
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {name: parameter for name, parameter in named.items() if parameter.kind not in rest}
    return named, inspect.Parameter.VAR_KEYWORD not in kinds


def parameters_of(found) -> dict[str, inspect.Parameter]:
    """Parameters of a class's constructor, those that its ``**kwargs`` hand on included.

    Args:
        found: where a constructor takes ``**kwargs``, those of the next class in its method
            resolution order are taken to be meant.
    """
    parameters = {}
    for base in found.__mro__ if inspect.isclass(found) else [found]:
        if inspect.isclass(base) and '__init__' not in vars(base):
            continue
        if package_of(base) in ('builtins', 'torch'):  # these take none
            break
        named, closed = own_parameters(base)
        parameters = named | parameters
        if closed:
            break
    return parameters


def _modules(context) -> Iterator[tuple[str, dict, str | None]]:
    """Path, config and scope of everything with a `type`, given or by default."""
    for part in PARTS[context.split]:
        scopes = [(part, context.scope)]
        for path, node in walk(context.cfg.get(part), part):
            if node.get('_scope_'):
                scopes.append((path, node['_scope_']))
            scope = next(scope for parent, scope in reversed(scopes) if _is_in(path, parent))
            if path == 'train_cfg' and node:
                kind = 'EpochBasedTrainLoop' if node.get('by_epoch', True) else 'IterBasedTrainLoop'
                node = {'type': f'mmengine.{kind}', **node}
            elif path in ('val_cfg', 'test_cfg'):
                node = {'type': f'mmengine.{path[:-4].title()}Loop', **node}
            if node.get('type'):
                yield path, node, scope


def _is_in(path, parent):
    return path == parent or path.startswith((f'{parent}.', f'{parent}['))


def _misspelt_parts(cfg) -> Iterator[Finding]:
    parts = set(inspect.signature(Runner).parameters)
    for key in [key for key in cfg if key not in parts]:
        absent = difflib.get_close_matches(key, sorted(parts - set(cfg)), n=1, cutoff=0.8)
        # Variables of an author may resemble a part that is there, such as gallery_dataloader.
        near = absent or difflib.get_close_matches(key, sorted(parts), n=1, cutoff=0.88)
        if near:
            text = f'{key}: nothing reads it: did you mean {near[0]}?'
            text += f' The config has no {near[0]}' if absent else ''
            yield Finding('keys', 'warning', text)


def _untyped(context) -> Iterator[Finding]:
    """Hooks without a class, and keys of dataloaders, which have none."""
    hooks = context.cfg.get('default_hooks') or {}
    for name, hook in hooks.items():
        if isinstance(hook, dict) and 'type' not in hook:
            near = difflib.get_close_matches(name, [each for each in hooks if each != name], n=1)
            meant = f'did you mean default_hooks.{near[0]}? Else ' if near else ''
            yield Finding('keys', 'error', f'default_hooks.{name}: {meant}set its type')
    parameters = own_parameters(DataLoader)[0] | {'num_batch_per_epoch': None}
    for part in PARTS[context.split]:
        loader = context.cfg.get(part)
        if part.endswith('_dataloader') and isinstance(loader, dict) and 'dataset' in loader:
            for text in _unknown_keys(part, {**loader, 'type': 'DataLoader'}, parameters):
                yield Finding('keys', 'error', text)


def _strings_of_classes(context) -> Iterator[Finding]:
    """Names of classes that are one string, of which each letter would be a class."""
    for part in PARTS[context.split]:
        for path, node in walk(context.cfg.get(part), part):
            names = (node.get('metainfo') or {}).get('classes')
            if isinstance(names, str) and '://' not in names and not osp.isfile(names):
                text = (
                    f'{path}.metainfo.classes={names!r} is a string, and no file of names: write '
                )
                yield Finding('keys', 'error', f'{text}{[names]!r}; a tuple of one takes a comma')


def _check_module(path, node, scope) -> list[Finding]:
    """What is wrong with the type and the keys of a module."""
    registries = next((r for each, r in REGISTRIES.items() if re.fullmatch(each, path)), None)
    classes = find_classes(node['type'], registries or ROOTS, scope)
    if not classes:
        text = _unknown_type(path, node['type'], registries, scope)
        return [Finding('keys', 'error', text)] if text else []
    own = [found for found in classes if package_of(found) == 'gcp_mm']
    check = _check_own if own else _check_framework
    # Of several classes of one name, that of another registry may be meant.
    return min((check(path, node, found) for found in own or classes), key=len)


def _unknown_type(path, kind, registries, scope) -> str:
    """Say that no registry has a `type`; '' where it may be for no registry, or of others."""
    own_scope, name = Registry.split_scope_key(kind)
    if registries is None or (own_scope or scope) not in ('mmpretrain', 'mmdet'):
        return ''
    child = registries[0].children[own_scope or scope]
    names = sorted({*registries[0].module_dict, *child.module_dict})
    near = difflib.get_close_matches(name, names, n=1)
    meant = f'did you mean {near[0]!r}? Else ' if near else ''
    return (
        f'{path}.type: nothing registers {kind!r}; {meant}install the packages that it needs, or '
        'add its module to custom_imports'
    )


def _check_own(path, node, found):
    texts = _unknown_keys(path, node, parameters_of(found))
    if not _is_layer(path):
        texts += _missing_keys(path, node, own_parameters(found)[0])
    return [Finding('keys', 'error', text) for text in texts]


def _check_framework(path, node, found):
    as_it_is = BUILT_AS_IT_IS.fullmatch(path)
    package = package_of(found)
    if not (package in FRAMEWORKS or (as_it_is and package == 'torch')) or _is_layer(path):
        return []
    parameters, closed = own_parameters(found)
    if re.fullmatch(SCHEDULER, path):  # of which the first base hands on all that it takes
        parameters, closed = parameters_of(found), True
    # CheckpointHook hands on what else it takes to where there is no argument of that name.
    node = {key: value for key, value in node.items() if key not in FRAMEWORKS_READ}
    if not closed and found is not CheckpointHook:
        return _refused(path, node, found)
    status = 'error' if as_it_is else 'warning'
    return [Finding('keys', status, text) for text in _unknown_keys(path, node, parameters)]


def _refused(path, node, found):
    """The key behind `**kwargs` that a part of the model refuses, if there is one: it is built."""
    texts = _unknown_keys(path, node, parameters_of(found)) if path.startswith('model.') else []
    options = {key: value for key, value in node.items() if key not in ('type', '_scope_')}
    try:
        if texts:
            found(**copy.deepcopy(options))
    except Exception as error:  # of other things, the run says it
        match = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        name = f'{path}.{match[1]}:' if match else ' '
        return [Finding('keys', 'error', text) for text in texts if text.startswith(name)]
    return []


def _is_layer(path):
    return not LAYERS.isdisjoint(path.replace('[', '.').split('.'))


def _unknown_keys(path, node, parameters) -> list[str]:
    texts = []
    names = sorted(parameters.keys() - SUPPLIED)
    for key in node.keys() - parameters.keys() - READ_BEFORE:
        near = difflib.get_close_matches(key, names, n=1)
        known = f'did you mean {near[0]!r}?' if near else f'it takes {", ".join(names)}'
        texts.append(f'{path}.{key}: {name_of(node)} has no such argument; {known}')
    return sorted(texts)


def _missing_keys(path, node, parameters) -> list[str]:
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in node and name not in SUPPLIED
    ]
    if not missing:
        return []
    return [f'{path}: {name_of(node)} needs {", ".join(missing)}: set {path}.{missing[0]}']
