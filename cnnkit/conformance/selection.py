"""Which cases are run, in which order, and what stands in the report before and after."""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NoReturn, TypeAlias

from cnnkit.arrays import Parameters
from cnnkit.backend import Backend
from cnnkit.conformance.case import LEVELS, TIERS, Case, Level, Tier
from cnnkit.conformance.report import CaseResult
from cnnkit.errors import OptionError
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.plugins import describe
from cnnkit.state import TrainingState

PRECISIONS = ("float32", "float64")

Pair: TypeAlias = tuple[Case, str]
"""A case and the precision that it is tried in."""


def suite_cases(explore: int = 0, seed: int = 0) -> tuple[Case, ...]:
    """All cases of the suite, and `explore` random models drawn from `seed`."""
    from cnnkit.conformance.catalogue import all_cases

    if not explore:
        return all_cases()
    from cnnkit.conformance.explore import explored_cases

    return (*all_cases(), *explored_cases(explore, seed))


def cases_of(tier: Tier, explore: int = 0, seed: int = 0) -> tuple[Case, ...]:
    """All cases of a tier; those of the tier `plan` are about the models of `suite_cases`."""
    if tier == "run":
        return suite_cases(explore, seed)
    from cnnkit.conformance.planning import plan_cases

    return plan_cases(explore, seed)


def pairs(cases: Iterable[Case], level: Level, precisions: Sequence[str]) -> list[Pair]:
    """What a run at `level` consists of: one precision after the other, each in the order of the suite."""
    levels = LEVELS[: LEVELS.index(level) + 1]
    cases = [case for case in cases if case.level in levels]
    return [(case, precision) for precision in precisions for case in cases if precision in case.precisions]


def selected(found: Sequence[Pair], patterns: Sequence[str]) -> list[Pair]:
    """Those of `found` that one of the `patterns` names. `OptionError` for a pattern that names none.

    A pattern is a glob for the id, an area of the summary (`conv2d`), or a case in one precision as reports write it:
    `dense.forward.wide[float32]`.
    """
    for pattern in patterns:
        if not any(_is_named(pair, pattern) for pair in found):
            raise OptionError(
                f"no case is called '{pattern}' at this level; expected an id, an area such as 'conv2d', or a "
                "pattern such as 'v06.*'."
            )
    return [pair for pair in found if any(_is_named(pair, pattern) for pattern in patterns)]


def _is_named(pair: Pair, pattern: str) -> bool:
    case, precision = pair
    return fnmatch.fnmatchcase(case.id, pattern) or pattern in (f"{case.id}[{precision}]", area_of(case.id))


def covering_order(found: Sequence[Pair]) -> list[Pair]:
    """An order in which every feature is tried early, for a run that may end at any moment.

    First, in each precision, the cases that need a feature that none before them needs; then the rest, a case of each
    area in turn.
    """
    first: list[Pair] = []
    rest: list[Pair] = []
    seen: set[tuple[str, str]] = set()
    for case, precision in found:
        features = {(feature, precision) for feature in case.features}
        (first if features - seen else rest).append((case, precision))
        seen |= features
    areas: dict[tuple[str, str], list[Pair]] = {}
    for case, precision in rest:
        areas.setdefault((area_of(case.id), precision), []).append((case, precision))
    return [*first, *(pair for turn in zip_longest(*areas.values()) for pair in turn if pair is not None)]


def area_of(case_id: str) -> str:
    """What a case is about: the first part of its id, and the second for one that is called after a divergence."""
    first, _, rest = case_id.partition(".")
    numbered = first[:1] == "v" and first[1:].isdigit()
    return rest.partition(".")[0] if numbered and rest else first


def untried(pair: Pair) -> CaseResult:
    """What the report says of a case that was not run."""
    return tried(pair, {"outcome": "not-run"})


LONGEST = 2000
"""So many characters of a message are kept."""


def shortened(text: str) -> str:
    """What an engine says, without the middle if it says too much to be read."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 500]} ... ({len(text):,} characters in all) ... {text[-400:]}"


def in_words(error: BaseException) -> tuple[str, str]:
    """What an exception says, on one line, and its class; of one that cannot be put into words at least the class."""
    try:
        return describe(error), type(error).__name__
    except BaseException:  # noqa: BLE001 - its own __str__ may raise anything
        while error.__context__ is not None:  # the first one, which could not be described
            error = error.__context__
        return f"{type(error).__name__}, whose text cannot be had: its __str__ raises", type(error).__name__


def tried(pair: Pair, found: Mapping[str, Any]) -> CaseResult:
    """What the report says of a case after `found`, the fields of its verdict."""
    case, precision = pair
    trace = found.get("traceback", "")
    if len(trace) > 10 * LONGEST:
        trace = f"{trace[: 8 * LONGEST]}\n...\n{trace[-LONGEST:]}"
    found = {**found, "message": shortened(found.get("message", "")), "traceback": trace}
    features = {*case.features, *([f"precision.{precision}"] if precision != "float32" else [])}
    known = {"id": case.id, "precision": precision, "claim": case.claim, "level": case.level}
    stage = {"stage": "refuse"} if found.get("error") == "TrainingNotSupported" else {}
    return CaseResult.model_validate({**known, "features": tuple(sorted(features)), **found, **stage})


def load_result(pair: Pair, answer: Mapping[str, Any]) -> CaseResult:
    """What the report says of a case for which the backend could not be had."""
    outcome, stage = ("refused", "refuse") if answer.get("refused") else ("failed", "load")
    found = {"outcome": outcome, "stage": stage, "message": answer["message"], "error": answer.get("error", "")}
    # What is refused of the smallest model is the precision, whatever the plugin calls it.
    feature = {"feature": f"precision.{pair[1]}"} if outcome == "refused" else {}
    return tried(pair, found | {"traceback": answer.get("traceback", ""), **feature})


def replay_command(
    backend: str,
    result: CaseResult,
    *,
    level: Level,
    device: str | None,
    options: Mapping[str, Any],
    tier: Tier = "run",
) -> str:
    """The command line that tries a case again as it was tried: from its file where there is one."""
    if result.repro is not None:
        command = ["cnnkit", "repro", result.repro, "--backend", backend]
    else:
        command = ["cnnkit", "conformance", backend, "--only", result.id, "--precision", result.precision]
        command += ["--level", level] if level != "training" else []
        command += ["--tier", tier] if tier != "run" else []
    command += ["--device", device] if device is not None else []
    for name, value in options.items():
        command += ["--set", f"{name}={value}"]
    return shlex.join(command)


class Reached(Exception):
    """Raised by `NoBackend`: whoever compiles has got past every refusal beforehand."""


class NoBackend(Backend):
    """Stands where a backend has to be and must not be used."""

    def compile(self, plan: Plan, parameters: Parameters) -> NoReturn:
        """Raise `Reached`."""
        raise Reached(plan, parameters)

    def compile_training(self, plan: Plan, state: TrainingState, optimizer: Optimizer) -> NoReturn:
        """Raise `Reached`."""
        raise Reached(plan, state, optimizer)


def check_level(level: str | None) -> Level | None:
    """`level`, or an `OptionError` if there is no such level."""
    match level:
        case None | "inference" | "training":
            return level
    raise OptionError(f"level is {level!r}; expected one of {', '.join(LEVELS)}.")


def check_tier(tier: str) -> Tier:
    """`tier`, or an `OptionError` if there is no such tier."""
    match tier:
        case "plan" | "run":
            return tier
    raise OptionError(f"tier is {tier!r}; expected one of {', '.join(TIERS)}.")


def check_precisions(precisions: Sequence[str]) -> tuple[str, ...]:
    """`precisions` without repetitions, or an `OptionError` if there is no such precision, or none."""
    if isinstance(precisions, str) or not precisions:
        raise OptionError(f"precisions is {precisions!r}; expected a list with float32, float64 or both.")
    for precision in precisions:
        if precision not in PRECISIONS:
            raise OptionError(f"precision is {precision!r}; expected 'float32' or 'float64', which the suite judges.")
    return tuple(dict.fromkeys(precisions))
