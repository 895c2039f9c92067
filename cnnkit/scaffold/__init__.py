"""`new_backend`: a package for a backend of one's own, which passes the conformance suite from the first day."""

from __future__ import annotations

import importlib.util
import re
import secrets
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import cnnkit
from cnnkit.errors import OptionError
from cnnkit.plugins import backend_names

Level: TypeAlias = Literal["inference", "training"]

_FILES: Final = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    ".github/workflows/ci.yml": "ci.yml",
    "@PACKAGE@/__init__.py": "__init__.py",
    "@PACKAGE@/plugin.py": "plugin.py",
    "@PACKAGE@/backend.py": "backend_@LEVEL@.py",
    "@PACKAGE@/conformance.toml": "conformance.toml",
    "tests/test_conformance.py": "test_conformance.py",
}
"""Each file of the package, and the template that it is made from (with the ending `.template`)."""


def new_backend(name: str, out: Path | str = ".", level: Level = "inference") -> Path:
    """Write the folder `cnnkit-{name}` into the folder `out`, and return its path.

    The folder is a package that can be installed and that passes the conformance suite at `level`. It is there whole or
    not at all.

    Args:
        name: The backend's name, as its users will write it: lower-case letters and digits, with hyphens between.
        out: A folder that exists.
        level: "inference" for kernels that predict, "training" for kernels that have their ways back too.

    Raises:
        OptionError: The name or level cannot be, the name is taken, `out` is no folder, or the folder is there already.
        OSError: The folder cannot be written.
    """
    if level not in get_args(Level):
        raise OptionError(f"level is {level!r}; expected one of {', '.join(get_args(Level))}.")
    package = check_name(name)
    out = Path(out)
    if not out.is_dir():
        raise OptionError(f"there is no folder {out} to write into. Create it, or give another one.")
    target = out / f"cnnkit-{name}"
    if target.exists() or target.is_symlink():
        raise OptionError(f"{target} is there already, and nothing is overwritten. Move it away, or give another name.")
    words = {"@NAME@": name, "@PACKAGE@": package, "@LEVEL@": level, "@VERSION@": cnnkit.__version__}
    unfinished = out / f".cnnkit-{name}-{secrets.token_hex(8)}.tmp"
    try:
        for place, template in _FILES.items():
            path = unfinished / _filled_in(place, words)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_filled_in(_template(_filled_in(template, words)), words), encoding="utf-8", newline="\n")
        unfinished.rename(target)  # in one step, so that it is whole
    except BaseException:  # Ctrl-C too must leave nothing behind
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return target


def check_name(name: str) -> str:
    """The package's name for a backend called `name`, such as `cnnkit_my_engine`; an `OptionError` if it cannot be."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        likely = re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("cnnkit")).strip("-")
        hint = f"Try {likely}" if re.fullmatch(r"[a-z][a-z0-9-]*", likely) else "Try for example my-engine"
        raise OptionError(
            f"{name!r} cannot be the name of a backend; expected lower-case letters and digits, a letter first, with "
            f"hyphens between words. {hint}."
        )
    if name == "cnnkit" or name.startswith("cnnkit-"):
        raise OptionError(f"{name!r} begins with cnnkit, which is put before it anyway. Leave it out.")
    if name in backend_names():
        raise OptionError(
            f"a backend called '{name}' is installed already; `cnnkit backends` lists them all. Give another name."
        )
    package = f"cnnkit_{name.replace('-', '_')}"
    if name.replace("-", "_") in sys.stdlib_module_names:
        raise OptionError(
            f"{name!r} is a module of Python's standard library, and nobody could tell which of the two is meant. Give "
            f"another name, such as {name}-engine."
        )
    if importlib.util.find_spec(package) is not None:
        raise OptionError(
            f"a package called {package} is installed already, and only one could be imported. Give another name."
        )
    return package


def _template(name: str) -> str:
    return (files("cnnkit.scaffold") / "template" / f"{name}.template").read_text(encoding="utf-8")


def _filled_in(text: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text
