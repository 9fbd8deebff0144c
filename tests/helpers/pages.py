"""What the pages of the documentation hold: prose, programs, and commands with their output."""

import re

from tests.helpers.runs import ROOT

PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    ROOT / 'CHANGELOG.md',
    *sorted(path for path in ROOT.glob('docs/[!_]*/**/*.md')),
    *sorted(ROOT.glob('docs/*.md')),
    *sorted(ROOT.glob('configs/*/README.md')),
]
FENCE = re.compile(r'^(`{3,})([^\n]*)\n(.*?)^\1 *$', re.M | re.S)


def name_of(page):
    """Of a page, as the id of a test."""
    return str(page.relative_to(ROOT))


def blocks(page, language):
    """Contents of the fenced blocks of one language."""
    return [body for _, info, body in FENCE.findall(page.read_text()) if info == language]


def samples(page):
    """Commands that a page shows with their output: pairs of both, as it is printed."""
    pairs = []
    for block in blocks(page, 'console'):
        for part in re.split(r'^\$ ', block, flags=re.M)[1:]:
            lines = part.splitlines(keepends=True)
            end = 1 + next(i for i, line in enumerate(lines) if not line.endswith('\\\n'))
            pairs.append((''.join(lines[:end]), ''.join(lines[end:])))
    return pairs


def sentences(page):
    """The sentences of a page's prose: no code, tables, headings or formulas."""
    text = FENCE.sub('\n\n', re.sub(r'\A---\n.*?\n---\n', '', page.read_text(), flags=re.S))
    text = re.sub(r'^\$\$.*?^\$\$', '', text, flags=re.M | re.S)
    text = re.sub(r'^(\||#|:::).*$', '', text, flags=re.M)
    text = re.sub(r'`[^`]+`|\$[^$\n]+\$', 'word', text)
    text = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', text)
    for paragraph in re.split(r'\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )', text):
        yield from re.split(r'(?<=[.!?])\s+', ' '.join(paragraph.split()))
