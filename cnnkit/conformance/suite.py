"""The suite as tests of a plugin's own repository.

::

    import pytest
    from cnnkit.conformance import cases, check

    @pytest.mark.parametrize("case", cases("mybackend"), ids=str)
    def test_conformance(case):
        check(case)

The backend runs in the process of the tests. pytest is not needed: any tool that knows AssertionError and SkipTest will do.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final
from unittest import SkipTest

from cnnkit import plugins
from cnnkit.backend import Backend
from cnnkit.conformance import ledger
from cnnkit.conformance.case import Case, Level, Tier
from cnnkit.conformance.judging import judge, judge_on
from cnnkit.conformance.ledger import Ledger, only_predicts
from cnnkit.conformance.measure import THRESHOLD, CaseFault
from cnnkit.conformance.plugin_subject import PluginSubject, can_be_planned
from cnnkit.conformance.refusals import refused_precision, refuses, says_nothing
from cnnkit.conformance.report import CaseResult, reasons_for_red
from cnnkit.conformance.reports.digest import units_in_words
from cnnkit.conformance.selection import (
    PRECISIONS,
    NoBackend,
    Pair,
    cases_of,
    check_level,
    check_precisions,
    check_tier,
    load_result,
    pairs,
    replay_command,
    suite_cases,
    tried,
    untried,
)
from cnnkit.errors import BackendUnavailable, CnnkitError

_LEDGER, _ENOUGH = "suite.ledger", "suite.enough-ran"


class ConformanceFailure(AssertionError):
    """A backend, or its ledger, is not as the suite demands. The message can be read without knowing the suite."""


@dataclass(frozen=True)
class BoundCase:
    """A case, and the backend that it is tried on in one precision."""

    case: Case
    backend: str
    precision: str
    level: Level = "training"
    precisions: tuple[str, ...] = PRECISIONS
    device: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    tier: Tier = "run"

    def __str__(self) -> str:
        return f"{self.case.id}[{self.precision}]" if self.precision else self.case.id

    @property
    def pair(self) -> Pair:
        """The case and the precision."""
        return self.case, self.precision


def cases(
    name: str,
    level: str | None = None,
    precisions: Sequence[str] = PRECISIONS,
    device: str | None = None,
    tier: str = "run",
    **options: Any,
) -> list[BoundCase]:
    """Every case for the backend `name`, to be given to `check` one by one. No engine is imported.

    The last two are about the run as a whole: `suite.ledger` fails where something is wrong with the ledger, and
    `suite.enough-ran` where too little of the suite is passed.

    Args:
        name: The backend's name, as `cnnkit backends` lists it.
        level: "inference" or "training"; None is what the backend's ledger claims, or else "training".
        precisions: In which precisions.
        device: One of the backend's devices; None is its own choice.
        tier: "run" is everything that computes; "plan" what can be proved without the device.
        options: The backend's options.

    Raises:
        BackendNotFound: No plugin registers the name.
        OptionError: `level`, `precisions` or `tier` is wrong.
    """
    if name not in plugins.backend_names():
        plugins.status(name)  # raises the error that says which there are
    wanted = check_precisions(precisions)
    claimed = check_level(level) or _ledger(name).level or "training"
    chosen = check_tier(tier)
    found = [*pairs(cases_of(chosen), claimed, wanted), (_pseudo_case(_LEDGER), ""), (_pseudo_case(_ENOUGH), "")]
    return [BoundCase(case, name, precision, claimed, wanted, device, options, chosen) for case, precision in found]


def check(bound: BoundCase) -> None:
    """Try a case. Returns if it passes.

    Raises:
        ConformanceFailure: It fails, or the ledger says something else of it than what is so.
        unittest.SkipTest: It is refused or fails as was said beforehand; pytest shows it as skipped.
    """
    __tracebackhide__ = True  # pytest shows the message, not these lines
    if bound.case.id == _LEDGER:
        _check_ledger(bound)
    elif bound.case.id == _ENOUGH:
        _check_enough_ran(bound)
    else:
        result, problem = _ledger(bound.backend).apply(_result(bound))
        _RECORDED[_key(bound, bound.pair)] = result
        if result.outcome == "failed":
            raise ConformanceFailure(_describe(bound, result, problem))
        if problem:
            raise ConformanceFailure(problem)
        if result.outcome in ("refused", "deviates"):
            raise SkipTest(_why_skipped(result))


# ------------------------------------------------------------------------------------------------------------ one case

_RECORDED: Final[dict[tuple[Any, ...], CaseResult]] = {}
"""What has been found out in this process."""


def _key(bound: BoundCase, pair: Pair) -> tuple[Any, ...]:
    return bound.backend, bound.device, repr(sorted(bound.options.items())), pair[0].id, pair[1]


def _result(bound: BoundCase) -> CaseResult:
    if bound.tier == "plan":
        return _planned(bound)
    made = _backend(bound.backend, bound.device, bound.precision, _Options(bound.options))
    if not isinstance(made, Backend):
        return load_result(bound.pair, made)
    try:
        verdict = judge(bound.case, made, bound.precision, refuses(bound.backend, bound.device, bound.precision))
    except CaseFault as fault:
        raise CaseFault(f"{bound}: the suite itself is at fault, not backend '{bound.backend}': {fault}") from fault
    return tried(bound.pair, {key: value for key, value in vars(verdict).items() if key != "question"})


def _planned(bound: BoundCase) -> CaseResult:
    found = _plugin(bound.backend, bound.device, bound.precision, _Options(bound.options))
    if not isinstance(found, PluginSubject):
        return load_result(bound.pair, found)
    verdict = judge_on(bound.case, found)
    return tried(bound.pair, {key: value for key, value in vars(verdict).items() if key != "question"})


@cache
def _plugin(name: str, device: str | None, precision: str, options: _Options) -> PluginSubject | Mapping[str, Any]:
    """The plugin in a precision, to be judged without its device; or why there is none."""
    status = plugins.status(name, device)
    if not can_be_planned(status):
        return {"message": str(plugins.unavailable(status)), "error": status.state}
    refused = refused_precision(name, device, precision)
    return {"refused": True, "message": refused} if refused else PluginSubject(name, device, precision, options, status)


class _Options(dict[str, Any]):
    """Options that a cache can tell apart."""

    def __hash__(self) -> int:  # type: ignore[override] # nobody changes them
        return hash(repr(sorted(self.items())))


@cache
def _backend(name: str, device: str | None, precision: str, options: _Options) -> Backend | Mapping[str, Any]:
    """The backend in a precision, the same one for all cases; or why there is none."""
    refused = refused_precision(name, device, precision)
    if refused:
        return {"refused": True, "message": refused}
    try:
        return plugins.get_backend(name, device, precision, **options)
    except CnnkitError as error:
        return {"message": str(error), "error": type(error).__name__}


@cache
def _ledger(name: str) -> Ledger:
    """The ledger of a plugin; an empty one for a plugin that cannot be loaded, whose every case says so."""
    try:
        path = plugins.deviations(name)
    except BackendUnavailable as error:
        return Ledger(problems=(str(error),) if plugins.status(name).ready else ())
    return ledger.read(path, suite_cases())


def _why_skipped(result: CaseResult) -> str:
    what = "refused, as said beforehand" if result.outcome == "refused" else "fails, as the ledger says"
    return f"{what}: {' '.join(filter(None, (result.reason or result.message, result.issue)))}"


def _describe(bound: BoundCase, result: CaseResult, problem: str) -> str:
    replay = replay_command(
        bound.backend, result, level=bound.level, device=bound.device, options=bound.options, tier=bound.tier
    )
    parts = [
        ("claim", result.claim),
        ("stage", _STAGES[result.stage or "compare"]),
        ("found", result.message),
        ("units", _units(result)),
        ("ledger", problem),
        ("advice", only_predicts(_ledger(bound.backend).path) if result.error == "TrainingNotSupported" else ""),
        ("replay", replay),
    ]
    lines = [f"backend '{bound.backend}' does not conform: {bound}"]
    lines += [textwrap.indent(text, " " * 10).replace(" " * 10, f"  {what:8}", 1) for what, text in parts if text]
    return "\n".join([*lines, "", result.traceback]).rstrip()


_STAGES = {
    "load": "load (the backend was not to be had)",
    "refuse": "refuse (the backend does not take the model, and had not said so beforehand)",
    "compile": "compile (making the program failed)",
    "run": "run (the program raised an exception)",
    "compare": "compare (the answer is not right)",
    "crash": "crash (the process ended)",
    "timeout": "timeout (there was no answer in time)",
}


def _units(result: CaseResult) -> str:
    if result.stage != "compare" or not result.units:
        return ""
    return (
        f"1 unit is what rounding alone would do, in {result.precision}; up to {THRESHOLD:g} are right, "
        f"{units_in_words(result.units)} are the worst that was seen"
    )


# ------------------------------------------------------------------------------------------------- the run as a whole


def _pseudo_case(name: str) -> Case:
    claims = {
        _LEDGER: "The ledger says nothing that is out of date, unfounded or not understood",
        _ENOUGH: "Enough of the suite is passed to call the backend right",
    }
    return Case(name, claims[name], "inference", frozenset(), _not_tried_alone, precisions=())


def _not_tried_alone(_: object) -> None:
    raise AssertionError("this is a case about the run, for `check` alone")


def _check_ledger(bound: BoundCase) -> None:
    found, cases = _ledger(bound.backend), cases_of(bound.tier)
    tried = [_RECORDED.get(_key(bound, pair)) for pair in pairs(cases, bound.level, bound.precisions)]
    problems = [*found.problems, *found.unused_features([result for result in tried if result], cases)]
    if problems:
        raise ConformanceFailure("\n".join(problems))


def _check_enough_ran(bound: BoundCase) -> None:
    """Count what passed in this process; of a case that was not tried here, take what hook and ledger say beforehand.

    A plan is tried at once, so that nothing has to be said beforehand of what it would find.
    """
    if bound.tier == "plan":
        _check_enough_planned(bound)
        return
    for precision in bound.precisions:
        made = _backend(bound.backend, bound.device, precision, _Options(bound.options))
        if not isinstance(made, Backend) and not made.get("refused"):
            raise ConformanceFailure(f"nothing ran in {precision}: {made['message']}")
    found = pairs(suite_cases(), bound.level, bound.precisions)
    _require_enough([_RECORDED.get(_key(bound, pair)) or _beforehand(bound, pair) for pair in found])


def _check_enough_planned(bound: BoundCase) -> None:
    results = []
    for case, precision in pairs(cases_of("plan"), bound.level, bound.precisions):
        one = replace(bound, case=case, precision=precision)
        results.append(_RECORDED.get(_key(one, one.pair)) or _ledger(bound.backend).apply(_result(one))[0])
    _require_enough(results)


def _require_enough(results: Sequence[CaseResult]) -> None:
    # A failure has been reported where it happened; here it is only something that has not passed.
    not_failed = {"outcome": "deviates"}
    counted = [result.model_copy(update=not_failed) if result.outcome == "failed" else result for result in results]
    reasons = reasons_for_red(counted, ())
    if reasons:
        raise ConformanceFailure("\n".join(reasons))


def _beforehand(bound: BoundCase, pair: Pair) -> CaseResult:
    """What will become of a case that is not tried, if the backend is right wherever nobody says otherwise."""
    case, precision = pair
    if not says_nothing(bound.backend):
        verdict = judge(case, NoBackend(), precision, refuses(bound.backend, bound.device, precision))
        if verdict.outcome == "refused":
            return untried(pair).model_copy(update={"outcome": "refused"})
    entry = _ledger(bound.backend).entry_for(untried(pair))
    outcome = "passed" if entry is None else "refused" if entry.kind == "refuses" else "deviates"
    return untried(pair).model_copy(update={"outcome": outcome})
