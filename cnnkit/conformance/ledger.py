"""The ledger of a backend: `conformance.toml` in its plugin's package, which says where it knowingly deviates.

::

    version = 1
    level = "inference"                        # what the backend claims; left out, it means "training"

    [[deviation]]
    case = "v06.max-pool.ties[float32]"        # one case in one precision; there are no patterns
    kind = "fails"
    stage = "compare"
    error = 5200.0                             # the units seen; of what has no size, the exception's class or "unmeasured"
    reason = "The engine lets every maximum of a tie win"
    issue = "https://example.org/engine/issues/123"
    expiry = 2027-01-31

    [[deviation]]
    feature = "optimizer.adamw"                # refusals whose `feature` is just this id, in every case that needs it
    kind = "refuses"
    reason = "Not written yet"
    issue = "https://example.org/plugin/issues/4"
    expiry = 2027-01-31

It is strict: whatever in it is wrong, out of date or no longer true is a problem, and a problem turns the run red.
"""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cnnkit.conformance.case import LEVELS, Case, Level
from cnnkit.conformance.measure import THRESHOLD
from cnnkit.conformance.report import CaseResult
from cnnkit.conformance.subject import Stage
from cnnkit.errors import OptionError
from cnnkit.files import write_whole

LEDGER_FORMAT: Final = 1
GROWTH: Final = 2.0
"""An error may become this many times what the ledger says before it counts as another one."""
EXPIRES_IN: Final = timedelta(days=90)
LARGEST: Final = 10_000_000
"""Bytes: no ledger is so large."""
UNMEASURED: Final = "unmeasured"
"""The `error` of an answer that is wrong in a way that has no size: its shape, say, or what it does to its inputs."""

HOOK = """\
    @hookimpl
    def cnnkit_deviations():
        return Path(__file__).with_name("conformance.toml")"""


class Deviation(BaseModel):
    """One entry: a case that fails in a known way, or a case or feature that the backend refuses."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    case: str | None = None
    feature: str | None = None
    kind: Literal["fails", "refuses"]
    stage: Stage | None = None
    error: float | str | None = None
    reason: str
    issue: str
    expiry: date

    @model_validator(mode="after")
    def _is_whole(self) -> Deviation:
        if (self.case is None) == (self.feature is None):
            raise ValueError("it needs either case or feature")
        if self.kind == "fails" and (self.case is None or self.stage is None or self.error is None):
            raise ValueError('kind = "fails" needs case, stage and error')
        if self.kind == "fails" and self.stage != "compare" and not isinstance(self.error, str):
            raise ValueError(
                "error is a number of units at the stage compare, and the class of the exception elsewhere"
            )
        if isinstance(self.error, float) and not self.error >= 0:
            raise ValueError("error is a number of units, 0 or more")
        if self.kind == "refuses" and self.stage not in (None, "refuse"):
            raise ValueError('kind = "refuses" has the stage refuse, or none')
        return self

    @property
    def subject(self) -> str:
        """What it is about."""
        return f"feature {self.feature}" if self.case is None else self.case or "a case without a name"

    @property
    def expired(self) -> bool:
        """Whether it no longer holds today."""
        return self.expiry < date.today()  # noqa: DTZ011 - the calendar on the reader's wall is meant

    def is_needed_by(self, result: CaseResult) -> bool:
        """Whether a case needs the feature that it names."""
        return self.feature is not None and self.feature in {*result.features, f"precision.{result.precision}"}

    def excuses(self, result: CaseResult) -> bool:
        """Whether it declares a refusal, and this is that refusal: an `UnsupportedModel`, for its case or by its feature.

        A refusal that names another feature is another one, even in a case that needs this feature too. A backend that
        cannot be created in a precision refuses that precision.
        """
        refused = result.outcome == "refused" or (result.stage == "refuse" and result.error == "UnsupportedModel")
        if self.kind != "refuses" or self.case is not None:
            return self.kind == "refuses" and self.case == result.name and refused
        if result.stage == "load":
            return self.feature == f"precision.{result.precision}" and result.error in _NOT_IN_THIS_PRECISION
        return refused and self.is_needed_by(result) and result.feature == self.feature

    def other_than_said(self, result: CaseResult) -> str:
        """How a failure differs from what the entry says, or nothing."""
        if result.stage != self.stage:
            return f"it fails at the stage {result.stage}, not {self.stage}"
        if isinstance(self.error, str):
            seen = _without_size(result)
            return "" if seen == self.error else f"it fails with {seen}, not {self.error}"
        if result.units is None:
            return f"it fails with {_without_size(result)}, not with an error of a number of units"
        said = self.error or 0.0
        if result.units > GROWTH * max(said, THRESHOLD):
            return f"its error is {result.units:,.0f} units, more than twice the {said:,.0f} of the entry"
        return ""


_NOT_IN_THIS_PRECISION: Final = ("BackendOptionError", "OptionError", "UnsupportedModel")
"""What `cnnkit_create_backend` raises for a precision that it does not have; a crash is no refusal."""


def _without_size(result: CaseResult) -> str:
    """What stands for `error` in the entry of a failure whose size says nothing."""
    if result.error or result.stage != "compare":
        return result.error or "no exception"
    return UNMEASURED if result.units is None else f"an error of {result.units:,.0f} units"


@dataclass(frozen=True)
class Ledger:
    """What the file says. `problems` are what is wrong with it whatever the backend does, one sentence each."""

    path: Path | None = None
    level: Level | None = None
    deviations: tuple[Deviation, ...] = ()
    problems: tuple[str, ...] = ()
    damaged: bool = False
    """Whether there is something in the file that was not understood, and would be lost if it were rewritten."""

    @cached_property
    def _by_case(self) -> Mapping[str, Deviation]:
        return {entry.case: entry for entry in self.deviations if entry.case is not None}

    def entry_for(self, result: CaseResult) -> Deviation | None:
        """The entry by which to expect what becomes of a case: one that names it, or else a feature that it needs."""
        named = self._by_case.get(result.name)
        if named is not None:
            return named
        return next((entry for entry in self.deviations if entry.is_needed_by(result)), None)

    def apply(self, result: CaseResult) -> tuple[CaseResult, str]:
        """What becomes of a result in the light of the ledger, and what that says against the ledger, if anything."""
        entry = self._by_case.get(result.name) or next((e for e in self.deviations if e.excuses(result)), None)
        if result.outcome == "not-run":
            return result, ""
        if entry is None:
            return self._with_advice(result), ""
        excused = {"reason": entry.reason, "issue": entry.issue, "expiry": entry.expiry}
        if result.outcome == "passed":
            return result, self._says(entry, "it passes. Remove the entry")
        if entry.kind == "refuses":
            if not entry.excuses(result):
                return result, self._says(entry, f"it is not refused: {_what_failed(result)}")
            if result.outcome == "refused":
                return result.model_copy(update=excused), ""
            return result.model_copy(update={} if entry.expired else {"outcome": "refused", **excused}), ""
        if result.outcome == "refused":
            return result, self._says(entry, 'it is refused, and no longer fails. Write kind = "refuses"')
        other = entry.other_than_said(result)
        if other:
            return result, self._says(entry, f"{other}. Repair the backend, or look at it anew and correct the entry")
        return result.model_copy(update={} if entry.expired else {"outcome": "deviates", **excused}), ""

    def _with_advice(self, result: CaseResult) -> CaseResult:
        """A refusal that an entry would excuse if it named what the entry names, and that says so."""
        if result.outcome != "failed" or (result.stage, result.error) != ("refuse", "UnsupportedModel"):
            return result
        meant = next((entry.feature for entry in self.deviations if entry.is_needed_by(result)), None)
        if meant is None:
            return result
        advice = f"The ledger's entry for {meant} excuses only refusals of the feature '{meant}', by this very name"
        return result.model_copy(update={"message": f"{result.message}. {advice}"})

    def unused_features(self, results: Sequence[CaseResult], cases: Iterable[Case]) -> list[str]:
        """A sentence for each feature that the ledger says is refused and that no case was refused for.

        What was not tried may still be refused: unless `results` has all of the `cases` that need the feature, there is
        nothing to say.
        """
        cases = tuple(cases)
        return [
            self._says(entry, "no case that needs it was refused for it. Remove the entry")
            for entry in self.deviations
            if self.is_unused(entry, results, cases)
        ]

    def is_unused(self, entry: Deviation, results: Sequence[CaseResult], cases: Sequence[Case]) -> bool:
        """Whether an entry names a feature for which nothing is refused, though everything that needs it was tried."""
        if entry.feature is None:
            return False
        tried = [result for result in results if result.outcome != "not-run" and entry.is_needed_by(result)]
        needing = _names_of(cases, self.level, entry.feature)
        return (
            bool(needing)
            and needing <= {result.name for result in tried}
            and not any(entry.excuses(result) for result in tried)
        )

    def _says(self, entry: Deviation, what: str) -> str:
        return _sentence(self.path, entry.subject, what)


def _names_of(cases: Iterable[Case], level: Level | None, feature: str | None = None) -> set[str]:
    """The cases of a level, in each precision, as an entry writes them; those alone that need a `feature`."""
    levels = LEVELS[: LEVELS.index(level or LEVELS[-1]) + 1]
    return {
        f"{case.id}[{precision}]"
        for case in cases
        if case.level in levels
        for precision in case.precisions
        if feature is None or feature in case.features or feature == f"precision.{precision}"
    }


def read(path: Path | None, cases: Iterable[Case]) -> Ledger:
    """The ledger in the file `path`, None for a plugin without one. Never raises: what is wrong is in `problems`."""
    if path is None:
        return Ledger()
    try:
        found = tomllib.loads(_text(path))
    except FileNotFoundError:
        what = (
            f"cnnkit_deviations names this file, but there is none. Create it with the line: version = {LEDGER_FORMAT}"
        )
        return Ledger(path, problems=(_sentence(path, "", what),))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        problem = _sentence(path, "", f"it cannot be read: {error}. Repair the file")
        return Ledger(path, problems=(problem,), damaged=True)
    problems: list[str] = []
    level = _read_top(path, found, problems)
    deviations = _read_entries(path, found.get("deviation", []), problems)
    damaged = bool(problems)
    problems += _static_problems(path, level, deviations, tuple(cases))
    return Ledger(path, level, tuple(deviations), tuple(problems), damaged)


def _text(path: Path) -> str:
    """What is in the file. Raises `OSError` too for what would never end, such as a pipe."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    if status.st_size > LARGEST:
        raise OSError(f"it has {status.st_size:,} bytes, and a ledger at most {LARGEST:,}")
    return path.read_text(encoding="utf-8")


def _read_top(path: Path, found: Mapping[str, Any], problems: list[str]) -> Level | None:
    unknown = sorted(found.keys() - {"version", "level", "deviation"})
    problems += [_sentence(path, "", f"it has the unknown key {key}. Remove it") for key in unknown]
    if found.get("version") != LEDGER_FORMAT or type(found["version"]) is not int:
        what = (
            f"version is {found.get('version')!r}; expected {LEDGER_FORMAT}. Write version = {LEDGER_FORMAT} at the top"
        )
        problems.append(_sentence(path, "", what))
    match level := found.get("level"):
        case None | "inference" | "training":
            return level
    problems.append(_sentence(path, "", f'level is {level!r}; expected "inference" or "training". Correct it'))
    return None


def _read_entries(path: Path, found: Any, problems: list[str]) -> list[Deviation]:
    if not isinstance(found, list):
        problems.append(_sentence(path, "", "deviation is no list of tables. Write each as [[deviation]]"))
        return []
    entries = []
    for number, table in enumerate(found, start=1):
        subject = f"entry {number}"
        try:
            if isinstance(table, dict):
                named = table.get("case", table.get("feature"))
                subject += f", {named}" if named else ""
            entries.append(Deviation.model_validate(table))
        except ValidationError as error:
            # A union is at fault once for each of its members; the first says enough.
            faults = {str(fault["loc"][0]) if fault["loc"] else "": fault for fault in reversed(error.errors())}
            for key, fault in reversed(faults.items()):
                said = fault["msg"].removeprefix("Value error, ")
                said = said[:1].lower() + said[1:]
                what = "is no key of an entry" if fault["type"] == "extra_forbidden" else said
                problems.append(_sentence(path, subject, f"{key} {what}. Correct the entry".strip()))
    return entries


def _static_problems(path: Path, level: Level | None, entries: Sequence[Deviation], cases: Sequence[Case]) -> list[str]:
    known, tried = _names_of(cases, None), _names_of(cases, level)
    features = {feature for case in cases for feature in case.features}
    features |= {f"precision.{precision}" for case in cases for precision in case.precisions}
    problems = []
    seen: set[str] = set()
    for entry in entries:
        found = []
        if entry.subject in seen:
            found.append("it is listed twice. Remove one of the entries")
        seen.add(entry.subject)
        if entry.case is not None and entry.case not in known:
            found.append("the suite has no such case, and a precision belongs to its name. Correct or remove the entry")
        if entry.feature is not None and entry.feature not in features:
            found.append("the suite has no such feature. Correct or remove the entry")
        elif entry.feature is not None and not _names_of(cases, level, entry.feature):
            found.append(f'no case of the level "{level}", which the ledger claims, needs it. Remove the entry')
        if entry.case in known - tried:
            found.append(f'the level "{level}", which the ledger claims, does not have this case. Remove the entry')
        if entry.expired:
            found.append(f"it expired on {entry.expiry}. Repair the backend, or say anew until when it may deviate")
        if not entry.reason.strip():
            found.append("it has no reason. Write in `reason` why the backend deviates")
        if not _is_url(entry.issue):
            found.append(
                f"its issue is {entry.issue!r}, which is no URL. Write in `issue` where it is being followed up"
            )
        problems += [_sentence(path, entry.subject, what) for what in found]
    return problems


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _sentence(path: Path | None, subject: str, what: str) -> str:
    return f"{path}: {subject}: {what}." if subject else f"{path}: {what}."


def only_predicts(path: Path | None) -> str:
    """What to do about a backend that does not train."""
    file = path or "a conformance.toml"
    return f'Judge it with --level inference, or write level = "inference" at the top of its ledger, {file}.'


def _what_failed(result: CaseResult) -> str:
    how = f" with {result.error}" if result.error else ""
    return f"it fails at the stage {result.stage}{how}. Repair the backend, or correct the entry"


# ------------------------------------------------------------------------------------------------------------ updating


def require_writable(name: str, ledger: Ledger) -> None:
    """Raise `OptionError` if there is no file to update, or one that an update would take something from."""
    if ledger.path is None:
        raise OptionError(
            f"the plugin of '{name}' has no ledger to update. Add this hook to its module, and ship the file in its "
            f"package:\n\n    from pathlib import Path\n\n{HOOK}\n"
        )
    if ledger.damaged:
        raise OptionError(f"the ledger is not updated, for something in it would be lost. {' '.join(ledger.problems)}")


def update(ledger: Ledger, results: Sequence[CaseResult], cases: Iterable[Case]) -> list[str]:
    """Rewrite the file of `ledger` to what `results` found; returns what was changed, a line each.

    What still deviates as the ledger says, and what was not tried, is kept as it is. What passes is dropped. What fails
    is added, its reason and issue empty, so that the run stays red until somebody has written them. Raises `OSError`.
    """
    assert ledger.path is not None  # noqa: S101 - see require_writable
    cases = tuple(cases)
    known = _names_of(cases, None)
    by_name = {result.name: result for result in results}
    kept, changes = [], []
    for entry in ledger.deviations:
        why = "the suite has no such case" if entry.case is not None and entry.case not in known else ""
        why = why or ("no case was refused for it" if ledger.is_unused(entry, results, cases) else "")
        why = why or _why_dropped(entry, by_name.get(str(entry.case)))
        if why or entry in kept:
            changes.append(f"dropped {entry.subject}: {why or 'it is listed twice'}")
        else:
            kept.append(entry)
    there = {entry.case for entry in kept}
    for result in results:
        # A backend that could not be loaded, or was asked for what it does not claim, has not deviated anywhere.
        hopeless = result.error == "TrainingNotSupported" or result.stage == "load"
        declared = any(entry.excuses(result) for entry in kept)
        if result.outcome == "failed" and not hopeless and not declared and result.name in known - there:
            kept.append(_new_entry(result))
            changes.append(f"added {result.name}: {kept[-1].kind} at the stage {result.stage}")
    top = {"version": LEDGER_FORMAT, **({} if ledger.level is None else {"level": ledger.level})}
    tables = [entry.model_dump(exclude_none=True) for entry in kept]
    if changes or not ledger.path.exists():  # else it is as somebody has written it, comments and all
        write_whole(ledger.path, tomli_w.dumps({**top, **({"deviation": tables} if tables else {})}).encode())
    return changes


def _new_entry(result: CaseResult) -> Deviation:
    refuses = result.stage == "refuse" and result.error == "UnsupportedModel"
    measured = result.stage == "compare" and result.units is not None
    error = float(f"{result.units:.4g}") if measured else result.error if refuses else _without_size(result)
    return Deviation(
        case=result.name,
        kind="refuses" if refuses else "fails",
        stage=result.stage,
        error=error,
        reason="",
        issue="",
        expiry=date.today() + EXPIRES_IN,  # noqa: DTZ011 - as in `expired`
    )


def _why_dropped(entry: Deviation, result: CaseResult | None) -> str:
    """Why what was found about the case of an entry leaves no room for it, or nothing."""
    if result is None or result.outcome in ("not-run", "deviates"):
        return ""
    if result.outcome == "passed":
        return "it passes"
    if result.outcome == "refused":
        return "it is refused" if entry.kind == "fails" else ""
    # An entry that has expired may still be right, and stays for somebody to give it a new date.
    as_said = entry.excuses(result) if entry.kind == "refuses" else not entry.other_than_said(result)
    return "" if as_said else "it fails otherwise"
