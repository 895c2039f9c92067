"""One case, one backend, one verdict."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from cnnkit.backend import Backend
from cnnkit.conformance.case import Case
from cnnkit.conformance.measure import CaseFault, Mismatch
from cnnkit.conformance.question import Question
from cnnkit.conformance.subject import Refusal, Stage, Subject
from cnnkit.plan import Plan
from cnnkit.plugins import Unsupported

Outcome: TypeAlias = Literal["passed", "failed", "refused"]


@dataclass(frozen=True)
class Verdict:
    """What a case found out about a backend.

    `refused` is a refusal that was declared beforehand; one that was not is a failure at the stage `refuse`. `units` is
    the worst error of a case that passed, or of the answer that failed it; None for a failure that has no size. `error`
    names the class of the exception behind a failure that is none of the suite's own. `feature` is what the backend
    refused, in its own words.
    """

    outcome: Outcome
    seconds: float
    units: float | None = None
    stage: Stage | None = None
    message: str = ""
    error: str = ""
    traceback: str = field(default="", repr=False)
    feature: str = ""
    question: Question | None = field(default=None, repr=False)


class Trial(Protocol):
    """What a case is tried on, and what is known of it when the case has failed."""

    @property
    def stage(self) -> Stage:
        """What it was at."""

    @property
    def worst(self) -> float | None:
        """The worst error so far, in units; None if none is measured."""

    @property
    def question(self) -> Question | None:
        """What was asked last."""


def judge(
    case: Case,
    backend: Backend,
    precision: str = "float32",
    refuses: Callable[[Plan], Sequence[Unsupported]] | None = None,
) -> Verdict:
    """Try `case` on `backend`, whose programs are of `precision`. Nothing that the backend raises gets past this.

    Raises `CaseFault` where it is the case that is at fault.
    """
    return judge_on(case, Subject(backend, precision, refuses))


def judge_on(case: Case, subject: Trial) -> Verdict:
    """As `judge`, on what is on trial already."""
    begin = time.perf_counter()
    try:
        case.body(subject)
    except Refusal as refusal:
        seconds = time.perf_counter() - begin
        if refusal.declared:
            return Verdict("refused", seconds, stage="refuse", message=str(refusal), feature=refusal.feature)
        message = f"{refusal}. Neither cnnkit_supports nor the ledger said so beforehand"
        return Verdict(
            "failed", seconds, stage="refuse", message=message, error="UnsupportedModel", feature=refusal.feature
        )
    except Mismatch as mismatch:
        seconds = time.perf_counter() - begin
        return Verdict(
            "failed",
            seconds,
            mismatch.units,
            "compare",
            str(mismatch),
            traceback=traceback.format_exc() if mismatch.__cause__ else "",
            question=subject.question,
        )
    except (KeyboardInterrupt, CaseFault):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever an engine raises is the finding
        return Verdict(
            "failed",
            time.perf_counter() - begin,
            None,
            subject.stage,
            f"{type(error).__name__}: {error}",
            type(error).__name__,
            traceback.format_exc(),
            question=subject.question,
        )
    return Verdict("passed", time.perf_counter() - begin, subject.worst)
