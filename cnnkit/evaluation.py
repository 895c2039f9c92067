"""Predicting and judging with a trained model, in batches, on any backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from cnnkit.arrays import Array, Images, Parameters, check_images, dtype_of, whole_number
from cnnkit.backend import Backend, Program
from cnnkit.datasets import Dataset
from cnnkit.errors import DataError, OptionError
from cnnkit.metrics import Metrics, confusion_matrix, cross_entropy, predicted_classes
from cnnkit.model import Model
from cnnkit.parameters import own_parameters
from cnnkit.plan import Plan
from cnnkit.plugins import get_backend, naming_alternatives, require_support

BackendChoice: TypeAlias = str | Sequence[str] | Backend | None
"""A name, a chain of names, a backend, or None for CNNKIT_BACKEND or else the default."""

BATCH_SIZE = 256
"""How many images go through a program at once where nothing has to be learned: memory stays bounded by it."""


def choose_backend(
    which: BackendChoice, device: str | None, precision: str, options: Mapping[str, Any] | None
) -> Backend:
    """`cnnkit.get_backend`; a ready-made backend is left as it is, and must then be what else was asked for."""
    if isinstance(which, Backend):
        made = which.selection.precision if which.selection else precision
        if precision not in ("float32", made):  # float32 may be nobody's wish but the default
            raise OptionError(
                f"precision is {precision!r}, but the backend was made in {made}. Make it with "
                f"get_backend(..., precision={precision!r}), or give its name."
            )
        return get_backend(which, device=device, **(options or {}))
    return get_backend(which, device=device, precision=precision, **(options or {}))


def precision_of(backend: Backend, asked: str) -> str:
    """That of the arrays of `backend`, "float32" or "float64": as it was made, or as was asked where it cannot say."""
    return backend.selection.outside if backend.selection else asked


def compile_program(backend: Backend, model: Model, parameters: Parameters) -> tuple[Plan, Program]:
    """Plan and program of `model`, after asking the backend's plugin whether it supports it.

    Parameters that the model does not have are left out: those of a whole model serve its prefixes too.
    """
    plan = model.plan()
    if not isinstance(parameters, Mapping):
        raise DataError(
            f"parameters are a {type(parameters).__name__}; expected arrays by name, such as run.state.parameters."
        )
    require_support(backend, plan)
    own = own_parameters(plan, parameters)
    with naming_alternatives(backend, plan):
        return plan, backend.compile(plan, own)


def as_precision(images: Images, precision: str) -> Images:
    """Floating-point images in the precision of the program; uint8 stays uint8 until the model's own Rescale."""
    if images.dtype.kind == "f" and images.dtype != dtype_of(precision):
        return images.astype(dtype_of(precision))
    return images


def predict(
    model: Model,
    parameters: Parameters,
    images: Images,
    backend: BackendChoice = None,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | None = None,
    precision: str = "float32",
    options: Mapping[str, Any] | None = None,
) -> Array:
    """The output of the model's last layer, one row an image: probabilities `(batch, classes)` for a classifier.

    Args:
        model: The model that the parameters belong to.
        parameters: Arrays by name, such as `run.state.parameters`; of those of a whole model, `model.prefix(n)` takes
            its own.
        images: `(batch, height, width, channels)` or `(batch, features)`; uint8, float32 or float64.
        backend: A name, a chain of names, a backend; None means CNNKIT_BACKEND, or the default.
        batch_size: How many images are in the backend at once. It changes no result beyond rounding.
        device: Handed to the backend.
        precision: `"float32"`, `"float64"`, or one that the backend offers beside them.
        options: Options of the backend.

    Raises:
        ModelError: The model cannot be.
        DataError: Images or parameters do not fit the model.
        BackendError: The backend is not there, not ready, or refuses the model.
    """
    require_model(model)
    chosen = choose_backend(backend, device, precision, options)
    precision = precision_of(chosen, precision)
    plan, program = compile_program(chosen, model, parameters)
    images = check_images(as_precision(np.asanyarray(images), precision), plan.input_shape, dtype_of(precision))
    batch_size = whole_number("batch_size", batch_size)
    rows = [program.predict(part) for part in _batches(images, batch_size)]
    return np.concatenate(rows) if rows else np.empty((0, *plan.output_shape), dtype_of(precision))


@dataclass(frozen=True)
class Classification:
    """One image's answer: the most probable class, its probability, and the probabilities of all, by name."""

    class_name: str
    probability: float
    probabilities: Mapping[str, float]


def classify(
    model: Model, parameters: Parameters, images: Images, backend: BackendChoice = None, **settings: Any
) -> list[Classification]:
    """The class of each image by name, with its probability; `settings` are those of `predict`."""
    require_model(model)
    classes = model.plan().classes
    names = model.class_names or tuple(str(index) for index in range(classes))
    probabilities = predict(model, parameters, images, backend, **settings)
    best = predicted_classes(probabilities)
    return [
        Classification(names[index], float(row[index]), dict(zip(names, row.tolist(), strict=True)))
        for row, index in zip(probabilities, best.tolist(), strict=True)
    ]


def evaluate(
    model: Model,
    parameters: Parameters,
    data: Dataset,
    backend: BackendChoice = None,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | None = None,
    precision: str = "float32",
    options: Mapping[str, Any] | None = None,
) -> Metrics:
    """Judge a classifier on a whole data set, in fixed memory.

    The backend computes the scores under the Softmax; the predicted class (the lowest index at a tie), the
    cross-entropy (by log-sum-exp, in float64) and the confusion matrix are worked out here, the same for every backend.
    Arguments and errors are those of `predict`; a score that is NaN is a `TrainingError`, since it predicts nothing.
    """
    require_model(model)
    require_dataset("data", data)
    chosen = choose_backend(backend, device, precision, options)
    precision = precision_of(chosen, precision)
    classes = model.plan().classes
    check_fits(model, data)
    batch_size = whole_number("batch_size", batch_size)
    batches = (as_precision(part, precision) for part in _batches(data.images, batch_size))
    if len(model.layers) > 1:
        _, program = compile_program(chosen, model.prefix(len(model.layers) - 2), parameters)
        parts = [program.predict(part) for part in batches]
    else:
        parts = list(batches)  # the model is Softmax alone: its input is the scores
    scores = np.concatenate(parts) if parts else np.empty((0, classes))
    losses = cross_entropy(scores, data.labels)
    confusion = confusion_matrix(data.labels, predicted_classes(scores), classes)
    loss = float(losses.mean()) if len(losses) else float("nan")
    names = model.class_names or data.class_names
    return Metrics(confusion, loss=loss, class_names=tuple(names) if names and len(names) == classes else None)


def require_model(model: Any) -> None:
    """Tell those who hand over a preset or its name what is meant; Python would only name an attribute."""
    if not isinstance(model, Model):
        raise OptionError(
            f"model is {type(model).__name__} {str(model)[:40]!r}; expected a cnnkit.Model. Of a preset, take "
            "cnnkit.load_preset(name).for_data(data.image_shape, data.classes).model."
        )


def require_dataset(name: str, data: Any) -> None:
    """Tell those who hand over bare arrays what is meant."""
    if not isinstance(data, Dataset):
        raise DataError(f"{name} is {type(data).__name__}; expected a data set. Give cnnkit.Dataset(images, labels).")


def check_fits(model: Model, data: Dataset) -> None:
    """Raise `DataError` unless the data set has the image shape, the classes and the class names of the model."""
    plan = model.plan()
    classes = plan.classes
    if data.image_shape != plan.input_shape:
        raise DataError(
            f"images of the data are {data.image_shape}, but {model.title} has input_shape {plan.input_shape}. "
            f"Give the model input_shape={data.image_shape}, or other data."
        )
    if data.classes > classes:
        hint = ", or number the labels from 0: no image has label 0" if len(data) and data.labels.min() > 0 else ""
        raise DataError(
            f"the data has {data.classes} classes, but {model.title} tells {classes} apart. "
            f"Give its last Dense layer {data.classes} units{hint}."
        )
    if model.class_names and data.class_names and tuple(data.class_names) != model.class_names:
        raise DataError(
            f"the data names its classes {', '.join(data.class_names)}; {model.title} names them "
            f"{', '.join(model.class_names)}. Give both the same names in the same order."
        )


def _batches(images: Images, batch_size: int) -> Iterator[Images]:
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size]
