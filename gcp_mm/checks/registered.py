"""Classes by the names that configs give them."""

import difflib
import inspect
import re
from importlib import import_module
from types import FunctionType

from mmengine import registry as mmengine_registry
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
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

from .. import models

ROOTS = [root for root in vars(mmengine_registry).values() if isinstance(root, Registry)]
# Where a `type` has to be a registered name, whatever class it is inside of
REGISTRIES = {
    r'model(\.(backbone|neck|head|rpn_head|roi_head|bbox_head|mask_head)(\[\d+\])?)*': MODELS,
    r'(model\.)?data_preprocessor': MODELS,
    r'(default_hooks\.\w+|custom_hooks\[\d+\])': HOOKS,
    r'(train|val|test)_cfg': LOOPS,
    r'(val|test)_evaluator(\.metrics)?(\[\d+\])?': METRICS,
    r'param_scheduler(\.\w+)?(\[\d+\])?': PARAM_SCHEDULERS,
    r'optim_wrapper': OPTIM_WRAPPERS,
    r'optim_wrapper(\.\w+)?\.optimizer': OPTIMIZERS,
    r'\w+_dataloader\.(batch_)?sampler': DATA_SAMPLERS,
    r'\w+_dataloader\.dataset(\.dataset|\.datasets\[\d+\])*': DATASETS,
    r'\w+_dataloader\.dataset(\.dataset|\.datasets\[\d+\])*\.pipeline\[\d+\]': TRANSFORMS,
}


def find_classes(kind, metric: bool = False, scope: str | None = None) -> list:
    """Classes and functions, one of each registry that has it, that a config's `type` can mean.

    Args:
        kind: the `type`. Without a scope it is looked for in `scope`, then in mmengine's, as a
            Registry does when it builds.
        metric: whether it is a metric; some have the name of their data set.
        scope: of a `_scope_` in the config; None for the current default scope.

    Returns:
        One, as a rule; [] for a name of no registry, such as the kind of an interpolation.
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
    for root in ROOTS:
        if (root is METRICS) != metric:
            continue
        child = root.children.get(scope)
        if child is not None:
            child.import_from_location()
        for registry in (child, root):
            if registry is not None and name in registry.module_dict:
                found.append(_loaded(registry, name))
                break
    return found


def unknown_type(path: str, kind: str, scope: str | None) -> str | None:
    """Say that no registry has a config's `type`, or None where it may be for no registry.

    Args:
        path: place of the config, such as 'model.neck'.
        kind: the `type`, which :func:`find_classes` did not find.
        scope: to look for it in. Of those other than MMPretrain's and MMDetection's nothing is
            known.
    """
    registry = next((r for place, r in REGISTRIES.items() if re.fullmatch(place, path)), None)
    own_scope, name = Registry.split_scope_key(kind)
    child = registry and registry.children.get(own_scope or scope)
    if child is None or child.scope not in ('mmpretrain', 'mmdet'):
        return None
    names = sorted({*registry.module_dict, *child.module_dict})
    near = difflib.get_close_matches(name, names, n=1)
    meant = f'did you mean {near[0]!r}? Else ' if near else ''
    return (
        f'{path}.type: nothing registers {kind!r}; {meant}install the packages that it needs, or '
        'add its module to custom_imports'
    )


def is_own(found) -> bool:
    """Whether a class or function is of this package."""
    return package_of(found) == 'gcp_mm'


def package_of(found) -> str:
    """Name of the package that a class or function is of."""
    return found.__module__.split('.')[0]


def _loaded(registry, name):
    """The class, where the registry so far holds this package's function that imports it."""
    if isinstance(registry.module_dict[name], FunctionType) and is_own(registry.module_dict[name]):
        for own in models.SUBCLASSES:
            getattr(models, own)
        import_module('gcp_mm.robustness.datasets')
    return registry.module_dict[name]


def own_parameters(found) -> tuple[dict[str, inspect.Parameter], bool]:
    """Parameters that a class's constructor, or a function, names; and whether they are all."""
    signature = inspect.signature(found.__init__ if inspect.isclass(found) else found)
    named = dict(signature.parameters)
    named.pop('self', None)
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
