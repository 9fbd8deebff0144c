"""The dicts in a config, with their places."""

from collections.abc import Iterator


def walk(node, path: str = '') -> Iterator[tuple[str, dict]]:
    """Every dict in `node`, itself included, with its place such as 'model.neck[0]'."""
    if isinstance(node, dict):
        yield path, node
        children = [(f'{path}.{key}' if path else str(key), value) for key, value in node.items()]
    elif isinstance(node, list | tuple):
        children = [(f'{path}[{i}]', value) for i, value in enumerate(node)]
    else:
        return
    for place, child in children:
        yield from walk(child, place)


def name_of(config: dict) -> str:
    """Name of the class that a config builds, without its scope; '' where it names none."""
    kind = config.get('type', '')
    return kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', '')
