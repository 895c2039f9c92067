"""Running the suite: one process for the backend, a time limit for everything, and a report whatever happens."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

import cnnkit
from cnnkit import plugins
from cnnkit.conformance import SUITE_VERSION, ledger
from cnnkit.conformance.case import Level, Tier
from cnnkit.conformance.ledger import Ledger
from cnnkit.conformance.process import Ended, Lost, SuiteFault, WorkerProcess
from cnnkit.conformance.report import CaseResult, Report, reasons_against, reasons_for_red
from cnnkit.conformance.selection import (
    PRECISIONS,
    NoBackend,
    Pair,
    cases_of,
    check_level,
    check_precisions,
    check_tier,
    covering_order,
    load_result,
    pairs,
    selected,
    suite_cases,
    tried,
    untried,
)
from cnnkit.errors import BackendOptionError, OptionError

LOAD_LIMIT: Final = 60.0
"""Seconds in which a plugin is loaded, and in which a backend is created: importing an engine takes its time."""

LONGEST: Final = 86_400
"""Seconds that may be asked for: a day. Timers of the operating system end somewhere."""

CRASHES_IN_A_ROW: Final = 5
"""After so many crashes or hangs, one after the other, the rest is not tried."""

SAVING_LIMIT: Final = 20.0
"""Seconds that go into making the files of failures small; what fails after that is written down as it is.

After twice as long, what fails has no file, and says so.
"""

Listener: TypeAlias = Callable[[int, int, CaseResult], None]
"""Is told how many cases have been tried, of how many, and what became of the last one."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is asked for; see `run`. With `needs_ledger`, a ledger that could not be rewritten is an error at once."""

    name: str
    level: Level | None = None
    precisions: tuple[str, ...] = PRECISIONS
    device: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    budget: float | None = None
    fail_fast: bool = False
    time_limit: float = 60.0
    explore: int = 0
    folder: Path | None = None
    progress: Listener | None = None
    only: tuple[str, ...] = ()
    needs_ledger: bool = False
    tier: Tier = "run"

    def __post_init__(self) -> None:
        check_tier(self.tier)
        object.__setattr__(self, "level", check_level(self.level))
        object.__setattr__(self, "precisions", check_precisions(self.precisions))
        for what, seconds in (("budget", self.budget), ("time_limit", self.time_limit)):
            if seconds is not None and not 0 < seconds <= LONGEST:
                raise OptionError(f"{what} is {seconds!r}; expected seconds, more than 0 and at most {LONGEST:,}.")
        if self.tier == "plan" and self.needs_ledger:
            raise OptionError("the ledger tells of what the tier run finds. Rewrite it after a run of that tier.")
        if self.explore < 0:
            raise OptionError(f"explore is {self.explore!r}; expected a number of models, 0 or more.")
        try:
            json.dumps(dict(self.options))
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"options is {self.options!r}; expected texts, numbers, true and false: {error}."
            ) from error


def run(
    name: str,
    *,
    level: str | None = None,
    precisions: Sequence[str] = PRECISIONS,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    budget: float | None = None,
    fail_fast: bool = False,
    time_limit: float = 60.0,
    explore: int = 0,
    folder: str | Path | None = None,
    progress: Listener | None = None,
    only: Sequence[str] = (),
    tier: str = "run",
) -> Report:
    """Judge the backend `name` by the conformance suite, in a process of its own.

    Args:
        name: The backend's name, as `cnnkit backends` lists it.
        level: "inference" or "training"; None is what the backend's ledger claims, or else "training".
        precisions: In which precisions.
        device: One of the backend's devices; None is its own choice.
        options: The backend's options.
        seed: What the models of `explore` are drawn from.
        budget: Stop after so many seconds; the cases are then tried in an order that covers every feature early.
        fail_fast: Stop at the first failure.
        time_limit: Seconds for one case, after which the process is killed and the case has failed.
        explore: So many random models more.
        folder: Where a file is written for each failure, which `cnnkit repro` replays; None for no files.
        progress: Called after every case: how many were tried, of how many, and the result.
        only: Try only the cases whose id matches one of these patterns. Such a run is never green: if all of them ran
            and nothing is wrong with them or the ledger, it is partial.
        tier: "run" is everything that computes. "plan" is what can be proved without the device: the probe, refusals,
            shapes, compilation. Its report is never green: where all holds, its verdict is "plan".

    Ctrl-C ends the run, not the report: what was not tried is `not-run`, and the report is red.

    Raises:
        BackendNotFound: No plugin registers the name.
        OptionError: An argument or an option of the backend is wrong.
    """
    settings = Settings(
        name=name,
        level=check_level(level),
        precisions=tuple(precisions) if not isinstance(precisions, str) else check_precisions(precisions),
        device=device,
        options=dict(options or {}),
        seed=seed,
        budget=budget,
        fail_fast=fail_fast,
        time_limit=time_limit,
        explore=explore,
        folder=None if folder is None else Path(folder),
        progress=progress,
        only=(only,) if isinstance(only, str) else tuple(only),
        tier=check_tier(tier),
    )
    return conduct(settings)[0]


def conduct(settings: Settings) -> tuple[Report, Ledger]:
    """The report of a run, and the ledger that it was judged by."""
    if settings.name not in plugins.backend_names():
        plugins.status(settings.name)  # raises the error that says which there are
    conductor = _Conductor(settings)
    try:
        conductor.conduct()
    except KeyboardInterrupt:
        conductor.stopped = "The run was interrupted."
    finally:
        conductor.close()
    return conductor.report(), conductor.ledger


class _Conductor:
    """One run: its worker, restarted as needed, and the results so far."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started = datetime.now(UTC)
        self.began = time.monotonic()
        self.worker: WorkerProcess | None = None
        self.loaded: dict[str, Any] = {}
        """What the plugin said of itself when it was loaded."""
        self.there: set[str] = set()
        """The precisions in which the worker that runs has a backend."""
        self.missing: dict[str, dict[str, Any]] = {}
        """The precisions in which there is none to be had, and why."""
        self.level: Level = settings.level or "training"
        self.ledger = Ledger()
        self.problems: list[str] = []
        self.results: dict[str, CaseResult] = {}
        self.crashes = 0
        self.saving = 0.0
        self.chosen: list[Pair] = []
        """What is to be tried, of all that there is."""
        self.over_budget = False
        self.stopped = ""
        self.compiled: dict[str, set[str]] = {"kernels": set(), "compiled_for": set()}
        """What rehearsals have compiled, and for which targets."""

    def conduct(self) -> None:
        """Try everything that is to be tried."""
        self.worker = WorkerProcess()  # it imports the cases while we do
        cases = cases_of(self.settings.tier, self.settings.explore, self.settings.seed)
        self._load()
        self._read_ledger()
        found = pairs(cases, self.level, self.settings.precisions)
        self.results = {result.name: result for result in map(untried, found)}
        chosen = self.chosen = selected(found, self.settings.only) if self.settings.only else found
        if not self.loaded["ready"]:
            self.stopped = f"Backend '{self.settings.name}' could not be loaded: the first failure says why."
            self._record(load_result(chosen[0], self.loaded), 1, len(chosen))
            return
        for precision in self.settings.precisions:
            self._has_backend(precision)
        self._reject_wrong_options()
        self._clear_folder()
        order = chosen if self.settings.budget is None else covering_order(chosen)
        for count, pair in enumerate(order, start=1):
            if self._is_over():
                break
            self._record(self._try(pair), count, len(order))

    def _load(self) -> None:
        assert self.worker is not None  # noqa: S101 - it has just been started
        try:
            self.loaded = self.worker.ask(3 * LOAD_LIMIT, **self._start_request())
        except Lost as lost:
            self.loaded = {"ready": False, **_without_answer("the plugin was loaded", lost)}
            self.close()

    def _read_ledger(self) -> None:
        path, problem = self.loaded.get("ledger"), self.loaded.get("ledger_problem")
        self.ledger = ledger.read(None if path is None else Path(path), suite_cases())
        self.problems += [*([problem] if problem else []), *self.ledger.problems]
        if self.settings.needs_ledger and self.loaded["ready"]:
            ledger.require_writable(self.settings.name, self.ledger)
        self.level = self.settings.level or self.ledger.level or "training"

    def _reject_wrong_options(self) -> None:
        """A mistake in the backend's options is the caller's, and no finding about the backend."""
        wrong = [answer for answer in self.missing.values() if answer.get("wrong_use")]
        if self.settings.options and len(wrong) == len(self.settings.precisions):
            raise BackendOptionError(wrong[0]["message"])

    def _clear_folder(self) -> None:
        """Take away what an earlier run found of the cases of this one, so that no file tells of a failure that is gone."""
        from cnnkit.conformance.repro import remove_earlier

        if self.settings.tier == "run" and self.settings.folder is not None and self.settings.folder.is_dir():
            names = {(case.id, precision) for case, precision in self.chosen} if self.settings.only else None
            remove_earlier(self.settings.folder, self.settings.name, names)

    def _is_over(self) -> bool:
        if self.settings.fail_fast and any(result.outcome == "failed" for result in self.results.values()):
            self.stopped = "The run was stopped at the first failure."
        elif self.crashes >= CRASHES_IN_A_ROW:
            self.stopped = f"The run was stopped after {self.crashes} crashes or hangs in a row."
        elif self.settings.budget is not None:
            self.over_budget = time.monotonic() - self.began > self.settings.budget
        return bool(self.stopped) or self.over_budget

    # ------------------------------------------------------------------------------------------------------- the worker

    def _start_request(self) -> dict[str, Any]:
        wanted = self.settings
        return {
            "ask": "start",
            "name": wanted.name,
            "device": wanted.device,
            "options": dict(wanted.options),
            "explore": wanted.explore,
            "seed": wanted.seed,
            "tier": wanted.tier,
        }

    def _has_backend(self, precision: str) -> bool:
        """Whether there is a worker with a backend in this precision, after starting what has to be started."""
        if precision in self.missing:
            return False
        if self.worker is not None and precision in self.there:
            return True
        try:
            if self.worker is None:
                self.worker = WorkerProcess()
                self.worker.ask(3 * LOAD_LIMIT, **self._start_request())
            answer = self.worker.ask(LOAD_LIMIT, ask="create", precision=precision)
        except Lost as lost:
            answer = {"ready": False, **_without_answer("the backend was created", lost)}
            self.close()
        if answer["ready"]:
            self.there.add(precision)
        else:
            self.missing[precision] = answer
        return bool(answer["ready"])

    def close(self) -> None:
        """Be done with the worker; if there is more to do, another one is started."""
        worker, self.worker = self.worker, None
        self.there.clear()
        if worker is not None:
            worker.close()

    # -------------------------------------------------------------------------------------------------------- the cases

    def _try(self, pair: Pair) -> CaseResult:
        case, precision = pair
        if not self._has_backend(precision):
            return load_result(pair, self.missing[precision])
        assert self.worker is not None  # noqa: S101 - it has the backend
        limit, begin = self.settings.time_limit, time.monotonic()
        try:
            found = self.worker.ask(limit, ask="judge", case=case.id, precision=precision, time_limit=limit)
        except Lost as lost:  # a fault of the suite too: an engine may have broken what the two of them share
            self.close()
            self.crashes += 1
            seconds = time.monotonic() - begin
            answer = _without_answer("the case was tried", lost)
            return tried(pair, {"outcome": "failed", "stage": lost.stage, "seconds": seconds, **answer})
        self.crashes = 0
        for what, names in found.pop("compiled", {}).items():
            self.compiled[what].update(names)
        return tried(pair, found)

    def _record(self, result: CaseResult, count: int, total: int) -> None:
        """Take a result as the ledger reads it, and write the file that repeats a failure."""
        result, problem = self.ledger.apply(result)
        self.problems += [problem] if problem else []
        if result.outcome == "failed" and self.settings.folder is not None:
            result = self._saved(result, self.settings.folder)
        self.results[result.name] = result
        if self.settings.progress is not None:
            self.settings.progress(count, total, result)

    def _saved(self, result: CaseResult, folder: Path) -> CaseResult:
        if self.settings.tier == "plan" or result.stage == "load" or result.error == "TrainingNotSupported":
            return result  # there is nothing to repeat
        if self.saving > 2 * SAVING_LIMIT:
            message = f"{result.message} (No file repeats it: those of other failures have taken {self.saving:.0f} s.)"
            return result.model_copy(update={"message": message})
        begin = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.worker is not None:
                # The engine may have gone to another folder.
                saved = self.worker.ask(
                    LOAD_LIMIT, ask="save", folder=str(folder.absolute()), smaller=self.saving <= SAVING_LIMIT
                )["path"]
                path = str(folder / Path(saved).name)
            else:
                path = str(_save_without_backend(folder, self.settings.name, result))
        except (OSError, SuiteFault) as error:
            return result.model_copy(update={"message": f"{result.message} (No file repeats it: {error})"})
        except Ended as ended:
            self.close()
            message = f"{result.message} (No file repeats it: while it was made smaller, {ended}.)"
            return result.model_copy(update={"message": message})
        finally:
            self.saving += time.monotonic() - begin
        return result.model_copy(update={"repro": path})

    # ------------------------------------------------------------------------------------------------------- the report

    def report(self) -> Report:
        """What was found out, whether the run came to its end or not."""
        results = list(self.results.values())
        wanted = self.settings
        self.problems += self.ledger.unused_features(results, cases_of(wanted.tier))
        reasons = [self.stopped] if self.stopped else []
        reasons += _faults_of_the_suite(results)
        if wanted.only:
            selection = [self.results[f"{case.id}[{precision}]"] for case, precision in self.chosen]
            reasons += reasons_against(selection, self.problems)
        else:
            reasons += reasons_for_red(results, self.problems, within_budget=self.over_budget)
        reasons += self._only_predicts(results)
        reasons += self._has_no_device()
        partial = bool(wanted.only) or any(result.outcome == "not-run" for result in results)
        versions = {"cnnkit": cnnkit.__version__, "python": platform.python_version(), "numpy": np.__version__}
        return Report(
            suite=SUITE_VERSION,
            backend=wanted.name,
            distribution=self.loaded.get("distribution", ""),
            tier=wanted.tier,
            level=self.level,
            precisions=wanted.precisions,
            device=wanted.device or (_choice_of(self.loaded.get("devices", ())) if wanted.tier == "run" else None),
            device_given=wanted.device is not None,
            probed=": ".join(filter(None, [self.loaded.get("state", ""), self.loaded.get("reason", "")])),
            kernels=tuple(sorted(self.compiled["kernels"])),
            compiled_for=tuple(sorted(self.compiled["compiled_for"])),
            options={name: str(value) for name, value in wanted.options.items()},
            only=wanted.only,
            seed=wanted.seed,
            started=self.started.isoformat(timespec="seconds"),
            seconds=time.monotonic() - self.began,
            versions=versions | self.loaded.get("versions", {}),
            platform=platform.platform(),
            ledger=None if self.ledger.path is None else str(self.ledger.path),
            ledger_problems=tuple(self.problems),
            cases=tuple(results),
            verdict="red" if reasons else "partial" if partial else "plan" if wanted.tier == "plan" else "green",
            reasons=tuple(reasons),
        )

    def _only_predicts(self, results: Sequence[CaseResult]) -> list[str]:
        if not any(result.error == "TrainingNotSupported" and result.outcome == "failed" for result in results):
            return []
        says = f"Backend '{self.settings.name}' only predicts: its compile_training raises TrainingNotSupported."
        return [f"{says} {ledger.only_predicts(self.ledger.path)}"]

    def _has_no_device(self) -> list[str]:
        """What can be done about a backend whose device is elsewhere; nothing if that is not what is wrong."""
        states = [self.loaded.get("state"), *(answer.get("state") for answer in self.missing.values())]
        if self.settings.tier == "plan" or "no-device" not in states:
            return []
        command = f"cnnkit conformance {self.settings.name} --tier plan"
        return [f"The device is not here: `{command}` says what can be said without it."]


def _choice_of(devices: Sequence[str]) -> str | None:
    """What a backend without orders runs on, which only it knows if there are several devices."""
    return f"the backend's choice of {', '.join(devices)}" if len(devices) > 1 else next(iter(devices), None)


def _faults_of_the_suite(results: Sequence[CaseResult]) -> list[str]:
    faulty = [result for result in results if result.outcome == "not-run" and result.message]
    if not faulty:
        return []
    many = f"{len(faulty)} cases prove" if len(faulty) > 1 else "1 case proves"
    return [f"{many} nothing, {faulty[0].name} first. {faulty[0].message}."]


def _without_answer(doing: str, lost: Lost) -> dict[str, Any]:
    return {"message": f"While {doing}, {lost}.", "error": lost.error, "traceback": lost.traceback}


def _save_without_backend(folder: Path, name: str, result: CaseResult) -> Path:
    """Write the file for a crash or a hang, which has taken the backend with it."""
    from cnnkit.conformance.judging import Verdict
    from cnnkit.conformance.repro import save_failure

    return save_failure(
        folder,
        case_id=result.id,
        precision=result.precision,
        backend_name=name,
        backend=NoBackend(),
        refuses=None,
        verdict=Verdict("failed", result.seconds, None, result.stage, result.message, result.error, result.traceback),
    )
