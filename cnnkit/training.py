"""Training: `fit`, and the generator underneath it."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from inspect import signature
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.arrays import Parameters, whole_number
from cnnkit.datasets import Dataset
from cnnkit.errors import DataError, OptionError
from cnnkit.evaluation import (
    BackendChoice,
    as_precision,
    check_fits,
    choose_backend,
    precision_of,
    require_dataset,
    require_model,
)
from cnnkit.history import EarlyStopping, Event, Run
from cnnkit.model import Model
from cnnkit.optimizers import Adam, Optimizer
from cnnkit.plan import Conv2DOp, DenseOp, Plan, RescaleOp
from cnnkit.plugins import require_support
from cnnkit.running import TrainingRun
from cnnkit.state import TrainingState


def fit(
    model: Model,
    data: Dataset,
    validation: Dataset | float | None = None,
    backend: BackendChoice = None,
    optimizer: Optimizer | None = None,
    batch_size: int = 64,
    epochs: int = 1,
    seed: int = 0,
    *,
    callbacks: Sequence[Callable[[Event], object]] = (),
    **settings: Any,
) -> Run:
    """Train a classifier and return the run: `run.state`, `run.history`.

    Args:
        model: A model that ends in Softmax.
        data: The training set, whose images have the model's input shape.
        validation: Another data set; or a fraction, which is split off the training set, stratified by class and drawn
            from the seed; or None.
        backend: A name, a chain of names, or a backend; None means CNNKIT_BACKEND, or the default.
        optimizer: Adam(learning_rate=1e-3) where none is given.
        batch_size: Images a step; the last step of an epoch takes what is left.
        epochs: How often the whole set is gone through, in an order drawn anew each time.
        seed: Where initial parameters, orders, dropout masks and splits come from.
        callbacks: Called with each `Progress` and each `EpochRecord`. Use `iter_fit` for a loop of your own.
        settings: The keyword arguments of `iter_fit`: `initial`, `early_stopping`, `train_metrics`, `out`, `resume`,
            `checkpoint_seconds`, `device`, `precision`, `options`.

    Raises:
        ModelError: The model cannot be, or cannot be trained.
        DataError: The data do not fit the model.
        BackendError: The backend is not there, not ready, or refuses the model.
        NonFiniteLoss: The loss became NaN or infinite; names the step and the layer.
        KeyboardInterrupt: After Ctrl-C; with `out`, the run is saved and the message says where.
    """
    for name in settings.keys() - signature(iter_fit).parameters.keys():
        raise TypeError(
            f"fit() has no argument {name!r}. An option of the backend goes into options, as in options={{{name!r}: ...}}."
        )
    events = iter_fit(model, data, validation, backend, optimizer, batch_size, epochs, seed, **settings)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            run: Run = end.value
            return run
        try:
            for callback in callbacks:
                callback(event)
        except KeyboardInterrupt as stop:  # where it yields, the run stands whole: it is saved, and says where
            events.throw(stop)


def iter_fit(
    model: Model,
    data: Dataset,
    validation: Dataset | float | None = None,
    backend: BackendChoice = None,
    optimizer: Optimizer | None = None,
    batch_size: int = 64,
    epochs: int = 1,
    seed: int = 0,
    *,
    initial: TrainingState | Parameters | None = None,
    early_stopping: EarlyStopping | None = None,
    train_metrics: bool = True,
    out: Path | str | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    device: str | None = None,
    precision: str = "float32",
    options: Mapping[str, Any] | None = None,
) -> Generator[Event, None, Run]:
    """The generator underneath `fit`: yields a `Progress` after every piece and an `EpochRecord` after every epoch.

    Args:
        model, data, validation, backend, optimizer, batch_size, epochs, seed: As in `fit`.
        initial: Where training begins: a state, such as `cnnkit.load(path).state`, which needs the optimizer that it was
            made with; or parameters alone. None means parameters drawn from `seed`.
        early_stopping: When to stop before `epochs`; the run then ends on the best weights.
        train_metrics: Whether the whole training set is judged after each epoch, which costs a forward pass over it.
        out: A folder for the run. Without one nothing is written.
        resume: Go on from the checkpoint in `out`; begin anew where there is none. `epochs` may have grown.
        checkpoint_seconds: How often the run is saved within an epoch; it is also saved at each epoch's end.
        device, precision, options: Handed to the backend.

    Returns:
        The `Run`, as the value of `StopIteration`.

    Raises:
        As `fit` does, and `TrainingError` where `out` holds another run.
    """
    require_model(model)
    require_dataset("data", data)
    if validation is not None and not isinstance(validation, Real):
        require_dataset("validation", validation)
    _require_kind("optimizer", optimizer, Optimizer, "Adam(learning_rate=1e-3)")
    _require_kind("early_stopping", early_stopping, EarlyStopping, "EarlyStopping(patience=3)")
    chosen = choose_backend(backend, device, precision, options)
    precision = precision_of(chosen, precision)
    optimizer = optimizer or Adam(learning_rate=1e-3)
    batch_size, epochs = whole_number("batch_size", batch_size), whole_number("epochs", epochs)
    seed = operator.index(seed) if isinstance(seed, np.integer) else seed  # a run is written down as JSON
    if isinstance(checkpoint_seconds, bool) or not isinstance(checkpoint_seconds, Real):
        raise OptionError(f"checkpoint_seconds is {checkpoint_seconds!r}; expected a number of seconds, such as 30.")
    if not isinstance(resume, bool):
        raise OptionError(f"resume is {resume!r}; expected True or False. Name the folder of the run with out=.")
    plan = model.plan()
    plan.require_trainable()
    train, held_out = _split(data, validation, seed)
    for part in (train,) if held_out is None else (train, held_out):
        check_fits(model, part)
        if len(part) == 0:
            raise DataError("the data set has 0 images; training and validation need at least one each. Give images.")
    _warn_of_raw_pixels(plan, train)
    require_support(chosen, plan)
    run = TrainingRun(
        model=model,
        plan=plan,
        train=_in_precision(train, precision),
        validation=None if held_out is None else _in_precision(held_out, precision),
        backend=chosen,
        precision=precision,
        optimizer=optimizer,
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        initial=initial,
        early_stopping=early_stopping,
        train_metrics=train_metrics,
        out=Path(out) if out is not None else None,
        checkpoint_seconds=checkpoint_seconds,
    )
    run.begin(resume=resume)
    return (yield from run.events())


def _split(data: Dataset, validation: Dataset | float | None, seed: int) -> tuple[Dataset, Dataset | None]:
    if validation is None or isinstance(validation, Dataset):
        return data, validation
    return data.split(validation, seed)


def _require_kind(name: str, value: object, kind: type, example: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise OptionError(f"{name} is {value!r}; expected for example cnnkit.{example}.")


def _in_precision(data: Dataset, precision: str) -> Dataset:
    return Dataset(as_precision(data.images, precision), data.labels, data.class_names)


def _warn_of_raw_pixels(plan: Plan, data: Dataset) -> None:
    for op in plan.operations:
        if isinstance(op, RescaleOp):
            return
        if isinstance(op, (Conv2DOp, DenseOp)):
            break
    if data.images.dtype == np.uint8:
        warnings.warn(
            "the images are raw pixels from 0 to 255 and the model does not rescale them, which makes training slow or "
            "unstable. Put Rescale(scale=1 / 255) first.",
            UserWarning,
            stacklevel=4,
        )
