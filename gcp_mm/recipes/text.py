"""Parts of the text of a config."""

import pprint
import textwrap

WIDTH = 100


def comment(*sentences: str) -> str:
    """Sentences as lines of comment."""
    lines = dict(initial_indent='# ', subsequent_indent='# ', break_long_words=False)
    return '\n'.join(textwrap.wrap(' '.join(filter(None, sentences)), WIDTH, **lines))


def literal(value: object) -> str:
    """A value as Python writes it, in several lines where it is long."""
    return pprint.pformat(value, width=WIDTH - 12, compact=True)


def up_to(low: float, high: float) -> str:
    """A range of whole numbers."""
    return f'{low:.0f}' if low == high else f'{low:.0f} to {high:.0f}'
