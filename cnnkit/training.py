"""Training: `fit`, the generator underneath it, and runs that survive being killed.

A run is a sequence of epochs, and an epoch a sequence of pieces, each of whole batches. Everything that happens depends
on the state, the position and the seed alone; so a checkpoint of these three, taken between two pieces, is enough to
end in the same bits.

A run folder holds `checkpoint.safetensors` (to go on from), `model.safetensors` (the result), `history.jsonl` (a line
an epoch); whoever starts the run may put more beside them.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from cnnkit import checkpoints
from cnnkit.backend import Backend, EpochTotals, TrainingProgram
from cnnkit.datasets import Dataset
from cnnkit.diagnosis import explain_non_finite, explain_scores
from cnnkit.errors import DataError, OptionError, TrainingError
from cnnkit.evaluation import BackendChoice, as_precision, check_fits, choose_backend, evaluate, precision_of
from cnnkit.files import write_whole
from cnnkit.metrics import Metrics
from cnnkit.model import Model
from cnnkit.optimizers import Adam, Optimizer, optimizer_to_dict, rate_at
from cnnkit.plan import Conv2DOp, DenseOp, Plan, RescaleOp
from cnnkit.plugins import require_support
from cnnkit.randomness import epoch_order
from cnnkit.state import TrainingState, initial_state

PIECE_IMAGES: Final = 1024
"""About how many images go between two looks at the clock, Ctrl-C and the loss."""

RUN_FILES: Final = ("checkpoint.safetensors", "model.safetensors", "history.jsonl")
"""What a run writes into its folder."""

METRICS: Final = ("loss", "accuracy", "precision", "recall", "f1")


# ------------------------------------------------------------------------------------------------- what a run tells


@dataclass(frozen=True)
class Progress:
    """Told after every piece. `running_loss` is the mean over the `done` images of this epoch, while weights changed."""

    epoch: int
    epochs: int
    done: int
    count: int
    running_loss: float
    seconds: float
    """Of training in this epoch."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of the history.

    `running_loss` is an average over the epoch while the weights were changing: each batch counts before its own step.
    `train` and `validation` are measured afterwards, on the whole set with the weights of the epoch's end; they hold
    loss, accuracy, and macro precision, recall and f1. `train` is None where it was not asked for.
    """

    epoch: int
    steps: int
    learning_rate: float
    running_loss: float
    train: Mapping[str, float] | None
    validation: Mapping[str, float] | None
    seconds_train: float
    seconds_evaluate: float
    best: bool
    """Whether early stopping holds this epoch's weights to be the best so far."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, a line of `history.jsonl`."""
        return asdict(self)


Event: TypeAlias = Progress | EpochRecord


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when `monitor` has not improved by more than `min_delta` for `patience` epochs; end on the best weights.

    `monitor` is `"validation.loss"`, `"train.accuracy"` and so on; None means the validation loss, or the training loss
    where there is no validation set. The run ends on the best weights whether it was stopped or not.
    """

    patience: int = 3
    monitor: str | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise OptionError(f"EarlyStopping: patience is {self.patience!r}; expected a whole number of at least 1.")
        if not 0 <= self.min_delta < math.inf:
            raise OptionError(f"EarlyStopping: min_delta is {self.min_delta!r}; expected a number of at least 0.")
        known = [f"{part}.{metric}" for part in ("train", "validation") for metric in METRICS]
        if self.monitor is not None and self.monitor not in known:
            raise OptionError(f"EarlyStopping: monitor is {self.monitor!r}; expected one of {', '.join(known)}.")


@dataclass(frozen=True, eq=False)
class Run:
    """What `fit` returns. `state` is the last one, or with early stopping the best one; `message` says which."""

    model: Model
    state: TrainingState
    history: tuple[EpochRecord, ...]
    backend: str
    optimizer: Optimizer
    best_epoch: int | None
    stopped_early: bool
    message: str
    out: Path | None


# ------------------------------------------------------------------------------------------------------------- fit


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
        settings: The keyword arguments of `iter_fit`, such as `early_stopping`, `out`, `resume`, `device`.

    Raises:
        ModelError: The model cannot be, or cannot be trained.
        DataError: The data do not fit the model.
        BackendError: The backend is not there, not ready, or refuses the model.
        NonFiniteLoss: The loss became NaN or infinite; names the step and the layer.
        KeyboardInterrupt: After Ctrl-C; with `out`, the run is saved and the message says where.
    """
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
    early_stopping: EarlyStopping | None = None,
    train_metrics: bool = True,
    out: Path | str | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    device: str | None = None,
    precision: Literal["float32", "float64"] = "float32",
    options: Mapping[str, Any] | None = None,
) -> Generator[Event, None, Run]:
    """The generator underneath `fit`: yields a `Progress` after every piece and an `EpochRecord` after every epoch.

    Args:
        model, data, validation, backend, optimizer, batch_size, epochs, seed: As in `fit`.
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
    _check_kinds(model, data, validation)
    chosen = choose_backend(backend, device, precision, options)
    precision = precision_of(chosen, precision)  # type: ignore[assignment] # a backend made by name has one of the two
    optimizer = optimizer or Adam(learning_rate=1e-3)
    _check_whole("batch_size", batch_size)
    _check_whole("epochs", epochs)
    plan = model.plan()
    plan.require_trainable()
    train, held_out = _split(data, validation, seed)
    for part in (train,) if held_out is None else (train, held_out):
        check_fits(model, part)
        if len(part) == 0:
            raise DataError("the data set has 0 images; training and validation need at least one each. Give images.")
    _warn_of_raw_pixels(plan, train)
    require_support(chosen, plan)
    run = _Training(
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


def _check_kinds(model: Any, data: Any, validation: Any) -> None:
    """Tell those who hand over a preset's name or bare arrays what is meant; Python would only name an attribute."""
    if not isinstance(model, Model):
        raise OptionError(
            f"model is {type(model).__name__} {str(model)[:40]!r}; expected a cnnkit.Model. Of a preset, take "
            "cnnkit.load_preset(name).for_data(data.image_shape, data.classes).model."
        )
    if not isinstance(data, Dataset):
        raise DataError(f"data is {type(data).__name__}; expected a data set. Give cnnkit.Dataset(images, labels).")
    if validation is not None and not isinstance(validation, (Dataset, int, float)):
        raise DataError(
            f"validation is {type(validation).__name__}; expected a fraction, or cnnkit.Dataset(images, labels)."
        )


def _in_precision(data: Dataset, precision: str) -> Dataset:
    return Dataset(as_precision(data.images, precision), data.labels, data.class_names)


def _check_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{name} is {value!r}; expected a whole number of at least 1.")


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


# ------------------------------------------------------------------------------------------------------ the machinery


@dataclass
class _Position:
    """Where a run stands; with the training state, all that it depends on."""

    epoch: int = 0
    done: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int | None = None
    best_value: float | None = None
    waited: int = 0
    stopped: bool = False


@dataclass
class _Training:
    model: Model
    plan: Plan
    train: Dataset
    validation: Dataset | None
    backend: Backend
    precision: str
    optimizer: Optimizer
    batch_size: int
    epochs: int
    seed: int
    early_stopping: EarlyStopping | None
    train_metrics: bool
    out: Path | None
    checkpoint_seconds: float

    at: _Position = field(default_factory=_Position, init=False)
    best: TrainingState | None = field(default=None, init=False)
    program: TrainingProgram = field(init=False)
    last_save: float = field(default=0.0, init=False)
    whole: bool = field(default=True, init=False)
    """Whether nothing is half done, so that the run can be saved."""
    epoch_start: tuple[TrainingState, int] = field(init=False)
    """A state and how many images of its epoch it had seen: what a diagnosis repeats from."""

    # ---------------------------------------------------------------------------------------- beginning and going on

    def begin(self, *, resume: bool) -> None:
        if self.validation is None and self._monitors("validation"):
            raise OptionError(f"EarlyStopping watches {self._monitor()}, but there is no validation set. Give one.")
        state = self._resumed() if resume else None
        if self.out is not None and state is None:
            if not resume and any((self.out / name).exists() for name in RUN_FILES):
                raise TrainingError(
                    f"{self.out} already holds a run. Go on with it with resume=True, or choose another folder."
                )
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TrainingError(
                    f"the folder {self.out} cannot be made: {error.strerror}. Choose another one for the run."
                ) from error
        if state is None:
            state = initial_state(self.model, self.optimizer, self.seed, self.precision)
        self.program = self.backend.compile_training(self.plan, state, self.optimizer)
        self.epoch_start = (state, self.at.done)
        self.last_save = time.monotonic()

    @property
    def _checkpoint(self) -> Path:
        assert self.out is not None  # noqa: S101 - asked only where there is a folder
        return self.out / "checkpoint.safetensors"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What must be the same for a resumed run to end as the unbroken one would have."""
        return {
            "model": self.model.to_dict(),
            "optimizer": optimizer_to_dict(self.optimizer),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "precision": self.precision,
            "early_stopping": asdict(self.early_stopping) if self.early_stopping else None,
            "train_metrics": self.train_metrics,
            "train": _fingerprint(self.train),
            "validation": _fingerprint(self.validation) if self.validation else None,
        }

    def _resumed(self) -> TrainingState | None:
        """The state in the checkpoint, with `self.at` and `self.best` set from it; None where there is no checkpoint."""
        if self.out is None:
            raise OptionError("resume is True without out; name the folder of the run that is to go on.")
        if not self._checkpoint.exists():
            return None
        found = checkpoints.load(self._checkpoint)
        if found.state is None or set(found.progress or {}) != {"settings", "position"}:
            raise TrainingError(
                f"{self._checkpoint} is no checkpoint of a run, only of a model. Choose another folder."
            )
        assert found.progress is not None  # noqa: S101 - the line above has looked
        before, now = found.progress["settings"], json.loads(json.dumps(self.settings))
        differing = [name for name in now if before.get(name) != now[name]]
        if differing:
            shown = "; ".join(f"{name} was {_short(before.get(name))}, now {_short(now[name])}" for name in differing)
            raise TrainingError(
                f"{self.out} holds a run with other settings: {shown}. Resume it with its own, or choose another folder."
            )
        position = found.progress["position"]
        history = [EpochRecord(**record) for record in position.pop("history")]
        self.at = _Position(**position, history=history)
        self._write_history()
        self.best = found.best
        return found.state

    def save(self, state: TrainingState | None = None) -> None:
        """Write the checkpoint, if there is a folder."""
        if self.out is None:
            return
        position = {**vars(self.at), "history": [record.to_dict() for record in self.at.history]}
        checkpoints.save(
            self._checkpoint,
            self.model,
            state or self.program.state(),
            optimizer=self.optimizer,
            progress={"settings": self.settings, "position": position},
            best=self.best,
        )
        self.last_save = time.monotonic()

    def _write_history(self) -> None:
        if self.out is not None:
            lines = "".join(json.dumps(record.to_dict()) + "\n" for record in self.at.history)
            write_whole(self.out / "history.jsonl", lines.encode())

    # ------------------------------------------------------------------------------------------------- the run itself

    def events(self) -> Generator[Event, None, Run]:
        try:
            return (yield from self._epochs())
        except KeyboardInterrupt:
            if not self.whole:
                raise
            raise KeyboardInterrupt(self._saved_at_interrupt()) from None

    def _epochs(self) -> Generator[Event, None, Run]:
        at = self.at
        while at.epoch < self.epochs and not at.stopped:
            yield from self._pieces()
            state, measured, seconds = self._measured()
            with self._undivided():
                record = self._judged(state, measured, seconds)
                at.history.append(record)
                at.epoch, at.done, at.loss_sum, at.seconds = at.epoch + 1, 0, 0.0, 0.0
                self.save(state)
                self._write_history()
                self.epoch_start = (state, 0)
            yield record
        return self._finish()

    def _pieces(self) -> Iterator[Progress]:
        at, count = self.at, len(self.train)
        order = epoch_order(self.seed, at.epoch, count)
        length = max(1, PIECE_IMAGES // self.batch_size) * self.batch_size
        while at.done < count:
            piece = order[at.done : at.done + length]
            with self._undivided():
                begin = time.perf_counter()
                totals = self.program.epoch(self.train.images, self.train.labels, piece, self.batch_size)
                at.seconds += time.perf_counter() - begin
                self._require_finite(totals, order, at.done + len(piece))
                at.done += len(piece)
                at.loss_sum += totals.loss_sum
                if time.monotonic() - self.last_save >= self.checkpoint_seconds:
                    self.save()
            yield Progress(at.epoch + 1, self.epochs, at.done, count, at.loss_sum / at.done, at.seconds)

    def _require_finite(self, totals: EpochTotals, order: np.ndarray[Any, np.dtype[np.int64]], end: int) -> None:
        """Raise `NonFiniteLoss` where the loss is none any more or, at the epoch's end, the parameters are not."""
        finite = math.isfinite(totals.loss_sum)
        if finite and end == len(order):
            finite = all(bool(np.isfinite(array).all()) for array in self.program.state().parameters.values())
        if not finite:
            state, seen = self.epoch_start
            raise explain_non_finite(
                self.backend, self.plan, state, self.optimizer, self.train, order[seen:end], self.batch_size
            )

    @contextmanager
    def _undivided(self) -> Iterator[None]:
        """Hold Ctrl-C back until the block, which changes the run, is done. A second one comes through and saves nothing."""
        with _interrupt_later() as asked:
            self.whole = False
            yield
            self.whole = True
        if asked.is_set():
            raise KeyboardInterrupt

    def _saved_at_interrupt(self) -> str:
        """Save the run, if there is a folder, and say where it stands."""
        at = self.at
        where = f"Stopped in epoch {at.epoch + 1} of {self.epochs}, after {at.done:,} of {len(self.train):,} images"
        if at.done == 0:
            where = f"Stopped after epoch {at.epoch} of {self.epochs}"
        if self.out is None:
            return f"{where}. Nothing was saved, since the run has no folder (out)."
        self.save()
        return f"{where}. Saved in {self._checkpoint}; resume to go on from there."

    def _measured(self) -> tuple[TrainingState, dict[str, dict[str, float] | None], float]:
        """The state at the epoch's end, the figures that were asked for with its weights, and the seconds they took."""
        state = self.program.state()
        begin = time.perf_counter()
        wanted = self.train_metrics or self._monitors("train")
        train = self._measure(state, self.train, "training set") if wanted else None
        validation = self._measure(state, self.validation, "validation set") if self.validation else None
        return state, {"train": train, "validation": validation}, time.perf_counter() - begin

    def _judged(
        self, state: TrainingState, measured: Mapping[str, Mapping[str, float] | None], seconds: float
    ) -> EpochRecord:
        """The record of the epoch; its weights are kept if they are the best."""
        at = self.at
        return EpochRecord(
            epoch=at.epoch + 1,
            steps=state.step,
            learning_rate=rate_at(self.optimizer.learning_rate, state.step - 1),
            running_loss=at.loss_sum / at.done,
            train=measured["train"],
            validation=measured["validation"],
            seconds_train=at.seconds,
            seconds_evaluate=seconds,
            best=self._is_best(measured, state),
        )

    def _measure(self, state: TrainingState, data: Dataset, name: str) -> dict[str, float]:
        try:
            metrics = evaluate(self.model, state.parameters, data, self.backend, precision=self.precision)
        except TrainingError as error:  # a score is NaN
            raise explain_scores(self.backend, self.plan, state, self.optimizer, data, name) from error
        return summary_of(metrics)

    def _monitors(self, part: str) -> bool:
        return self.early_stopping is not None and self._monitor().startswith(part)

    def _monitor(self) -> str:
        assert self.early_stopping is not None  # noqa: S101 - asked only where there is one
        return self.early_stopping.monitor or ("validation.loss" if self.validation else "train.loss")

    def _is_best(self, measured: Mapping[str, Mapping[str, float] | None], state: TrainingState) -> bool:
        if self.early_stopping is None:
            return False
        part, metric = self._monitor().split(".")
        figures = measured[part]
        assert figures is not None  # noqa: S101 - `begin` has seen to a validation set
        value = figures[metric] if metric != "loss" else -figures[metric]
        at = self.at
        if at.best_value is None or value > at.best_value + self.early_stopping.min_delta:
            at.best_value, at.best_epoch, at.waited, self.best = value, at.epoch + 1, 0, state
            return True
        at.waited += 1
        at.stopped = at.waited >= self.early_stopping.patience
        return False

    def _finish(self) -> Run:
        at = self.at
        state = self.best or self.program.state()
        message = f"Trained {at.epoch} epoch{'s' if at.epoch != 1 else ''}; the weights are those of the last."
        if self.early_stopping is not None:
            why = f"no better {self._monitor()} for {self.early_stopping.patience} epochs" if at.stopped else "all done"
            message = (
                f"Ended after epoch {at.epoch} ({why}); the weights are the best ones, those of epoch {at.best_epoch}."
            )
        if self.out is not None:
            self._write_history()
            checkpoints.save(self.out / "model.safetensors", self.model, state, optimizer=self.optimizer)
        name = self.backend.selection.name if self.backend.selection else type(self.backend).__name__
        return Run(
            self.model,
            state,
            tuple(at.history),
            name,
            self.optimizer,
            at.best_epoch,
            at.stopped,
            message,
            self.out,
        )


def summary_of(metrics: Metrics) -> dict[str, float]:
    """The figures of a history record: loss, accuracy, and macro precision, recall and f1."""
    return {name: float(getattr(metrics, name)) for name in METRICS}


def _fingerprint(data: Dataset) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(data.images).data)
    digest.update(np.ascontiguousarray(data.labels).data)
    return {"images": list(data.images.shape), "dtype": str(data.images.dtype), "sha256": digest.hexdigest()}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextmanager
def _interrupt_later() -> Iterator[threading.Event]:
    """Hold Ctrl-C back until the block is done, since a step that is half done is a state that nobody can resume.

    A second Ctrl-C is not held back. Signals reach the main thread only; in any other this does nothing, nor where
    Ctrl-C is ignored, as it is in a background job.
    """
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_IGN):
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            signal.default_int_handler(number, frame)
        asked.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
