"""The run itself: epochs, pieces, checkpoints, and Ctrl-C.

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
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, Final

import numpy as np

from cnnkit import checkpoints
from cnnkit.arrays import Parameters
from cnnkit.backend import Backend, EpochTotals, TrainingProgram
from cnnkit.datasets import Dataset
from cnnkit.diagnosis import explain_non_finite, explain_scores
from cnnkit.errors import OptionError, TrainingError
from cnnkit.evaluation import evaluate
from cnnkit.files import remove_leftovers, write_whole
from cnnkit.history import EarlyStopping, EpochRecord, Event, History, Progress, Run, summary_of
from cnnkit.model import Model
from cnnkit.optimizers import Optimizer, optimizer_to_dict, rate_at
from cnnkit.parameters import check_parameters
from cnnkit.plan import Plan
from cnnkit.plugins import naming_alternatives
from cnnkit.randomness import epoch_order
from cnnkit.state import TrainingState, check_state, fresh_state, initial_state

PIECE_IMAGES: Final = 1024
"""About how many images go between two looks at the clock, Ctrl-C and the loss."""

RUN_FILES: Final = ("checkpoint.safetensors", "model.safetensors", "history.jsonl")
"""What a run writes into its folder."""


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
class TrainingRun:
    """A run with everything that it needs; `begin`, then go through `events`."""

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
    initial: TrainingState | Parameters | None
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
        """Compile the program, from the beginning or from the checkpoint in the folder."""
        if self.validation is None and self._monitors("validation"):
            raise OptionError(f"EarlyStopping watches {self._monitor()}, but there is no validation set. Give one.")
        state = self._resumed() if resume else None
        folder = self._written
        if folder is not None and state is None:
            if not resume and any((folder / name).exists() for name in RUN_FILES):
                raise TrainingError(
                    f"{folder} already holds a run. Go on with it with resume=True, or choose another folder."
                )
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TrainingError(
                    f"the folder {folder} cannot be made: {error.strerror}. Choose another one for the run."
                ) from error
        if self.out is not None:
            # Worked out now, since what cannot be written down (an optimizer of one's own) is refused before training.
            _ = self.settings
        if folder is not None:
            remove_leftovers(folder)
        if state is None:
            state = self._beginning()
        with naming_alternatives(self.backend, self.plan):
            self.program = self.backend.compile_training(self.plan, state, self.optimizer)
        self.epoch_start = (state, self.at.done)
        self.last_save = time.monotonic()

    @property
    def _written(self) -> Path | None:
        """The folder, in the process that writes it; others that train with it as one only resume from it."""
        return self.out if self.backend.leads else None

    def _beginning(self) -> TrainingState:
        if self.initial is None:
            return initial_state(self.model, self.optimizer, self.seed, self.precision)
        if isinstance(self.initial, TrainingState):
            check_state(self.plan, self.initial, self.optimizer)
            return self.initial
        check_parameters(self.plan, self.initial)
        return fresh_state(self.initial, self.optimizer, self.seed)

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
            "precision": self.backend.selection.precision if self.backend.selection else self.precision,
            "initial": _digest_of(self._beginning()) if self.initial is not None else None,
            "early_stopping": asdict(self.early_stopping) if self.early_stopping else None,
            "train": _fingerprint(self.train),
            "validation": _fingerprint(self.validation) if self.validation is not None else None,
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
        """Write the checkpoint, if there is a folder to write."""
        if self._written is None:
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
        if self._written is not None:
            lines = "".join(json.dumps(record.to_dict()) + "\n" for record in self.at.history)
            path = self._written / "history.jsonl"
            try:
                write_whole(path, lines.encode())
            except OSError as error:
                raise TrainingError(
                    f"{path} cannot be written: {error.strerror or error}. Free space, or see that the folder can be written."
                ) from error

    # ------------------------------------------------------------------------------------------------- the run itself

    def events(self) -> Generator[Event, None, Run]:
        """Train, telling of every piece and every epoch; after Ctrl-C save the run and say where."""
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
        if not self.backend.leads:
            return f"{where}. Another process writes {self._checkpoint}; resume to go on from what it has saved."
        self.save()
        return f"{where}. Saved in {self._checkpoint}; resume to go on from there."

    def _measured(self) -> tuple[TrainingState, dict[str, dict[str, float] | None], float]:
        """The state at the epoch's end, the figures that were asked for with its weights, and the seconds they took."""
        state = self.program.state()
        begin = time.perf_counter()
        wanted = self.train_metrics or self._monitors("train")
        train = self._measure(state, self.train, "training set") if wanted else None
        validation = self._measure(state, self.validation, "validation set") if self.validation is not None else None
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
        return self.early_stopping.monitor or ("validation.loss" if self.validation is not None else "train.loss")

    def _is_best(self, measured: Mapping[str, Mapping[str, float] | None], state: TrainingState) -> bool:
        if self.early_stopping is None:
            return False
        part, metric = self._monitor().split(".")
        figures = measured[part]
        assert figures is not None  # noqa: S101 - `begin` has seen to a validation set
        value = figures[metric] if metric != "loss" else -figures[metric]
        at = self.at
        held = at.best_value
        if held is None or math.isnan(held) or value > held + self.early_stopping.min_delta:
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
        if self._written is not None:
            self._write_history()
            checkpoints.save(self._written / "model.safetensors", self.model, state, optimizer=self.optimizer)
        name = self.backend.selection.name if self.backend.selection else type(self.backend).__name__
        return Run(
            self.model,
            state,
            History(at.history),
            name,
            self.optimizer,
            at.best_epoch,
            at.stopped,
            message,
            self.out,
        )


def _fingerprint(data: Dataset) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(data.images).data)
    digest.update(np.ascontiguousarray(data.labels).data)
    return {"images": list(data.images.shape), "dtype": str(data.images.dtype), "sha256": digest.hexdigest()}


def _digest_of(state: TrainingState) -> str:
    digest = hashlib.sha256(f"{state.step} {state.seed}".encode())
    for arrays in (state.parameters, *state.slots.values()):
        for name, array in arrays.items():
            digest.update(f"{name} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


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
