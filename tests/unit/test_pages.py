"""The pages of the documentation: their sentences are short and their Python compiles."""

import re

import pytest

from tests.helpers.pages import PAGES, blocks, name_of, sentences

WORDS = 35


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_sentences_are_short(page):
    assert not [text for text in sentences(page) if len(text.split()) > WORDS]


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_python_compiles(page):
    commands = re.findall(r'python -c "\n(.*?)"', page.read_text(), re.DOTALL)
    for block in (*blocks(page, 'python'), *commands):
        compile(block, str(page), 'exec')
