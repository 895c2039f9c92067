"""`cnnkit new-backend`: begin a backend of one's own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cnnkit.cli import common
from cnnkit.errors import CnnkitError
from cnnkit.scaffold import new_backend as write


def new_backend(
    name: Annotated[str, typer.Argument(help="The backend's name, such as my-engine.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write into.")] = Path(),
    level: Annotated[
        str, typer.Option(help="inference: kernels that predict; training: with their ways back too.")
    ] = "inference",
) -> None:
    """Write an installable package for a backend of your own, which passes the conformance suite from the first day."""
    try:
        folder = write(name, out, level)  # type: ignore[arg-type] # the function checks it
    except OSError as error:
        raise CnnkitError(f"cnnkit-{name} cannot be written: {error}.") from error
    place = str(folder) if folder.is_absolute() else f"./{folder}"  # without a slash, pip would look for it elsewhere
    common.console.print(
        f"Wrote {folder}: a backend of NumPy kernels, to be replaced by yours. Next:\n\n"
        f"    python -m pip install -e {shlex.quote(f'{place}[test]')}\n"
        f"    cnnkit conformance {name}\n"
        f"    python -m pytest {shlex.quote(str(folder))}",
        soft_wrap=True,
    )
