"""JSON files with one value of another kind."""

import copy
import json
from collections.abc import Iterator

VALUES = (None, 'x', 7, [], [None], {})


def damaged(content) -> Iterator[str]:
    """Text of `content` with each value in it replaced by each of VALUES, and cut short."""
    text = json.dumps(content)
    yield text[: len(text) // 2]
    for path in _paths(content):
        for value in VALUES:
            changed = [copy.deepcopy(content)]
            node = changed
            for key in (0, *path[:-1]) if path else ():
                node = node[key]
            node[path[-1] if path else 0] = value
            yield json.dumps(changed[0])


def _paths(node, path=()):
    yield path
    if isinstance(node, dict | list):
        for key in node if isinstance(node, dict) else range(len(node)):
            yield from _paths(node[key], (*path, key))
