"""Sphinx configuration: `make docs` writes docs/_build/html."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / '_ext'), str(DOCS.parent)]

from gcp_mm import __version__  # noqa: E402

project = 'gcp_mm'
copyright = 'the gcp_mm contributors'
version = release = __version__

extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx_copybutton',
    'mathml',
    'model_zoo',
]
exclude_patterns = ['_build', '_generated']
default_role = 'code'  # `name` in docstrings

myst_enable_extensions = ['dollarmath', 'colon_fence']
myst_heading_anchors = 3

# The notebooks run once, and again when they change; an exception in a cell ends the build.
nb_execution_mode = 'cache'
nb_execution_timeout = 1200  # seconds, for a cell on a busy machine
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ['Returns']  # prose: its colons separate no types

copybutton_prompt_text = '$ '
copybutton_line_continuation_character = '\\'

html_theme = 'furo'
html_title = f'gcp_mm {__version__}'
html_static_path = ['_static']
html_css_files = ['tables.css']
html_math_renderer = 'mathml'
