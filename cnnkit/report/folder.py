"""What a run folder holds, read for a report."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from cnnkit.checkpoints import Checkpoint, load
from cnnkit.errors import CheckpointError, DataError, TrainingError
from cnnkit.history import EpochRecord
from cnnkit.metrics import Metrics
from cnnkit.mistakes import Mistakes
from cnnkit.report import written

MISTAKES: Final = "mistakes.npz"


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run that `cnnkit train` has finished. `request` is run.json, `result` is metrics.json, as they stand there."""

    folder: Path
    request: Mapping[str, Any]
    result: Mapping[str, Any]
    history: Sequence[EpochRecord]
    epochs_written: int
    """Epochs in history.jsonl: more than `history` has where the run was gone on with and is not finished again."""
    train: Metrics
    test: Metrics
    checkpoint: Checkpoint
    mistakes: Mistakes | None

    @property
    def place(self) -> str:
        """The folder as the command line that trained called it."""
        return str(self.result["out"] or self.folder)

    @property
    def model_name(self) -> str:
        """The model's own name, or that of its file."""
        return str(self.checkpoint.model.name or Path(self.request["model"]).stem)

    @property
    def dataset_name(self) -> str:
        """The data set's name, or that of its file or folder."""
        return Path(self.result["dataset"]).name or str(self.result["dataset"])

    @property
    def gap(self) -> float:
        """Training accuracy minus test accuracy."""
        return self.train.accuracy - self.test.accuracy

    @cached_property
    def machine(self) -> Mapping[str, Any]:
        """Platform, processor and so on; empty for a run of a cnnkit that did not write them down."""
        found: Mapping[str, Any] = self.result.get("machine") or {}
        return found


def read_run(folder: str | Path) -> FinishedRun:
    """Read the run in `folder`.

    Raises `TrainingError` where the run is not finished, and `CheckpointError` where no run is there or it is damaged.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise CheckpointError(
            f"{folder} holds no run: there is no {folder / 'run.json'}. Give the folder of a run of `cnnkit train`."
        )
    if not (folder / "metrics.json").exists():
        raise TrainingError(
            f"the run {folder} is not finished: there is no {folder / 'metrics.json'}. Finish it with: "
            f"cnnkit train --resume {shlex.quote(str(folder))}"
        )
    request = _object(folder / "run.json", written.Request)
    result = _object(folder / "metrics.json", written.Result)
    try:
        found = FinishedRun(
            folder=folder,
            request=request,
            result=result,
            history=tuple(map(_record, result["history"])),
            epochs_written=_lines(folder / "history.jsonl"),
            train=_metrics(result["train"]),
            test=_metrics(result["test"]),
            checkpoint=load(folder / "model.safetensors"),
            mistakes=Mistakes.load(folder / MISTAKES) if (folder / MISTAKES).exists() else None,
        )
    except (TypeError, ValueError, DataError) as error:
        raise _damaged(folder / "metrics.json", repr(error)) from error
    model, classes = found.checkpoint.model, len(found.test.confusion)
    if (model.name, model.plan().classes) != (result["model"], classes):
        raise CheckpointError(
            f"{folder / 'model.safetensors'} is not the model of this run: it holds {model.title} with "
            f"{model.plan().classes} classes, and metrics.json tells of {result['model']!r} with {classes}. Restore the file."
        )
    return found


def _object(path: Path, kind: type[written.Request | written.Result]) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    wrong = written.what_is_wrong(kind, data)
    if wrong:
        raise _damaged(path, wrong)
    return dict(data)


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {why}. Train again, or restore the file.")


def _lines(path: Path) -> int:
    try:
        return len(path.read_bytes().splitlines())
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}. A run leaves it in its folder."
        ) from error


def _record(line: Mapping[str, Any]) -> EpochRecord:
    """A line of the history again, in which what JSON could not hold is NaN."""
    parts = {name: line[name] and _with_nan(line[name]) for name in ("train", "validation")}
    return EpochRecord(**{**_with_nan(line), **parts})


def _with_nan(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: math.nan if value is None and name in ("loss", "running_loss") else value
        for name, value in figures.items()
    }


def _metrics(figures: Mapping[str, Any]) -> Metrics:
    """The metrics again, from what `Metrics.to_dict` gave."""
    loss = figures["loss"]
    names = [record["name"] for record in figures["per_class"]]
    return Metrics(np.array(figures["confusion"]), math.nan if loss is None else loss, tuple(names))
