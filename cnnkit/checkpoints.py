"""One file that holds everything needed to predict with a model or to go on training it.

A checkpoint is a safetensors file: names and shapes in JSON, then numbers in little-endian bytes. Nothing in it is code.

====================================  =================================================================================
tensor                                holds
====================================  =================================================================================
`parameters/1.kernel`                 the parameter `1.kernel`, float32 or float64
`slots/m/1.kernel`                    the optimizer's slot `m` of that parameter
`best/parameters/...`                 the same of the best state that early stopping has seen,
`best/slots/...`                      where there is one
====================================  =================================================================================

====================================  =================================================================================
metadata, all strings                 holds
====================================  =================================================================================
`format`, `version`                   `cnnkit-checkpoint` and `1`
`model`                               the model file, as JSON
`versions`                            JSON: cnnkit, numpy, python, and the formats of checkpoint and model
`state`, `best`                       JSON: step, seed, names of the slots; absent where there is no such state
`optimizer`, `progress`               JSON; absent where there is none
`sha256`                              the digest described at `_digest`, in hexadecimal
====================================  =================================================================================

The digest covers every tensor and every other string, so that one flipped bit is enough for a refusal.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from cnnkit.arrays import Array, Parameters
from cnnkit.errors import CheckpointError, DataError, ModelError, OptionError
from cnnkit.files import write_whole
from cnnkit.model import MODEL_FORMAT, Model
from cnnkit.optimizers import Optimizer, optimizer_from_dict, optimizer_to_dict
from cnnkit.parameters import check_parameters
from cnnkit.plan import Plan
from cnnkit.state import TrainingState, check_state

FORMAT = "cnnkit-checkpoint"

CHECKPOINT_FORMAT = 1
"""The version of the layout above. It changes only when an older cnnkit could not read the file rightly."""

_OPTIONAL = ("state", "best", "optimizer", "progress")
_REQUIRED = ("format", "version", "model", "versions", "sha256")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What `load` found in a file."""

    path: Path
    model: Model
    parameters: dict[str, Array] = field(repr=False)  # they would fill pages
    """By name, in the order of the plan; float32 or float64."""
    state: TrainingState | None
    """Where training stood; None in a file that holds parameters alone. Its parameters are `parameters`."""
    optimizer: Optimizer | None
    progress: dict[str, Any] | None
    """What the writer said about its position in the run."""
    best: TrainingState | None
    """The best state that early stopping had seen."""
    versions: dict[str, str]
    """Who wrote the file: `cnnkit`, `numpy`, `python`, and the formats `checkpoint` and `model`."""


# ------------------------------------------------------------------------------------------------------------- saving


def save(
    path: str | os.PathLike[str],
    model: Model,
    state: TrainingState | Parameters,
    *,
    optimizer: Optimizer | None = None,
    progress: Mapping[str, Any] | None = None,
    best: TrainingState | None = None,
) -> Path:
    """Write a checkpoint to `path`, whole or not at all, and return the path.

    `state` is a training state, or parameters alone, from which nothing can be continued. `progress` is anything that
    JSON can hold, with strings as keys; tuples come back as lists, NaN and infinity as themselves. Raises `DataError`
    where state and model do not fit together, and `CheckpointError` where the file cannot be written; a file that was
    there stands then as it was.
    """
    path = Path(path)
    if not isinstance(state, (TrainingState, Mapping)):
        raise DataError(
            f"state is a {type(state).__name__}; expected a TrainingState or parameters by name, such as run.state."
        )
    plan = model.plan()
    metadata = {
        "format": FORMAT,
        "version": str(CHECKPOINT_FORMAT),
        "model": json.dumps(model.to_dict()),
        "versions": json.dumps(_versions()),
    }
    tensors: dict[str, Array] = {}
    if isinstance(state, TrainingState):
        _check_fits(plan, state, optimizer)
        metadata["state"] = _position(state)
        tensors |= _tensors(state)
    else:
        check_parameters(plan, state)
        tensors |= {f"parameters/{name}": array for name, array in state.items()}
    if best is not None:
        _check_fits(plan, best, optimizer)
        metadata["best"] = _position(best)
        tensors |= {f"best/{name}": array for name, array in _tensors(best).items()}
    if optimizer is not None:
        metadata["optimizer"] = json.dumps(optimizer_to_dict(optimizer))
    if progress is not None:
        metadata["progress"] = _progress(progress, path)
    tensors = {name: _storable(name, array) for name, array in tensors.items()}
    metadata["sha256"] = _digest(tensors, metadata)
    _write(path, safetensors.numpy.save(tensors, metadata))
    return path


def _check_fits(plan: Plan, state: TrainingState, optimizer: Optimizer | None) -> None:
    if optimizer is not None:
        check_state(plan, state, optimizer)
    else:
        for parameters in (state.parameters, *state.slots.values()):
            check_parameters(plan, parameters)


def _position(state: TrainingState) -> str:
    return json.dumps({"step": int(state.step), "seed": int(state.seed), "slots": list(state.slots)})


def _tensors(state: TrainingState) -> dict[str, Array]:
    tensors = {f"parameters/{name}": array for name, array in state.parameters.items()}
    for slot, arrays in state.slots.items():
        tensors |= {f"slots/{slot}/{name}": array for name, array in arrays.items()}
    return tensors


def _storable(name: str, array: Array) -> Array:
    _check_dtype(name, array)
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _check_dtype(name: str, array: Array) -> None:
    if array.dtype.name not in ("float32", "float64"):
        raise DataError(
            f"{name} is {array.dtype.name}; a checkpoint holds float32 or float64. Convert it first: "
            "array.astype('float32')."
        )


def _progress(progress: Mapping[str, Any], path: Path) -> str:
    try:
        return json.dumps(dict(progress))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot save {path}: progress is not plain data ({error}). Use dict, list, str, int, float, bool and None."
        ) from None


def _versions() -> dict[str, str]:
    return {
        "cnnkit": importlib.metadata.version("cnnkit"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "checkpoint": str(CHECKPOINT_FORMAT),
        "model": str(MODEL_FORMAT),
    }


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        if path.is_dir():
            raise CheckpointError(
                f"cannot save {path}: it is a folder. Give the name of a file, such as {path / 'model.safetensors'}."
            ) from error
        if not path.parent.is_dir():
            raise CheckpointError(
                f"cannot save {path}: there is no folder {path.parent}. Create the folder first."
            ) from error
        raise CheckpointError(
            f"cannot save {path}: {error.strerror or error}. What was there before is unchanged; free space, or choose "
            "another place."
        ) from error


def _digest(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """SHA-256 over the metadata but for `sha256`, then over each tensor, all of them sorted by name.

    The metadata is one JSON object with sorted keys and Python's separators. A tensor is the JSON list
    [name, "float32" or "float64", shape] and then its little-endian bytes in C order. Each JSON text ends with a new
    line.
    """
    signed = {name: text for name, text in metadata.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(signed, sort_keys=True).encode() + b"\n")
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(json.dumps([name, array.dtype.name, list(array.shape)]).encode() + b"\n")
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------------ loading


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint. Raises `CheckpointError` for a file that is missing, damaged, foreign, or from a newer cnnkit."""
    path = Path(path)
    tensors, metadata = _read(path)
    with _refusing(path):
        model = Model.from_dict(_parsed(metadata, "model"))
        plan = model.plan()
        optimizer = optimizer_from_dict(_parsed(metadata, "optimizer")) if "optimizer" in metadata else None
        state = _state(plan, tensors, _parsed(metadata, "state"), "", optimizer) if "state" in metadata else None
        best = _state(plan, tensors, _parsed(metadata, "best"), "best/", optimizer) if "best" in metadata else None
        parameters = _take(plan, tensors, "parameters/") if state is None else dict(state.parameters)
        progress = _parsed(metadata, "progress") if "progress" in metadata else None
        versions = _parsed(metadata, "versions")
        if tensors:
            raise DataError(f"nothing in the file says what {min(tensors)!r} is for.")
    return Checkpoint(path, model, parameters, state, optimizer, progress, best, versions)


def _read(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The tensors and the metadata of an undamaged checkpoint of a format that we know."""
    if not path.is_file():
        what = (
            "it is a folder. Give the checkpoint file in it"
            if path.is_dir()
            else "there is no such file. Correct the path"
        )
        raise CheckpointError(f"cannot read {path}: {what}.")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror or error}. Check the file and its permissions."
        ) from error
    except (safetensors.SafetensorError, TypeError, AttributeError) as error:
        # safetensors raises the last two for a number type that NumPy does not have, which a flipped bit can name.
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged: {error}. {_advice(path)}") from error
    if _digest(tensors, metadata) != metadata.get("sha256"):
        raise CheckpointError(
            f"{path} is damaged: its contents do not have the SHA-256 digest that was written with them. "
            "Use another copy of the file."
        )
    return tensors, metadata


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file, but its metadata does not say format = {FORMAT!r}: another program wrote it, "
            "or it is damaged. Give a file that cnnkit.save wrote."
        )
    version = metadata.get("version", "")
    if version.isdecimal() and int(version) > CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {version}, and this cnnkit reads up to {CHECKPOINT_FORMAT}. Upgrade cnnkit."
        )
    unknown = sorted(set(metadata) - {*_REQUIRED, *_OPTIONAL})
    missing = sorted(set(_REQUIRED) - set(metadata))
    if version != str(CHECKPOINT_FORMAT) or unknown or missing:
        said = [f"its version is {version!r}"] * (version != str(CHECKPOINT_FORMAT))
        said += [f"it lacks {name!r}" for name in missing] + [f"it has {name!r}, which is unknown" for name in unknown]
        raise CheckpointError(f"{path} is damaged: {', '.join(said)}. Use another copy of the file.")


def _advice(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        return "It is empty; use another copy of the file."
    if start[:1] == b"\x80" or start == b"PK\x03\x04":
        return "It looks like a pickle or an archive, which cnnkit does not open: a pickle can run code. Give a file that cnnkit.save wrote."
    return "Give a whole file that cnnkit.save wrote."


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Give every error in what an undamaged file says the path of the file."""
    try:
        yield
    except (ModelError, DataError, OptionError) as error:
        raise CheckpointError(f"{path} cannot be used: {error} Give a file that cnnkit.save wrote.") from error


def _parsed(metadata: Mapping[str, str], name: str) -> Any:
    try:
        data = json.loads(metadata[name])
    except (ValueError, RecursionError) as error:
        raise DataError(f"its {name!r} is not JSON ({error}).") from None
    if not isinstance(data, dict):
        raise DataError(f"its {name!r} is {type(data).__name__}, not a table.")
    return data


def _state(
    plan: Plan, tensors: dict[str, Array], position: Mapping[str, Any], prefix: str, optimizer: Optimizer | None
) -> TrainingState:
    """The state whose tensors begin with `prefix`; they are taken out of `tensors`."""
    step, seed = (_whole(position, name) for name in ("step", "seed"))
    slots = position.get("slots")
    if not isinstance(slots, list) or not all(isinstance(slot, str) for slot in slots):
        raise DataError(f"the slots of its state are {slots!r}; expected a list of names.")
    parameters = _take(plan, tensors, f"{prefix}parameters/")
    arrays = {slot: _take(plan, tensors, f"{prefix}slots/{slot}/") for slot in slots}
    state = TrainingState(parameters, arrays, step, seed)
    if optimizer is not None:
        check_state(plan, state, optimizer)
    return state


def _whole(position: Mapping[str, Any], name: str) -> int:
    value = position.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(f"the {name} of its state is {value!r}; expected a whole number of at least 0.")
    return value


def _take(plan: Plan, tensors: dict[str, Array], prefix: str) -> dict[str, Array]:
    """The arrays whose names begin with `prefix`, by the rest of their names, in the order of the plan."""
    names = [name for name in tensors if name.startswith(prefix)]
    found = {name.removeprefix(prefix): tensors.pop(name) for name in names}
    check_parameters(plan, found)
    for name, array in found.items():
        _check_dtype(f"{prefix}{name}", array)
    return {spec.name: found[spec.name] for spec in plan.parameters}
