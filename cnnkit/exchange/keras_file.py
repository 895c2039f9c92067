"""The format `keras`: Keras 3's own file, written and read without Keras.

A `.keras` file is a zip archive of `config.json` (the layers), `model.weights.h5` (their arrays, HDF5) and
`metadata.json`. What Keras has no place for, such as names of classes, travels in `metadata.json` under `cnnkit`, where
Keras does not look; on the way back it counts only if it describes the computation that `config.json` describes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from cnnkit.arrays import Array, Parameters
from cnnkit.errors import ModelError, OptionError, Problem
from cnnkit.exchange.archive import Archive
from cnnkit.exchange.from_keras import Reading, from_keras
from cnnkit.exchange.to_keras import grayscale_kernel, sequential, to_keras
from cnnkit.exchange.weights import read_weights, write_weights
from cnnkit.files import write_whole
from cnnkit.model import Conv2D, Grayscale, Model
from cnnkit.plan import LUMA, Conv2DOp

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.weights.h5"
METADATA: Final = "metadata.json"

LOADED_WITH: Final = "model = keras.saving.load_model({path})"

DEEPEST: Final = 64
"""Lists and tables in one another that are read at most. Keras nests fewer than ten; Python gives up at some hundreds."""

LONGEST: Final = 100
"""Digits of whole numbers that are read at most. A seed may have 40; Python prints no number of more than 4300."""


def write(model: Model, parameters: Parameters, path: Path) -> None:
    """Write a `.keras` file, the same bytes for the same model. Raises `ModelError` for what Keras cannot say."""
    if path.suffix != ".keras":
        raise OptionError(f"Keras opens only files whose names end in .keras, not {path}. Name it {path.name}.keras.")
    layers = to_keras(model.plan(), parameters)
    metadata = {"keras_version": "3.0.0", "cnnkit": {"model": model.to_dict()}}  # the first Keras with this layout
    members = {
        METADATA: json.dumps(metadata).encode(),
        CONFIG: json.dumps(sequential(model, layers)).encode(),
        WEIGHTS: write_weights(layers),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # without a date, so that equal models make equal files
    write_whole(path, file.getvalue())


def read(path: Path) -> tuple[Model, dict[str, Array]]:
    """The Sequential in a `.keras` file, as data: no name in it is looked up, and nothing is unpacked to disk.

    Raises `ModelError` for layers that are not ours, and `CheckpointError` for a file that is missing or damaged.
    """
    with Archive(path, required=(CONFIG, WEIGHTS), optional=(METADATA,)) as archive:
        reading = from_keras(_json(archive, CONFIG), str(path))
        metadata = _json(archive, METADATA) if METADATA in archive.sizes else None
        plan = reading.model.plan()
        needed = 4 * sum(spec.size for spec in plan.parameters)
        if needed > archive.sizes[WEIGHTS]:  # before anything of that size is made
            raise archive.damage(f"its layers need {needed:,} bytes of weights, and its {WEIGHTS} holds fewer")
        parameters = read_weights(archive, WEIGHTS, plan, reading.groups)
    model = _with_grayscale(reading, parameters)
    return _as_written(path, model, metadata), parameters


def _json(archive: Archive, name: str) -> Any:
    """The contents of a member, in which nothing is so deep or so long that a later message could not show it."""
    try:
        data = json.loads(archive.read_text(name), parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        raise archive.damage(f"its {name} is not JSON ({error})") from error
    if _is_deeper(data, DEEPEST):
        raise archive.damage(f"its {name} has more than {DEEPEST} lists and tables in one another")
    return data


def _whole_number(digits: str) -> int:
    if len(digits) > LONGEST:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _is_deeper(data: Any, levels: int) -> bool:
    """Whether more than `levels` lists and tables hold one another."""
    if not isinstance(data, (dict, list)):
        return False
    return levels == 0 or any(
        _is_deeper(one, levels - 1) for one in (data.values() if isinstance(data, dict) else data)
    )


def _with_grayscale(reading: Reading, parameters: dict[str, Array]) -> Model:
    """A frozen kernel that weighs the channels as a Grayscale does becomes one, so that no training changes it.

    Its array is taken out of `parameters`.
    """
    layers = list(reading.model.layers)
    for op in reading.model.plan().operations:
        layer = layers[op.layer]
        if not isinstance(op, Conv2DOp) or not isinstance(layer, Conv2D) or op.layer not in reading.frozen:
            continue
        one_pixel = (op.kernel_size, op.strides, op.filters, op.padding) == ((1, 1), (1, 1), 1, ((0, 0), (0, 0)))
        if not one_pixel or op.bias is not None or layer.activation is not None:
            continue
        channels = op.input_shape[2]
        for name, weights in (("mean", (1 / channels,) * channels), ("luma", LUMA)):
            if np.array_equal(parameters[op.kernel], grayscale_kernel(weights)):
                layers[op.layer] = Grayscale(weights=name)
                del parameters[op.kernel]
                break
    return reading.model.model_copy(update={"layers": tuple(layers)})


def _as_written(path: Path, model: Model, metadata: Any) -> Model:
    """The model as it was before `write`: names of classes, spelling of sizes. Its computation is that of `model`."""
    own = metadata.get("cnnkit") if isinstance(metadata, dict) else None
    if own is None:
        return model
    subject = f"{path}, {METADATA}"
    written = Model.from_dict(own.get("model") if isinstance(own, dict) else None, subject)
    with _about(subject):
        same = written.plan().operations == model.plan().operations
    if not same:
        what = f"describes another computation than {CONFIG}: one of them has been changed"
        fix = f"Export the model again, or take 'cnnkit' out of {METADATA}"
        raise ModelError([Problem("cnnkit.model", what, fix)], subject)
    return written


@contextmanager
def _about(subject: str) -> Iterator[None]:
    """Give errors of a model the file that it comes from."""
    try:
        yield
    except ModelError as error:
        raise ModelError(error.problems, subject) from None
