"""Training, and prediction, at one batch size by all contestants, who must learn and predict the same."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.arrays import Array, Parameters
from cnnkit.bench.batches.agreement import Shown, differences, wrong_predictions
from cnnkit.bench.batches.workload import Workload
from cnnkit.bench.gpu.budget import Deadline
from cnnkit.bench.gpu.results import StepCell
from cnnkit.bench.gpu.rounds import Asked, Runner, Told, compare, go_round, let_go


def measure_training(
    workload: Workload, asked: Sequence[Asked], rounds: int, deadline: Deadline, told: Told = lambda _: None
) -> tuple[list[StepCell], bool]:
    """Epochs at one batch size by all contestants, who must learn the same; and whether there was time for all rounds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shown.npz"

        def first(runner: Runner) -> None:
            told(f"batch {workload.batch_size}: {runner.contestant.title}")
            _prepare(runner, workload)
            runner.first = _train(runner)
            runner.shown.append(_show(runner, path)[0])

        def once(runner: Runner) -> None:
            runner.rounds["train"].append(_train(runner))

        runners = [Runner(process, rounds={"train": []}) for process in asked]
        for runner in runners:
            runner.attempt(first)
        whole = go_round(runners, rounds, deadline, once)
        for runner in runners:
            runner.attempt(lambda it: it.shown.append(_show(it, path)[0]))
    compare(runners, lambda one, other: differences(workload, _shown(one), _shown(other)))
    let_go(runners)
    return [_step_cell(runner, workload, "train") for runner in runners], whole


def measure_inference(
    workload: Workload, asked: Sequence[Asked], rounds: int, deadline: Deadline, told: Told = lambda _: None
) -> tuple[list[StepCell], bool]:
    """Prediction of all images by all contestants, judged by the default backend; and whether there was time for all rounds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shown.npz"

        def first(runner: Runner) -> None:
            told(f"inference, batch {workload.batch_size}: {runner.contestant.title}")
            _prepare(runner, workload)
            runner.first = _predict(runner)

        def last(runner: Runner) -> None:
            parameters, predictions = _show(runner, path)
            runner.problems += wrong_predictions(workload, parameters, predictions)

        runners = [Runner(process, rounds={"predict": []}) for process in asked]
        for runner in runners:
            runner.attempt(first)
        whole = go_round(runners, rounds, deadline, lambda it: it.rounds["predict"].append(_predict(it)))
        for runner in runners:
            runner.attempt(last)
    let_go(runners)
    return [_step_cell(runner, workload, "predict") for runner in runners], whole


def _prepare(runner: Runner, workload: Workload) -> None:
    answer = runner.process.ask("prepare", workload=workload.to_dict(), options=dict(runner.contestant.options))
    runner.process.versions.update(answer["versions"])


def _train(runner: Runner) -> float:
    answer = runner.process.ask("train")
    runner.losses.append(answer["loss"])
    return _seconds(runner, answer)


def _predict(runner: Runner) -> float:
    return _seconds(runner, runner.process.ask("predict"))


def _seconds(runner: Runner, answer: dict[str, Any]) -> float:
    runner.mib = max(runner.mib or 0.0, answer["device_mib"])
    seconds: float = answer["seconds"]
    return seconds


def _show(runner: Runner, path: Path) -> tuple[Parameters, Array]:
    """The parameters, and what was predicted last, empty if nothing was."""
    runner.process.ask("show", path=str(path))
    mark = "parameter "
    with np.load(path) as arrays:
        found = {name.removeprefix(mark): arrays[name] for name in arrays.files if name.startswith(mark)}
        return found, arrays["predictions"] if "predictions" in arrays.files else np.empty(0)


def _shown(runner: Runner) -> Shown:
    first, last = runner.shown
    return Shown(runner.losses, first, last, draws_masks=False)


def _step_cell(runner: Runner, workload: Workload, what: str) -> StepCell:
    return StepCell(
        **runner.measured(),
        batch=workload.batch_size,
        images=workload.count,
        rounds=tuple(runner.rounds[what]),
        first_s=runner.first,
        device_mib=runner.mib,
    )
