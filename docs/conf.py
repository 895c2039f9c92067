"""How Sphinx makes the pages: `python -m sphinx -W -b html docs OUT`, with the extra `docs` installed."""

import re
import sys
from pathlib import Path

from sphinx.util.inspect import TypeAliasForwardRef

import cnnkit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "cnnkit"
author = "The cnnkit authors"
copyright = "the cnnkit authors, Apache License 2.0"  # noqa: A001 - Sphinx asks for this name
version = release = cnnkit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "pictures"]
exclude_patterns = ["_made", "changes"]
nitpicky = False
numfig = True

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "cnnkit"
html_extra_path = ["_made/site"]
Path(HERE, "_made", "site").mkdir(parents=True, exist_ok=True)  # Sphinx asks for it before anything is made
html_static_path = ["_static"]
html_css_files = ["cnnkit.css"]
html_copy_source = False
html_show_sphinx = False

# Docstrings are written in Markdown's backticks, which are code here.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
TypeAliasForwardRef.__repr__ = lambda alias: alias.name  # in unions and mappings Sphinx shows what this gives
autodoc_type_aliases = {name: name for name in ("ArrayLike", "Array", "Images", "Labels", "Parameters")}
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def _stay_on_the_site(app, docname, source):
    """A link that leads out of docs/ to a file of the source is a link in a checkout; on the site it names the file."""
    page = Path(app.env.doc2path(docname)).parent

    def named(found):
        target = (page / found[2].partition("#")[0]).resolve()
        if target.is_relative_to(HERE):
            return found[0]
        path = f"`{target.relative_to(HERE.parent)}`"
        return path if found[1] == path else f"{found[1]} ({path})"

    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)]+)\)", named, source[0])


def _indented_is_code(_app, _what, _name, _of, _options, lines):
    """In a docstring, an indented block behind a blank line is a formula or code, as in Markdown, and no quotation."""
    for number, line in reversed(list(enumerate(lines))):
        begins = line.startswith("    ") and number > 1 and not lines[number - 1].strip()
        before = next((text for text in reversed(lines[:number]) if text.strip()), "") if begins else ""
        if begins and not before.startswith((" ", "-", "*", "..")) and not before.endswith("::"):
            lines[number:number] = ["::", ""]


def _usable_by_all(_app, _page, _template, context, _tree):
    """A keyboard reaches what scrolls, and the headings of the menu have a level: neither Sphinx nor the theme does it."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            text = context[part].replace("<pre>", '<pre tabindex="0">')
            text = text.replace('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper')
            context[part] = text.replace('role="heading">', 'role="heading" aria-level="2">')


def setup(app):
    """Called by Sphinx."""
    app.connect("html-page-context", _usable_by_all, priority=900)  # after the theme's own
    app.connect("autodoc-process-docstring", _indented_is_code, priority=400)  # before napoleon makes lists of Args
    app.connect("source-read", _stay_on_the_site)
