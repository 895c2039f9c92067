"""What the commands share: finding models and checkpoints, options of backends, output as JSON."""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cnnkit.backend import Backend
from cnnkit.checkpoints import Checkpoint, load
from cnnkit.datasets import dataset_names
from cnnkit.errors import CheckpointError, ModelError, OptionError
from cnnkit.model import Model
from cnnkit.optimizers import Adam
from cnnkit.presets import Preset, load_preset, preset_names

console = Console(highlight=False, markup=False, emoji=False)
"""Results go to the standard output, as they are: a class may be called `[b]` or `:cat:`."""
notes = Console(stderr=True, highlight=False, markup=False, emoji=False)
"""Progress and remarks do not mix with results."""

BackendOption = Annotated[
    str | None,
    typer.Option("--backend", "-b", help="Name of a backend, or several in the order to try: tensorflow,numpy."),
]
DeviceOption = Annotated[str | None, typer.Option(help="Device of the backend, such as cpu or gpu:0.")]
JudgedPrecisionOption = Annotated[str, typer.Option(help="float32 or float64.")]
PrecisionOption = Annotated[
    str, typer.Option(help="float32, float64, or one of the backend's own: see `cnnkit doctor BACKEND`.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the backend, such as threads=2.")
]
DataDirOption = Annotated[
    Path | None, typer.Option(help="Folder that may hold mnist.npz, fashion-mnist.npz, cifar10.npz.")
]
LimitOption = Annotated[int | None, typer.Option(help="Use only the first N images of each part.", min=1)]
ImageSizeOption = Annotated[
    tuple[int, int] | None,
    typer.Option(
        metavar="HEIGHT WIDTH", help="Resize the images of a folder. For a trained model, default: what it takes."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, last.")]


def backend_choice(backend: str | None) -> list[str] | str | None:
    """`--backend` as `get_backend` takes it: a name, or a chain where there are commas."""
    if backend is None or "," not in backend:
        return backend
    return [name.strip() for name in backend.split(",")]


def rounding(backend: Backend) -> str | None:
    """The precision of `backend` and what it rounds, where that is more than float32 does; None for float32 and float64."""
    chosen = backend.selection
    return f"{chosen.precision} ({chosen.rounded})" if chosen and chosen.rounded else None


def tell_rounding(backend: Backend) -> None:
    """Say so if `backend` rounds more than float32 does: nobody should have to wonder about the last digits."""
    rounded = rounding(backend)
    if rounded is not None:
        notes.print(f"precision: {rounded}", soft_wrap=True)


def backend_options(settings: Sequence[str] | None) -> dict[str, Any]:
    """`--set threads=2 --set deterministic=true` as keyword arguments; numbers, true and false become what they are."""
    options = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise OptionError(f"--set {setting!r} is not NAME=VALUE. Write for example --set threads=2.")
        options[name] = _value(value)
    return options


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for pattern, kind in ((r"[+-]?\d+", int), (r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", float)):
        if re.fullmatch(pattern, text, re.IGNORECASE):
            return kind(text)
    return text


def find_model(name_or_path: str) -> Preset:
    """A preset by its name, or a model file (.toml or .json) with the usual training settings."""
    path = Path(name_or_path)
    if name_or_path in preset_names():
        return load_preset(name_or_path)
    if path.suffix not in (".toml", ".json"):
        if name_or_path and path.exists():
            raise OptionError(
                f"{path} is neither a preset nor a model file; a model file ends in .toml or .json, and presets "
                f"are {', '.join(preset_names())}."
            )
        return load_preset(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        presets = ", ".join(preset_names())
        raise OptionError(f"the model file {path} cannot be read: {error}. Presets are {presets}.") from error
    try:
        model = Model.from_toml(text) if path.suffix == ".toml" else Model.from_json(text)
        model.plan()
    except ModelError as error:
        raise ModelError(error.problems, str(path)) from None
    return Preset(model.name or path.stem, "", model, Adam(learning_rate=1e-3), 64, 1)


def is_trained(name_or_path: str) -> bool:
    """Whether this is a run folder or a checkpoint file, and not a preset or a model file."""
    path = Path(name_or_path)
    return (
        bool(name_or_path) and name_or_path not in preset_names() and (path.is_dir() or path.suffix == ".safetensors")
    )


def find_layers(name_or_path: str) -> Model:
    """The model of a preset, a model file, a run folder or a checkpoint file."""
    if is_trained(name_or_path):
        return find_checkpoint(Path(name_or_path)).model
    return find_model(name_or_path).model


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint `path`, or the result in the run folder `path`."""
    if path.is_dir():
        found = [path / name for name in ("model.safetensors", "checkpoint.safetensors") if (path / name).exists()]
        if not found:
            raise CheckpointError(
                f"{path} holds no run: neither model.safetensors nor checkpoint.safetensors is there."
            )
        path = found[0]
    return load(path)


def size_of_images(model: Model, dataset: str, asked: tuple[int, int] | None) -> tuple[int, int] | None:
    """Height and width for the images of a folder: what was asked for, or else what `model` takes; None for other data."""
    if asked is not None or dataset in dataset_names() or not Path(dataset).is_dir() or len(model.input_shape) != 3:
        return asked
    return model.input_shape[0], model.input_shape[1]


def print_json(data: Mapping[str, Any]) -> None:
    """One JSON object on the standard output; what JSON cannot hold (NaN, infinity) is null."""
    sys.stdout.write(json.dumps(plain(data), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """`value` with NaN and infinity as None, tuples as lists and keys as strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def peak_memory_mib() -> float | None:
    """The most memory that this process has had, in MiB; None on Windows, where Python does not tell."""
    if sys.platform == "win32":
        return None
    import resource  # there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def show_warnings_as_notes() -> None:
    """Warnings as one sentence, not as a line of somebody's source."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        notes.print(f"note: {message}", soft_wrap=True)

    warnings.showwarning = show
