"""What the build makes before it reads the pages: pictures, the example report, and the help of all commands.

The directive `picture` is a numbered figure with its own words for those who cannot see it.

    ```{picture} learning-curves
    Loss and accuracy of the first model.
    ```

shows the picture of that name which `docs/pictures.py` makes.
"""

import importlib.util
from pathlib import Path

import typer
from docutils.parsers.rst.directives.images import Figure
from typer.cli import get_docs_for_click

from cnnkit.cli.app import app

DOCS = Path(__file__).resolve().parents[1]
MADE = DOCS / "_made"
WORDS = {}
"""The words of each picture by its name, once the build has begun."""


def _functions():
    specification = importlib.util.spec_from_file_location("cnnkit_docs_pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Picture(Figure):
    """`{picture} NAME`, with the caption as its content."""

    def run(self):
        """Put the figure in the place of the directive."""
        name = self.arguments[0]
        if name not in WORDS:
            raise self.error(f"docs/pictures.py makes no picture {name!r}; it makes {', '.join(WORDS)}.")
        self.options["alt"] = WORDS[name]
        self.arguments[0] = f"/_made/{name}.svg"
        return super().run()


def make(_):
    """Make all pictures, and the pages that are no pages of Sphinx."""
    MADE.mkdir(exist_ok=True)
    (MADE / "site").mkdir(exist_ok=True)
    module = _functions()
    for name, picture in module.pictures(MADE / "site"):
        picture.save(MADE / f"{name}.svg")
        WORDS[name] = picture.alt
    (MADE / "command-line.md").write_text(_commands(), encoding="utf-8")


def _commands():
    """What `--help` says for all commands, one section each."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="cnnkit")
    return text.partition("\n")[2]  # without its title


def setup(sphinx):
    """Called by Sphinx."""
    sphinx.add_directive("picture", Picture)
    sphinx.connect("builder-inited", make)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
