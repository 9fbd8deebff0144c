"""Keys of a config that no class of this project, and no part of the Runner, has."""

import difflib
import inspect
from collections.abc import Iterator
from importlib import import_module

from mmengine import registry as mmengine_registry
from mmengine.registry import OPTIMIZERS, DefaultScope, Registry
from mmengine.runner import Runner

from .context import Context, Finding, name_of, walk

ROOTS = [root for root in vars(mmengine_registry).values() if isinstance(root, Registry)]
# What mmengine's Runner builds of a config; other entries at its top are variables of its author.
ALWAYS = ('model', 'data_preprocessor', 'default_hooks', 'custom_hooks', 'visualizer')
PARTS = dict(
    train=(
        *(*ALWAYS, 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'),
        *('val_dataloader', 'val_cfg', 'val_evaluator'),
    ),
    test=(*ALWAYS, 'test_dataloader', 'test_cfg', 'test_evaluator'),
)
# Keys that are read before the constructor is called
READ_BEFORE = {'type', '_scope_', '_delete_', 'priority', 'constructor', 'paramwise_cfg'}
# What the Runner adds to a config when it builds
SUPPLIED = {'dataloader', 'evaluator', 'optimizer', 'runner'}
# Beneath these keys mmcv reads some on its own, and gives the number of channels.
LAYERS = {'norm_cfg', 'conv_cfg', 'act_cfg', 'upsample_cfg', 'init_cfg', 'override', 'policies'}


def check_keys(context: Context) -> list[Finding]:
    """Compare the keys in a config with the arguments of the classes that they are for.

    An unknown or missing one of a class of this project is an error. Classes of the frameworks
    refuse theirs themselves, when a run builds them before its first step.
    """
    found = [*_misspelt_parts(context.cfg), *_unknown_optimizers(context.cfg)]
    number = 0
    unknown = []  # paths of keys that no class takes: what is beneath them is not of interest
    for path, node in _modules(context):
        classes = find_classes(node['type'])
        own = next((each for each in classes if package_of(each) == 'gcp_mm'), None)
        if own is None or _is_layer(path) or any(_is_in(path, parent) for parent in unknown):
            continue
        number += 1
        texts = _unknown_keys(path, node, parameters_of(own))
        unknown += [text.split(':')[0] for text in texts]
        texts += _missing_keys(path, node, own_parameters(own)[0])
        found += [Finding('keys', 'error', text) for text in texts]
    return found or [
        Finding('keys', 'ok', f'the keys of {number} modules of gcp_mm are their arguments')
    ]


def find_classes(kind, registries: list[Registry] = ROOTS) -> list:
    """Classes and functions that a config's `type` can mean, one of each registry that has it.

    Args:
        kind: the `type`. Without a scope it is looked for in the current default scope, then in
            mmengine's, as a Registry does when it builds.
        registries: mmengine's root registries to look in.
    """
    if not isinstance(kind, str):
        return [kind]
    scope, name = Registry.split_scope_key(kind)
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


def _modules(context) -> Iterator[tuple[str, dict]]:
    """Path and config of everything with a `type`."""
    for part in PARTS[context.split]:
        for path, node in walk(context.cfg.get(part), part):
            if node.get('type'):
                yield path, node


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


def _unknown_optimizers(cfg) -> Iterator[Finding]:
    """Optimizers that nothing registers: mmengine would say 'None is not a callable object'."""
    for path, node in walk(cfg.get('optim_wrapper'), 'optim_wrapper'):
        kind = node.get('type')
        if path.endswith('.optimizer') and kind and not find_classes(kind, [OPTIMIZERS]):
            text = f'{path}.type: nothing registers {kind!r}: correct it, or add its module to '
            yield Finding('keys', 'error', f'{text}custom_imports')


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
