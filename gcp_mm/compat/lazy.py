"""Registration of classes whose modules take seconds to import."""

from importlib import import_module

from mmengine.registry import Registry


def register_lazily(registry: Registry, name: str, module: str) -> None:
    """Register a class by its name without importing its module.

    The registry holds a function that imports the class and builds an object of it, so that
    `import gcp_mm` stays fast. Its attribute `load_lazily` is a function that imports and returns
    the class. The class itself registers with ``force=True`` and so replaces the function.

    Args:
        registry: registry of the class.
        name: name of the class.
        module: full name of the module that defines it, such as 'gcp_mm.models.gcp_resnet'.
    """

    def load():
        return getattr(import_module(module), name)

    def build(*args, **kwargs):
        return load()(*args, **kwargs)

    build.load_lazily = load
    registry.register_module(name=name, module=build)
