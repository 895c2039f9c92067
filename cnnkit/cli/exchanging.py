"""`cnnkit export` and `cnnkit import`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cnnkit.arrays import Parameters
from cnnkit.checkpoints import save
from cnnkit.cli import common
from cnnkit.errors import OptionError
from cnnkit.exchange import export_model, how_to_load, import_model
from cnnkit.model import Model
from cnnkit.parameters import initial_parameters
from cnnkit.presets import preset_names

ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def export(
    model: Annotated[str, typer.Argument(help="A run folder or a checkpoint; with --seed a preset or a model file.")],
    format_: Annotated[
        str | None, typer.Option("--format", "-f", help="onnx, keras, savedmodel, ... Default: what --out ends with.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Default: MODEL's name and the format's.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Export a model that has learned nothing, with the initial numbers.", min=0)
    ] = None,
    force: ForceOption = False,
    json_: common.JsonOption = False,
) -> None:
    """Write a model for another program: ONNX, Keras, TensorFlow."""
    if out is None:
        if format_ is None:
            raise OptionError("export needs a format: --format keras, or --out model.keras.")
        out = Path(f"{Path(model).resolve().stem}.{format_}")
    found, parameters = _find(model, seed)
    path = export_model(found, parameters, out, format_, overwrite=force)
    rounded = any(array.dtype == np.float64 for array in parameters.values())
    if rounded:
        common.notes.print("note: the numbers are float64, and were rounded to float32.")
    if json_:
        common.print_json({"path": str(path), "format": format_ or path.suffix[1:], **_told(found, parameters)})
        return
    common.console.print(f"Wrote {path}: {_said(found, parameters)}.", soft_wrap=True)
    line = how_to_load(path, format_)
    if line is not None:
        common.console.print(f"Load it without cnnkit:\n\n    {line}", soft_wrap=True)


def import_(
    file: Annotated[
        Path, typer.Argument(help="A file of another program: an .onnx file, a Sequential in a .keras file.")
    ],
    format_: Annotated[
        str | None, typer.Option("--format", "-f", help="onnx, keras, ... Default: what FILE ends with.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The checkpoint to write. Default: FILE's name, .safetensors.")
    ] = None,
    force: ForceOption = False,
    json_: common.JsonOption = False,
) -> None:
    """Read a model of another program into a checkpoint. Nothing in the file is run."""
    path = out or Path(f"{file.stem}.safetensors")
    if _exists(path) and not force:
        raise OptionError(f"{path} is there already. Give another --out, or --force to replace it.")
    model, parameters = import_model(file, format_)
    save(path, model, parameters)
    if json_:
        common.print_json({"path": str(path), **_told(model, parameters)})
        return
    common.console.print(f"Wrote {path}: {_said(model, parameters)}.", soft_wrap=True)
    if model.plan().is_classifier:
        place = shlex.quote(str(path))
        common.console.print(f"Next:\n\n    cnnkit evaluate {place} DATASET\n    cnnkit predict {place} IMAGE...")
    else:
        common.console.print(f"It is no classifier; load it in Python:\n\n    cnnkit.load({str(path)!r})")


def _find(name_or_path: str, seed: int | None) -> tuple[Model, Parameters]:
    """A trained model; or, where `seed` is given, one that has learned nothing."""
    path = Path(name_or_path)
    untrained = name_or_path in preset_names() or path.suffix in (".toml", ".json") or not _exists(path)
    if not untrained:
        if seed is not None:
            raise OptionError(f"{path} holds learned numbers, and --seed would draw others. Leave --seed out.")
        checkpoint = common.find_checkpoint(path)
        return checkpoint.model, checkpoint.parameters
    if not name_or_path.endswith((".toml", ".json")) and name_or_path not in preset_names():
        raise OptionError(
            f"there is no run folder, checkpoint or preset {name_or_path}. Give what `cnnkit train` printed last."
        )
    model = common.find_model(name_or_path).model
    if seed is None:
        there = f" The folder of that name is ./{name_or_path}." if path.is_dir() else ""
        raise OptionError(
            f"{name_or_path} is a model that has learned nothing. Train it and give the run folder, or give --seed 0 to "
            f"export it with initial numbers.{there}"
        )
    return model, initial_parameters(model, seed)


def _exists(path: Path) -> bool:
    """Whether something is there. Nothing is where nothing can be, such as at a name that is too long."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises OSError for such a name


def _told(model: Model, parameters: Parameters) -> dict[str, object]:
    count = sum(array.size for array in parameters.values())
    return {"model": model.name, "layers": len(model.layers), "parameters": count}


def _said(model: Model, parameters: Parameters) -> str:
    told = _told(model, parameters)
    return f"{model.title} of {told['layers']} layers, {told['parameters']:,} parameters"
