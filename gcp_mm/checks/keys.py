"""Keys of a config that nothing reads, and loops and hooks that cannot be built."""

import copy
import difflib
import inspect
from collections.abc import Iterable, Iterator

from mmengine.config import Config
from mmengine.registry import HOOKS, LOOPS, OPTIMIZERS, Registry
from mmengine.runner import Runner

from .context import Context, Finding, walk

RUNNER_PARTS = {*inspect.signature(Runner).parameters}
# What is read of a config besides the arguments of the Runner, by the Runner itself or a script
ALSO_READ = (
    *('sync_bn', 'model_wrapper_cfg', 'find_unused_parameters', 'efficient_conv_bn_eval'),
    *('compile', 'activation_checkpointing', 'runner_type', 'strategy'),
    *('tta_model', 'tta_pipeline'),
)


def check_keys(context: Context) -> list[Finding]:
    """Look for misspelt parts of the Runner, and loops, hooks and optimizers that fail.

    Keys beneath them are arguments: classes refuse those that they do not take when they are built.
    """
    cfg, found = context.cfg, []
    for look in (_misspelt_parts, _unusable_loops, _unusable_hooks, _unusable_optimizers):
        found += look(cfg)
    return found or [Finding('keys', 'ok', 'no part of the Runner is misspelled')]


def class_of(kind, registry: Registry):
    """The class or function that a config's `type` means, None where nothing registers it.

    Args:
        kind: the `type`, as a name or itself.
        registry: mmengine's root registry of such classes; a name is looked up in the child of the
            current default scope first, as a Registry does when it builds.
    """
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(None) as scoped:
        found = scoped.get(kind)
    return found.load_lazily() if hasattr(found, 'load_lazily') else found


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
        elif near := _nearest(first, parts):
            remedy = f'did you mean {near}?'
        else:
            remedy = 'leave it out, or set a part of the Runner, such as optim_wrapper.optimizer.lr'
        raise ValueError(f'{key}: nothing reads {first} once the config is loaded: {remedy}')


def _nearest(key, parts, cutoff=0.8):
    """The one of `parts` that a misspelt key is likely to mean, None if no one is near."""
    return next(iter(difflib.get_close_matches(key, sorted(parts), n=1, cutoff=cutoff)), None)


def _misspelt_parts(cfg) -> Iterator[Finding]:
    for key in [key for key in cfg if key not in RUNNER_PARTS]:
        absent = _nearest(key, RUNNER_PARTS - set(cfg))
        # Variables of an author may resemble a part that is there, such as gallery_dataloader.
        if near := absent or _nearest(key, RUNNER_PARTS, cutoff=0.88):
            text = f'{key}: nothing reads it: did you mean {near}?'
            text += f' The config has no {near}' if absent else ''
            yield Finding('keys', 'warning', text)


def _unusable_loops(cfg) -> Iterator[Finding]:
    """Arguments that a loop does not take; it cannot be built without a Runner."""
    by_epoch = (cfg.get('train_cfg') or {}).get('by_epoch', True)
    train = 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
    for part, kind in (('train_cfg', train), ('val_cfg', 'ValLoop'), ('test_cfg', 'TestLoop')):
        loop = cfg.get(part) or {}
        found = class_of(loop.get('type', kind), LOOPS)
        taken = inspect.signature(found).parameters if found else {}
        if not taken or any(each.kind is each.VAR_KEYWORD for each in taken.values()):
            continue
        for key in sorted(loop.keys() - taken.keys() - {'type', 'by_epoch', '_scope_'}):
            near = _nearest(key, taken, cutoff=0.6)
            text = f'{part}.{key}={loop[key]!r}: {found.__name__} takes no {key}'
            text += f': did you mean {near}?' if near else '; leave it out'
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
            continue
        found = class_of(config['type'], HOOKS)
        if found and package_of(found) == 'gcp_mm':
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
        if path.endswith('.optimizer') and kind and class_of(kind, OPTIMIZERS) is None:
            text = f'{path}.type: nothing registers {kind!r}: correct it, or add its module to '
            yield Finding('keys', 'error', f'{text}custom_imports')
        if isinstance(rate := node.get('lr'), str):
            yield Finding('keys', 'error', f'{path}.lr={rate!r}: expected a number')
