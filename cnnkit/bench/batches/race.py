"""The race: every contestant in a process of its own, one works at a time, and rounds go through all of them.

What disturbs the machine for a while thus hits all of them; the best round of each counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.arrays import Array, Parameters
from cnnkit.bench.batches.agreement import Shown, differences, wrong_predictions
from cnnkit.bench.batches.entries import Entry
from cnnkit.bench.batches.process import Failed, Process
from cnnkit.bench.batches.workload import Workload


@dataclass
class Outcome:
    """What one contestant did. Seconds are for all images once; the first epoch and prediction are kept apart."""

    entry: Entry
    versions: Mapping[str, str] = field(default_factory=dict)
    draws_masks: bool = False
    first_epoch: float | None = None
    first_predict: float | None = None
    train: list[float] = field(default_factory=list)
    predict: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """The mean loss of every epoch, the first included."""
    cpu: float = 0.0
    """Processor seconds of all its threads in the rounds, the first one left out."""
    idle_cpu: float = 0.0
    idle_seconds: float = 0.0
    """While it had nothing to do: processor seconds of all its threads, and how long that was."""
    peak_mib: float | None = None
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Why its figures do not count; empty where they do."""
    log: str = ""

    @property
    def cores(self) -> float:
        """On how many cores it worked, on average."""
        return self.cpu / sum(self.train + self.predict) if self.train else 0.0

    @property
    def idle_cores(self) -> float:
        """On how many cores it worked while others did, on average; more than a trace spoils their figures."""
        return self.idle_cpu / self.idle_seconds if self.idle_seconds else 0.0


def race(
    workload: Workload,
    entries: Sequence[Entry],
    rounds: int = 5,
    told: Callable[[str], object] = lambda _: None,
) -> list[Outcome]:
    """Measure all `entries`, in `rounds` rounds after one that is kept apart. `told` hears of the progress.

    The first of them that comes through is what the others' work is compared with. One that fails is out, and its
    outcome says why; the others go on.
    """
    runners = [_Runner(entry, workload) for entry in entries]
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "shown.npz"
            for runner in runners:
                told(f"{runner.entry.title}: first epoch")
                runner.attempt(lambda it: it.first(path))
            for number in range(rounds):
                told(f"round {number + 1} of {rounds}")
                for runner in runners:
                    runner.attempt(lambda it: it.round())
            for runner in runners:
                runner.attempt(lambda it: it.last(path))
    finally:
        for runner in runners:
            runner.close()
    _compare(workload, runners)
    return [runner.outcome for runner in runners]


def _compare(workload: Workload, runners: Sequence[_Runner]) -> None:
    sound = [runner for runner in runners if not runner.outcome.problems]
    for runner in sound[1:]:
        found = differences(workload, runner.shown, sound[0].shown)
        runner.outcome.problems += [f"not the same work as {sound[0].entry.title}: {problem}" for problem in found]


class _Runner:
    """One contestant on its way through the race."""

    def __init__(self, entry: Entry, workload: Workload) -> None:
        self.outcome = Outcome(entry)
        self.workload = workload
        self.process: Process | None = None
        self.parameters: list[Parameters] = []
        """After the first epoch and after the last."""

    def attempt(self, stage: Callable[[_Runner], None]) -> None:
        """Go through a stage, unless it has failed before; if it fails now, it is out."""
        if self.outcome.problems:
            return
        try:
            stage(self)
        except Failed as failure:
            self.outcome.problems.append(str(failure))
            self.outcome.log = failure.log
            self.close()

    def first(self, path: Path) -> None:
        """Start, and train and predict once."""
        self.process = Process(self.entry, self.workload)
        answer = self.process.start()
        self.outcome.versions, self.outcome.draws_masks = answer["versions"], answer["draws_masks"]
        answer = self._ask("train")
        self.outcome.first_epoch = answer["seconds"]
        self.outcome.losses.append(answer["loss"])
        self.outcome.first_predict = self._ask("predict")["seconds"]
        self._show(path)

    def round(self) -> None:
        """Train and predict once, and count it."""
        for what, rounds in (("train", self.outcome.train), ("predict", self.outcome.predict)):
            answer = self._ask(what)
            rounds.append(answer["seconds"])
            self.outcome.cpu += answer["cpu"]
            if what == "train":
                self.outcome.losses.append(answer["loss"])

    def last(self, path: Path) -> None:
        """See whether what was predicted last is what the parameters give."""
        predictions = self._show(path)
        self.outcome.problems += wrong_predictions(self.workload, self.parameters[-1], predictions)
        self.close()

    @property
    def entry(self) -> Entry:
        """Who runs."""
        return self.outcome.entry

    @property
    def shown(self) -> Shown:
        """What it has shown, once it has come through."""
        first, last = self.parameters
        return Shown(self.outcome.losses, first, last, self.outcome.draws_masks)

    def _ask(self, what: str, **given: Any) -> dict[str, Any]:
        assert self.process is not None  # noqa: S101 - `first` has begun it
        answer = self.process.ask(what, **given)
        outcome = self.outcome
        outcome.idle_cpu += answer["idle_cpu"]
        outcome.idle_seconds += answer["idle_seconds"]
        if answer["peak_mib"] is not None:
            outcome.peak_mib = max(outcome.peak_mib or 0.0, answer["peak_mib"])
        return answer

    def _show(self, path: Path) -> Array:
        """Keep the parameters, and return what it predicted last."""
        self.outcome.remarks = self._ask("show", path=str(path))["remarks"]
        with np.load(path) as arrays:
            mark = "parameter "
            found = {name.removeprefix(mark): arrays[name] for name in arrays.files if name.startswith(mark)}
            self.parameters.append(found)
            predictions: Array = arrays["predictions"]
            return predictions

    def close(self) -> None:
        """End its process, if there is one."""
        if self.process is not None:
            self.process.close()
            self.process = None
