"""The report of a run: plain data, one JSON file, from which every other form of it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from cnnkit.conformance.case import Level
from cnnkit.conformance.features import ESSENTIAL
from cnnkit.conformance.subject import Stage

REPORT_FORMAT = 1

ResultOutcome: TypeAlias = Literal["passed", "failed", "refused", "deviates", "not-run"]
"""`deviates` fails as the ledger said that it would; `not-run` was left out for the budget or after --fail-fast."""

OUTCOMES: tuple[ResultOutcome, ...] = ("passed", "failed", "refused", "deviates", "not-run")

LEAST_SHARE = 0.5
"""Of the cases in the first precision, at least this share must pass, or too little ran."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CaseResult(_Record):
    """What became of one case in one precision."""

    id: str = Field(description="The case, without its precision")
    precision: str
    claim: str = Field(description="The sentence that a right backend makes true")
    level: Level
    features: tuple[str, ...] = Field(description="What the case asks of a backend, in alphabetical order")
    outcome: ResultOutcome
    stage: Stage | None = Field(None, description="Where it failed or was refused")
    message: str = ""
    error: str = Field("", description="The class of the exception behind a failure, if there is one")
    units: float | None = Field(
        None, description="The worst error in units of u * sum|w||x|; null if none was measured"
    )
    seconds: float = 0.0
    traceback: str = ""
    repro: str | None = Field(None, description="The file that `cnnkit repro` replays")
    reason: str = Field("", description="Why it may deviate: the ledger's words")
    issue: str = ""

    @property
    def name(self) -> str:
        """The case and its precision, as the ledger writes it: `v06.max-pool.ties[float32]`."""
        return f"{self.id}[{self.precision}]"


class Report(_Record):
    """What the suite found out about a backend. Green only if every case did what it should, and enough ran."""

    format: Literal[1] = 1
    suite: str = Field(description="The version of the conformance suite")
    backend: str
    distribution: str = ""
    level: Level
    precisions: tuple[str, ...]
    device: str | None = None
    options: Mapping[str, str] = Field(default_factory=dict, description="Backend options, as text")
    seed: int = 0
    started: str = Field(description="When the run began, in UTC, ISO 8601")
    seconds: float
    versions: Mapping[str, str] = Field(description="Of cnnkit, Python, the plugin, and what it runs on")
    platform: str = ""
    ledger: str | None = Field(None, description="The path of the plugin's conformance.toml")
    ledger_problems: tuple[str, ...] = ()
    cases: tuple[CaseResult, ...]
    verdict: Literal["green", "red"]
    reasons: tuple[str, ...] = Field((), description="Why it is red, one sentence each")

    @property
    def green(self) -> bool:
        """Whether the backend has passed."""
        return self.verdict == "green"

    @property
    def red(self) -> bool:
        """Whether it has not."""
        return not self.green

    @property
    def counts(self) -> dict[str, int]:
        """How many cases had each outcome, in the order of `OUTCOMES`."""
        counted = Counter(case.outcome for case in self.cases)
        return {outcome: counted[outcome] for outcome in OUTCOMES}

    @property
    def failures(self) -> list[CaseResult]:
        """The cases that failed."""
        return [case for case in self.cases if case.outcome == "failed"]


def reasons_for_red(cases: Sequence[CaseResult], ledger_problems: Sequence[str], *, partial: bool = False) -> list[str]:
    """Why a run with these results is red, one sentence each; empty for green.

    `partial` is a run that was asked to do less, by a budget: cases that did not run are no reason then, but what is
    essential must have run all the same.
    """
    reasons = []
    failed = [case for case in cases if case.outcome == "failed"]
    if failed:
        stages = Counter(case.stage or "compare" for case in failed)
        listed = ", ".join(f"{count} at the stage {stage}" for stage, count in stages.most_common())
        reasons.append(f"{len(failed)} of {len(cases)} cases failed: {listed}.")
    reasons += ledger_problems
    left_out = [case for case in cases if case.outcome == "not-run"]
    if left_out and not partial:
        reasons.append(f"{len(left_out)} of {len(cases)} cases did not run.")
    first = [case for case in cases if case.precision == cases[0].precision] if cases else []
    tried = [case for case in first if case.outcome != "not-run"] if partial else first
    passed = [case for case in first if case.outcome == "passed"]
    if len(passed) < LEAST_SHARE * len(tried) or not passed:
        reasons.append(
            f"Too little ran: {len(passed)} of {len(tried)} cases passed in {first[0].precision if first else 'all'}; "
            f"at least {LEAST_SHARE:.0%} must."
        )
    shown = {feature for case in passed for feature in case.features}
    missing = [feature for feature in ESSENTIAL if feature not in shown]
    if missing and passed:
        reasons.append(f"Too little ran: no case passed that needs {', '.join(missing)}.")
    return reasons
