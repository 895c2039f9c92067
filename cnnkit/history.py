"""What a run tells about itself, while it goes on and afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from cnnkit.arrays import whole_number
from cnnkit.errors import OptionError
from cnnkit.metrics import Metrics
from cnnkit.model import Model
from cnnkit.optimizers import Optimizer
from cnnkit.state import TrainingState
from cnnkit.tables import html_table, html_text, text_table

METRICS: Final = ("loss", "accuracy", "precision", "recall", "f1")
"""The figures of a history record, as `Metrics` calls them."""


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


class History(tuple[EpochRecord, ...]):
    """The records of a run, one an epoch: a tuple that prints as a table and shows as one in a notebook.

    `loss` and `accuracy` stand for the training and the validation set, as far as they were measured. The epoch whose
    weights early stopping holds to be the best is marked.
    """

    __slots__ = ()

    def _table(self) -> tuple[list[str], list[list[str]]]:
        parts = [part for part in ("train", "validation") if any(getattr(record, part) for record in self)]
        best = max((record.epoch for record in self if record.best), default=None)
        head = ["epoch", "running loss", *(f"{part} {metric}" for part in parts for metric in ("loss", "accuracy"))]
        head += ["learning rate", "s to train", *([""] if best is not None else [])]
        rows = []
        for record in self:
            row = [str(record.epoch), f"{record.running_loss:.4f}"]
            for figures in (getattr(record, part) for part in parts):
                row += [f"{figures[metric]:.4f}" if figures else "" for metric in ("loss", "accuracy")]
            row += [f"{record.learning_rate:.4g}", f"{record.seconds_train:.1f}"]
            rows.append([*row, *(["best" if record.epoch == best else ""] if best is not None else [])])
        return head, rows

    def __str__(self) -> str:
        if not self:
            return NO_EPOCHS
        head, rows = self._table()
        return text_table(head, rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not self:
            return html_text(NO_EPOCHS)
        head, rows = self._table()
        return html_table(head, rows)


NO_EPOCHS: Final = "no epoch yet"
"""What an empty history says."""


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
        object.__setattr__(self, "patience", whole_number("EarlyStopping: patience", self.patience))
        if not 0 <= self.min_delta < math.inf:
            raise OptionError(f"EarlyStopping: min_delta is {self.min_delta!r}; expected a number of at least 0.")
        object.__setattr__(self, "min_delta", float(self.min_delta))  # a run is written down as JSON
        known = [f"{part}.{metric}" for part in ("train", "validation") for metric in METRICS]
        if self.monitor is not None and self.monitor not in known:
            raise OptionError(f"EarlyStopping: monitor is {self.monitor!r}; expected one of {', '.join(known)}.")


@dataclass(frozen=True, eq=False)
class Run:
    """What `fit` returns. `state` is the last one, or with early stopping the best one; `message` says which."""

    model: Model
    state: TrainingState
    history: History
    backend: str
    optimizer: Optimizer
    best_epoch: int | None
    stopped_early: bool
    message: str
    out: Path | None

    def __repr__(self) -> str:
        """What became of it; its arrays would fill the screen."""
        where = f", in {self.out}" if self.out else ""
        return f"Run({self.model.title} on {self.backend}{where}: {self.message} See .history, .state and .model.)"


def summary_of(metrics: Metrics) -> dict[str, float]:
    """The figures of a history record: loss, accuracy, and macro precision, recall and f1."""
    return {name: float(getattr(metrics, name)) for name in METRICS}
