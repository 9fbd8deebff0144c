"""The site builds, its links lead somewhere, and commands print what the pages show."""

import os
import sys
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.helpers.pages import PAGES, name_of, samples
from tests.helpers.runs import ROOT

SAMPLES = [
    pytest.param(*sample, id=f'{name_of(page)}-{number}')
    for page in PAGES
    for number, sample in enumerate(samples(page))
]
PATH = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'


class Page(HTMLParser):
    """Links and anchors of a page of the site."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.add(attrs.get('id'))
        self.links += [attrs[key] for key in ('href', 'src') if attrs.get(key)]


def broken_links(site):
    """(page, link) of those within the site that lead nowhere."""
    pages = {path: Page(path) for path in site.rglob('*.html')}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (
                parts.fragment and target in pages and parts.fragment not in pages[target].anchors
            ):
                yield str(path.relative_to(site)), link


@pytest.mark.slow
def test_site_builds_and_its_links_lead_somewhere(run_tool, tmp_path):
    """With the notebooks, which train."""
    pytest.importorskip('sphinx')
    options = ['-W', '--keep-going', '-q', '-b', 'html', '-d', tmp_path / 'doctrees']
    command = [sys.executable, '-m', 'sphinx', *options, ROOT / 'docs', tmp_path / 'site']
    done = run_tool(*command, timeout=3000, PATH=PATH)
    assert done.returncode == 0, done.stdout
    assert list(broken_links(tmp_path / 'site')) == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / 'a.html').write_text('<a id="top" href="b.html"></a><a href="#top"></a>')
    (tmp_path / 'c.html').write_text('<a href="a.html#end"></a><a href="https://x.org/y"></a>')
    assert set(broken_links(tmp_path)) == {('a.html', 'b.html'), ('c.html', 'a.html#end')}


@pytest.fixture(scope='module')
def _digits_in_the_root(run_tool):
    run_tool('tools/make_digits.py')


@pytest.mark.slow
@pytest.mark.usefixtures('_digits_in_the_root')
@pytest.mark.parametrize(('command', 'output'), SAMPLES)
def test_commands_print_what_the_pages_show(run_tool, command, output):
    """In the repository's root with the digits; `...` stands for any text."""
    done = run_tool('bash', '-c', command, PATH=PATH)
    assert 'Traceback' not in done.stdout
    options = ELLIPSIS | NORMALIZE_WHITESPACE
    assert OutputChecker().check_output(output, done.stdout, options), done.stdout
