"""Classes by the names that configs give them."""

import inspect
from importlib import import_module
from types import FunctionType

from mmengine import registry as mmengine_registry
from mmengine.registry import METRICS, DefaultScope, Registry

from .. import models

ROOTS = [root for root in vars(mmengine_registry).values() if isinstance(root, Registry)]


def find_classes(kind, metric: bool = False) -> list:
    """Classes and functions, one of each registry that has it, that a config's `type` can mean.

    Args:
        kind: the `type`. Without a scope it is looked for in the current default scope, then in
            mmengine's, as a Registry does when it builds.
        metric: whether it is a metric; some have the name of their data set.

    Returns:
        One, as a rule; [] for a name of no registry, such as the kind of an interpolation.
    """
    if not isinstance(kind, str):
        return [kind]
    scope, name = Registry.split_scope_key(kind)
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


def is_own(found) -> bool:
    """Whether a class or function is of this package."""
    return found.__module__.split('.')[0] == 'gcp_mm'


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
        if base.__module__.split('.')[0] in ('builtins', 'torch'):  # these take none
            break
        named, closed = own_parameters(base)
        parameters = named | parameters
        if closed:
            break
    return parameters
