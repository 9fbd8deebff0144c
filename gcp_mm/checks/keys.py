"""Keys of a config that nothing reads, hooks that cannot be built, unknown optimizers."""

import copy
import difflib
import inspect
from collections.abc import Iterator
from importlib import import_module

from mmengine import registry as mmengine_registry
from mmengine.registry import HOOKS, OPTIMIZERS, DefaultScope, Registry
from mmengine.runner import Runner

from .context import Context, Finding, walk

ROOTS = [root for root in vars(mmengine_registry).values() if isinstance(root, Registry)]


def check_keys(context: Context) -> list[Finding]:
    """Look for misspelt parts of the Runner, hooks that cannot be built, and unknown optimizers.

    Keys beneath them are arguments: classes refuse those that they do not take when they are built.
    """
    cfg = context.cfg
    found = [*_misspelt_parts(cfg), *_unusable_hooks(cfg), *_unknown_optimizers(cfg)]
    return found or [Finding('keys', 'ok', 'no part of the Runner is misspelled')]


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


def _unusable_hooks(cfg) -> Iterator[Finding]:
    """Hooks without a type, and this project's that cannot be built; others may need a Runner."""
    hooks = {f'default_hooks.{key}': each for key, each in (cfg.get('default_hooks') or {}).items()}
    hooks.pop('default_hooks.checkpoint', None)  # check_schedule builds it
    hooks |= {f'custom_hooks[{i}]': each for i, each in enumerate(cfg.get('custom_hooks') or ())}
    for path, config in hooks.items():
        if not isinstance(config, dict):
            continue
        if 'type' not in config:
            yield Finding('keys', 'error', f'{path}: expected a hook with a type, got {config}')
        elif 'gcp_mm' in map(package_of, find_classes(config['type'], [HOOKS])):
            try:
                HOOKS.build(copy.deepcopy(config))
            except Exception as error:  # a class raises whatever it likes about its arguments
                yield Finding('keys', 'error', f'{path}: {error}')


def _unknown_optimizers(cfg) -> Iterator[Finding]:
    """Optimizers that nothing registers: mmengine would say 'None is not a callable object'."""
    for path, node in walk(cfg.get('optim_wrapper'), 'optim_wrapper'):
        kind = node.get('type')
        if path.endswith('.optimizer') and kind and not find_classes(kind, [OPTIMIZERS]):
            text = f'{path}.type: nothing registers {kind!r}: correct it, or add its module to '
            yield Finding('keys', 'error', f'{text}custom_imports')
