"""Models with their parameters, written for other programs and read from their files.

A format is a module that an entry point in the group `cnnkit.formats` names; the entry point's name is the format's, and
what files of that format end with. The module is imported only when its format is asked for. It has

====================================  ================================================================================
`write(model, parameters, path)`      writes the file or folder `path`, whole or not at all, in the place of one of its
                                      own kind that is there; refuses first what the format cannot say, as `ModelError`
`read(path)`                          returns `(model, parameters)`, running nothing that the file holds; absent where
                                      the format is only written
`LOADED_WITH`                         optional: a line of Python that loads a file without cnnkit, `{path}` in its place
====================================  ================================================================================

`parameters` are float32 arrays in C order that fit the model, in the order of its plan.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from cnnkit.arrays import Array, Parameters
from cnnkit.errors import CnnkitError, DataError, OptionError
from cnnkit.model import Model
from cnnkit.parameters import check_parameters
from cnnkit.plan import Plan

__all__ = ["ENTRY_POINT_GROUP", "export_model", "formats", "how_to_load", "import_model"]

ENTRY_POINT_GROUP: Final = "cnnkit.formats"


def formats() -> tuple[str, ...]:
    """The names of all formats that are installed, in alphabetical order. Imports none of them."""
    return tuple(sorted(_registrations()))


def export_model(
    model: Model,
    parameters: Parameters,
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002 - the word that everybody expects
    *,
    overwrite: bool = False,
) -> Path:
    """Write `model` with `parameters` for another program, whole or not at all, and return the path.

    Args:
        model: Any model; what the format cannot say exactly is refused.
        parameters: Those of the model. Formats hold float32, so numbers in float64 are rounded.
        path: The file to write, or the folder where the format is one.
        format: One of `formats()`; by default what `path` ends with.
        overwrite: Whether what is at `path` may be replaced. It has to be of the same kind.

    Raises:
        OptionError: There is no such format, or something is at `path` already.
        ModelError: The format cannot say something of the model; nothing has been written.
        DataError: The parameters do not fit the model, or a number does not fit float32.
        MissingDependency: The format needs a package that is not installed.
        CnnkitError: `path` cannot be written.
    """
    path = Path(path)
    name = _chosen(path, format)
    plan = model.plan()
    check_parameters(plan, parameters)
    rounded = _in_float32(plan, parameters)
    try:
        _check_place(path, overwrite=overwrite)
        _load(name).write(model, rounded, path)
    except OSError as error:
        raise CnnkitError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error
    return path


def import_model(
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002 - as above
) -> tuple[Model, dict[str, Array]]:
    """The model and its parameters, float32, in a file of another program. Nothing in the file is run.

    Args:
        path: The file.
        format: One of `formats()` that can be read; by default what `path` ends with.

    Raises:
        OptionError: There is no such format, or it is only written.
        ModelError: The file holds a model that cnnkit has no layers for; `.problems` names each.
        CheckpointError: The file is missing, damaged, or no file of that format.
        MissingDependency: The format needs a package that is not installed.
    """
    path = Path(path)
    name = _chosen(path, format)
    module = _load(name)
    if not hasattr(module, "read"):
        raise OptionError(
            f"the format '{name}' is only written, so {path} cannot be imported. Import the model from another format."
        )
    model, parameters = module.read(path)
    check_parameters(model.plan(), parameters)
    return model, parameters


def how_to_load(
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002 - as above
) -> str | None:
    """A line of Python that loads the file `path` without cnnkit, or None where the format gives none."""
    path = Path(path)
    line: str | None = getattr(_load(_chosen(path, format)), "LOADED_WITH", None)
    return None if line is None else line.replace("{path}", repr(str(path)))


# ------------------------------------------------------------------------------------------------------- the formats


def _registrations() -> dict[str, list[importlib.metadata.EntryPoint]]:
    """Entry points by name. A distribution that lies on the path twice counts once."""
    found: dict[str, dict[str, importlib.metadata.EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(entry.name, {})[entry.value] = entry
    return {name: list(entries.values()) for name, entries in found.items()}


def _chosen(path: Path, name: str | None) -> str:
    """The name of a format that is installed."""
    known = formats()
    if name is None and path.suffix.removeprefix(".") not in known:
        raise OptionError(f"the name {path} does not say in which format it is. Give --format: {', '.join(known)}.")
    name = path.suffix.removeprefix(".") if name is None else name
    if name not in known:
        raise OptionError(f"there is no format {name!r}; formats are {', '.join(known)}.")
    return name


def _load(name: str) -> Any:
    """The module of a format."""
    entries = _registrations()[name]
    if len(entries) > 1:
        modules = ", ".join(sorted(entry.value for entry in entries))
        raise OptionError(f"the format '{name}' is registered by {modules}. Uninstall all but one.")
    try:
        return entries[0].load()
    except CnnkitError:
        raise
    except Exception as error:  # somebody else's module may fail in any way
        raise CnnkitError(
            f"the format '{name}' cannot be used: its module {entries[0].value} fails with {error!r}. "
            "Correct or uninstall the package that brings it."
        ) from error


def _in_float32(plan: Plan, parameters: Mapping[str, Array]) -> dict[str, Array]:
    rounded = {}
    for spec in plan.parameters:
        array = parameters[spec.name]
        with np.errstate(over="ignore"):  # looked at right below
            rounded[spec.name] = np.require(array, np.float32, ["C", "A"])
        if not np.array_equal(np.isfinite(array), np.isfinite(rounded[spec.name])):
            raise DataError(
                f"parameter {spec.name!r} has numbers up to {np.abs(array[np.isfinite(array)]).max():.3g}, which float32 "
                "cannot hold. Export a model whose numbers are smaller."
            )
    return rounded


def _check_place(path: Path, *, overwrite: bool) -> None:
    if not overwrite and (path.is_symlink() or path.exists()) and not _is_empty_folder(path):
        raise OptionError(
            f"{path} is there already. Give another place, or say that it may be replaced: overwrite=True, on the command "
            "line --force."
        )
    if not path.parent.is_dir():
        raise OptionError(f"{path} cannot be written: there is no folder {path.parent}. Create the folder first.")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
