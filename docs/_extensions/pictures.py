"""The directive `picture`: a numbered figure that the build makes, with its own words for those who cannot see it.

    ```{picture} learning-curves
    Loss and accuracy of the first model.
    ```

shows what the function `learning_curves` of `docs/pictures.py` returns, a `cnnkit.plot.Picture`.
"""

import importlib.util
from pathlib import Path

from docutils.parsers.rst.directives.images import Figure

DOCS = Path(__file__).resolve().parents[1]
MADE = DOCS / "_made"


def _functions():
    specification = importlib.util.spec_from_file_location("cnnkit_docs_pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Picture(Figure):
    """`{picture} NAME`, with the caption as its content."""

    option_spec = {name: kind for name, kind in Figure.option_spec.items() if name not in ("alt", "target")}

    def run(self):
        """Put the figure in the place of the directive."""
        name = self.arguments[0]
        made = self.env_pictures.get(name)
        if made is None:
            raise self.error(f"docs/pictures.py makes no picture {name!r}; it makes {', '.join(self.env_pictures)}.")
        self.options["alt"] = made
        self.arguments[0] = f"/_made/{name}.svg"
        return super().run()

    env_pictures: dict[str, str] = {}  # noqa: RUF012 - filled once, when the build begins


def make(app):
    """Make all pictures, and the pages that are no pages of Sphinx."""
    MADE.mkdir(exist_ok=True)
    (MADE / "site").mkdir(exist_ok=True)
    module = _functions()
    for name, picture in module.pictures(MADE / "site"):
        picture.save(MADE / f"{name}.svg")
        Picture.env_pictures[name] = picture.alt


def setup(app):
    """Called by Sphinx."""
    app.add_directive("picture", Picture)
    app.connect("builder-inited", make)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
