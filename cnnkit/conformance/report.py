"""The report of a run: plain data, one JSON file, from which every other form of it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from cnnkit.conformance.case import LEVELS, Level, Tier
from cnnkit.conformance.subject import Stage
from cnnkit.features import ESSENTIAL

REPORT_FORMAT = 1

ResultOutcome: TypeAlias = Literal["passed", "failed", "refused", "deviates", "not-run"]
"""`deviates` fails as the ledger said that it would; `not-run` was left out for the budget or after --fail-fast."""

OUTCOMES: tuple[ResultOutcome, ...] = ("passed", "failed", "refused", "deviates", "not-run")

Verdict: TypeAlias = Literal["green", "red", "partial", "plan"]
"""`partial` is a run that was asked for less, by a selection or a budget, and in which nothing was found wrong.

`plan` is a whole run of the tier `plan` in which nothing was found wrong: nothing was computed, so it is not green.
"""

MAIN_PRECISION = "float32"
"""The precision of programs unless another is asked for. What a run says of a backend, it says of this one first."""

LEAST_SHARE = 0.5
"""Of the cases of a level in a precision, at least this share must pass, or too little ran."""


def _writable(text: str) -> str:
    """What an engine says, with halves of surrogate pairs spelt out: no file could hold them."""
    return text.encode(errors="backslashreplace").decode()


Said: TypeAlias = Annotated[str, AfterValidator(_writable)]

Units: TypeAlias = Annotated[
    float,
    Field(ge=0),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"const": "Infinity"}]}),
]
"""Infinite where an answer is NaN or infinite and should not be. JSON has no such number: there it is "Infinity"."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class CaseResult(_Record):
    """What became of one case in one precision."""

    id: str = Field(description="The case, without its precision")
    precision: str
    claim: str = Field(description="The sentence that a right backend makes true")
    level: Level
    features: tuple[str, ...] = Field(description="What the case asks of a backend, in alphabetical order")
    outcome: ResultOutcome
    stage: Stage | None = Field(None, description="Where it failed or was refused")
    message: Said = ""
    error: Said = Field("", description="The class of the exception behind a failure, if there is one")
    feature: Said = Field(
        "", description="What was refused, as the refusal names it; a feature id of `features` is best"
    )
    units: Units | None = Field(
        None, description="The worst error in units of u * sum|w||x|; null if none was measured"
    )
    seconds: float = 0.0
    traceback: Said = ""
    repro: Said | None = Field(None, description="The file that `cnnkit repro` replays")
    reason: Said = Field("", description="Why it may deviate: the ledger's words")
    issue: str = Field("", description="Where the deviation is followed up: the ledger's words")
    expiry: date | None = Field(None, description="The last day on which it may deviate")

    @property
    def name(self) -> str:
        """The case and its precision, as the ledger writes it: `v06.max-pool.ties[float32]`."""
        return f"{self.id}[{self.precision}]"


class Report(_Record):
    """What the suite found out about a backend.

    Green only if every case did what it should, and all ran; partial if a run that was asked for less found nothing wrong.
    The tier `plan` computes nothing: where all of it holds, the verdict is `plan`, and never green.
    """

    format: Literal[1] = 1
    suite: str = Field(description="The version of the conformance suite")
    backend: str
    distribution: str = ""
    tier: Tier = Field("run", description="`plan` is what can be proved without the device, `run` all that computes")
    level: Level
    precisions: tuple[str, ...]
    device: str | None = Field(
        None,
        description="What it ran on, as far as the plugin says; in the tier plan, where nothing runs, what was asked for",
    )
    device_given: bool = Field(False, description="Whether the device was asked for, and not the backend's choice")
    probed: Said = Field("", description="What the probe said of the device here: ready, or another state and why")
    kernels: tuple[Said, ...] = Field((), description="What was compiled without the device, by name")
    compiled_for: tuple[Said, ...] = Field((), description="The targets that it was compiled for, such as sm_90")
    options: Mapping[str, Said] = Field(default_factory=dict, description="Backend options, as text")
    only: tuple[Said, ...] = Field((), description="The patterns of the cases that were selected; none for all")
    seed: int = 0
    started: str = Field(description="When the run began, in UTC, ISO 8601")
    seconds: float
    versions: Mapping[str, str] = Field(description="Of cnnkit, Python, the plugin, and what it runs on")
    platform: str = ""
    ledger: Said | None = Field(None, description="The path of the plugin's conformance.toml")
    ledger_problems: tuple[Said, ...] = ()
    cases: tuple[CaseResult, ...]
    verdict: Verdict
    reasons: tuple[Said, ...] = Field((), description="Why it is red, one sentence each")

    @model_validator(mode="before")
    @classmethod
    def _counts_are_no_field(cls, data: Any) -> Any:
        """A written report has its counts in it too. They must be those of its cases."""
        if not isinstance(data, Mapping) or "counts" not in data:
            return data
        cases = data.get("cases", ())
        found = Counter(case.get("outcome") for case in cases if isinstance(case, Mapping))
        if data["counts"] != {outcome: found[outcome] for outcome in OUTCOMES}:
            raise ValueError(f"counts is {data['counts']}, which is not what became of the cases")
        return {key: value for key, value in data.items() if key != "counts"}

    @model_validator(mode="after")
    def _says_what_ran(self) -> Report:
        """Nothing that was only planned may be green."""
        if (self.verdict, self.tier) in (("green", "plan"), ("plan", "run")):
            raise ValueError(f"verdict is {self.verdict!r}, which no report of the tier {self.tier!r} has")
        return self

    @property
    def green(self) -> bool:
        """Whether the backend has passed: the tier `run`, and all of it."""
        return self.verdict == "green"

    @property
    def planned(self) -> bool:
        """Whether all that can be proved without the device holds. That is not `green`: nothing was computed."""
        return self.verdict == "plan"

    @property
    def red(self) -> bool:
        """Whether something is wrong, or too little ran."""
        return self.verdict == "red"

    @property
    def partial(self) -> bool:
        """Whether nothing is wrong in the part of the suite that was asked for."""
        return self.verdict == "partial"

    @property
    def counts(self) -> dict[str, int]:
        """How many cases had each outcome, in the order of `OUTCOMES`."""
        counted = Counter(case.outcome for case in self.cases)
        return {outcome: counted[outcome] for outcome in OUTCOMES}

    @property
    def failures(self) -> list[CaseResult]:
        """The cases that failed."""
        return [case for case in self.cases if case.outcome == "failed"]


def reasons_for_red(
    cases: Sequence[CaseResult], ledger_problems: Sequence[str], *, within_budget: bool = False
) -> list[str]:
    """Why a run with these results is red, one sentence each; empty for green. The order of the results is of no account.

    `within_budget` is a run that was asked to end early: cases that did not run are no reason then, but what is
    essential must have run all the same.
    """
    reasons = reasons_against(cases, ledger_problems, within_budget=within_budget)
    main = _main_precision(cases)
    if main == MAIN_PRECISION and all(case.outcome == "refused" for case in cases if case.precision == main):
        reasons.append(f"Too little ran: {main}, the precision of programs unless another is asked for, is refused.")
    passed = [case for case in cases if case.outcome == "passed"]
    too_few = [
        f"{done} of {len(group)} {level} cases passed in {precision}"
        for precision, level, group in _claims(cases, main, within_budget=within_budget)
        if (done := sum(case.outcome == "passed" for case in group)) < LEAST_SHARE * len(group) or not done
    ]
    if too_few or not passed:
        said = ", ".join(too_few) or "no case passed"
        reasons.append(f"Too little ran: {said}; at least {LEAST_SHARE:.0%} must.")
    in_main = [case for case in passed if case.precision == main]
    shown = {feature for case in in_main for feature in case.features}
    missing = [feature for feature in ESSENTIAL if feature not in shown]
    if missing and passed:
        reasons.append(f"Too little ran: no case passed that needs {', '.join(missing)}.")
    if passed and _trains(cases) and not _trains(in_main):
        reasons.append("Too little ran: no case passed that trains.")
    return reasons


def reasons_against(
    cases: Sequence[CaseResult], ledger_problems: Sequence[str], *, within_budget: bool = False
) -> list[str]:
    """What was found wrong in these cases and the ledger, and that some did not run; not whether they are enough."""
    reasons = []
    failed = [case for case in cases if case.outcome == "failed"]
    if failed:
        stages = Counter(case.stage or "compare" for case in failed)
        ordered = sorted(stages.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{count} at the stage {stage}" for stage, count in ordered)
        reasons.append(f"{len(failed)} of {len(cases)} cases failed: {listed}.")
    reasons += ledger_problems
    left_out = [case for case in cases if case.outcome == "not-run"]
    if left_out and not within_budget:
        reasons.append(f"{len(left_out)} of {len(cases)} cases did not run.")
    return reasons


def _main_precision(cases: Sequence[CaseResult]) -> str:
    precisions = {case.precision for case in cases}
    return MAIN_PRECISION if MAIN_PRECISION in precisions else min(precisions, default="")


def _claims(
    cases: Sequence[CaseResult], main: str, *, within_budget: bool
) -> Iterator[tuple[str, Level, list[CaseResult]]]:
    """The cases of each level in each precision, those that did not run `within_budget` apart.

    A precision other than the main one that is refused as a whole is not claimed.
    """
    for precision in sorted({case.precision for case in cases}):
        tried = [
            case for case in cases if case.precision == precision and not (within_budget and case.outcome == "not-run")
        ]
        if precision != main and all(case.outcome in ("refused", "not-run") for case in tried):
            continue
        for level in LEVELS:
            group = [case for case in tried if case.level == level]
            if group:
                yield precision, level, group


def _trains(cases: Sequence[CaseResult]) -> bool:
    return any(case.level == "training" for case in cases)
