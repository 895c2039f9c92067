"""A case: one claim about a right backend, and how it is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from cnnkit.conformance.question import Ask, Question, draw
from cnnkit.features import features_of
from cnnkit.model import Layer, Model

Level: TypeAlias = Literal["inference", "training"]
LEVELS: tuple[Level, ...] = ("inference", "training")

Tier: TypeAlias = Literal["plan", "run"]
"""`plan` is what can be proved of a backend without its device, and `run` everything that computes."""
TIERS: tuple[Tier, ...] = ("plan", "run")


@dataclass(frozen=True)
class Case:
    """One claim, tried in each precision.

    `id` is lower case, its parts separated by dots: what is asked about, and what of it. A case that guards against a
    known divergence between engines (docs/reference/divergences.md) is called after it: `v06.max-pool.ties`.
    `claim` is a sentence that a right backend makes true. `features` are known without running it.
    """

    id: str
    claim: str
    level: Level
    features: frozenset[str]
    body: Callable[[Any], None] = field(repr=False)
    """Takes what is on trial: a `Subject` in the tier `run`, a `PluginSubject` in the tier `plan`."""
    precisions: tuple[str, ...] = ("float32", "float64")
    tier: Tier = "run"

    def __str__(self) -> str:
        return self.id


def question_case(id: str, claim: str, make: Callable[[str], Question]) -> Case:  # noqa: A002 - the field's name
    """A case that asks one question, made by `make(precision)`, and compares with the oracle."""
    sample = make("float32")
    level: Level = "inference" if sample.ask == "predict" else "training"
    return Case(id, claim, level, sample.features, lambda subject: subject.ask(make(subject.precision)))


def drawn_case(
    id: str,  # noqa: A002 - the field's name
    claim: str,
    layers: list[Layer],
    input_shape: tuple[int, ...],
    ask: Ask = "predict",
    **options: Any,
) -> Case:
    """A case that asks one random question: see `cnnkit.conformance.question.draw` for the options."""
    features = features_of(Model(input_shape=input_shape, layers=layers).plan(), options.get("optimizer"))
    return Case(
        id,
        claim,
        "inference" if ask == "predict" else "training",
        features if ask == "predict" else features | {"training"},
        lambda subject: subject.ask(draw(layers, input_shape, precision=subject.precision, ask=ask, **options)),
    )
