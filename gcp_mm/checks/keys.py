"""Keys of a config that nothing reads, loops and hooks that cannot be built, unknown optimizers."""

import copy
import difflib
import inspect
from collections.abc import Iterable, Iterator
from importlib import import_module

from mmengine import registry as mmengine_registry
from mmengine.config import Config
from mmengine.registry import HOOKS, LOOPS, OPTIMIZERS, DefaultScope, Registry
from mmengine.runner import Runner

from .context import Context, Finding, walk

RUNNER_PARTS = {*inspect.signature(Runner).parameters}
# What is read of a config besides the arguments of the Runner, by the Runner itself or a script
ALSO_READ = (
    *('sync_bn', 'model_wrapper_cfg', 'find_unused_parameters', 'efficient_conv_bn_eval'),
    *('compile', 'activation_checkpointing', 'runner_type', 'strategy'),
    *('tta_model', 'tta_pipeline'),
)
ROOTS = [root for root in vars(mmengine_registry).values() if isinstance(root, Registry)]


def check_keys(context: Context) -> list[Finding]:
    """Look for misspelt parts of the Runner, and loops, hooks and optimizers that fail.

    Keys beneath them are arguments: classes refuse those that they do not take when they are built.
    """
    cfg, found = context.cfg, []
    for look in (_misspelt_parts, _unusable_loops, _unusable_hooks, _unusable_optimizers):
        found += look(cfg)
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


def check_options(cfg: Config, keys: Iterable[str]) -> None:
    """Refuse options that change nothing, such as a variable that the file has used already.

    Args:
        cfg: the config before the options are set.
        keys: dotted keys of the options.

    Raises:
        ValueError: for a key of which the first word is no part of the Runner.
    """
    parts = RUNNER_PARTS.union(ALSO_READ)
    for key in keys:
        first = key.split('.')[0]
        if first in parts:
            continue
        if first in cfg:
            remedy = 'set the settings that it stands for, or edit a copy of the config'
        elif near := difflib.get_close_matches(first, sorted(parts), n=1, cutoff=0.8):
            remedy = f'did you mean {near[0]}?'
        else:
            remedy = 'leave it out, or set a part of the Runner, such as optim_wrapper.optimizer.lr'
        raise ValueError(f'{key}: nothing reads {first} once the config is loaded: {remedy}')


def _misspelt_parts(cfg) -> Iterator[Finding]:
    for key in [key for key in cfg if key not in RUNNER_PARTS]:
        absent = difflib.get_close_matches(key, sorted(RUNNER_PARTS - set(cfg)), n=1, cutoff=0.8)
        # Variables of an author may resemble a part that is there, such as gallery_dataloader.
        near = absent or difflib.get_close_matches(key, sorted(RUNNER_PARTS), n=1, cutoff=0.88)
        if near:
            text = f'{key}: nothing reads it: did you mean {near[0]}?'
            text += f' The config has no {near[0]}' if absent else ''
            yield Finding('keys', 'warning', text)


def _unusable_loops(cfg) -> Iterator[Finding]:
    """Arguments that a loop does not take; it cannot be built without a Runner."""
    by_epoch = (cfg.get('train_cfg') or {}).get('by_epoch', True)
    train = 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
    for part, kind in (('train_cfg', train), ('val_cfg', 'ValLoop'), ('test_cfg', 'TestLoop')):
        loop = cfg.get(part) or {}
        for found in find_classes(loop.get('type', kind), [LOOPS]):
            taken = inspect.signature(found).parameters
            if any(each.kind is each.VAR_KEYWORD for each in taken.values()):
                continue
            for key in sorted(loop.keys() - taken.keys() - {'type', 'by_epoch', '_scope_'}):
                near = difflib.get_close_matches(key, taken, n=1)
                text = f'{part}.{key}={loop[key]!r}: {found.__name__} takes no {key}'
                text += f': did you mean {near[0]}?' if near else '; leave it out'
                yield Finding('keys', 'error', text)


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


def _unusable_optimizers(cfg) -> Iterator[Finding]:
    """Optimizers that nothing registers, and learning rates that are no number.

    mmengine would say 'None is not a callable object', or a scheduler fails.
    """
    for path, node in walk(cfg.get('optim_wrapper'), 'optim_wrapper'):
        kind = node.get('type')
        if path.endswith('.optimizer') and kind and not find_classes(kind, [OPTIMIZERS]):
            text = f'{path}.type: nothing registers {kind!r}: correct it, or add its module to '
            yield Finding('keys', 'error', f'{text}custom_imports')
        if isinstance(rate := node.get('lr'), str):
            yield Finding('keys', 'error', f'{path}.lr={rate!r}: expected a number')
