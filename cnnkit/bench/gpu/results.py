"""What a run on a card has found out: plain data, one JSON file, from which the report for people is made."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, computed_field

PartName: TypeAlias = Literal["conformance", "layers", "steps", "inference"]
PartOutcome: TypeAlias = Literal["done", "incomplete", "skipped", "failed"]
TargetOutcome: TypeAlias = Literal["reached", "missed", "not judged"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Card(_Record):
    """The card, as its driver describes it."""

    name: str = Field(min_length=1)
    capability: str = Field(description="The compute capability, such as 9.0")
    memory_mib: int = Field(gt=0)
    driver: str = Field(description="The driver's version")
    cuda: str = Field(description="The newest CUDA that the driver runs")


class Part(_Record):
    """What became of one part of the work."""

    name: PartName
    outcome: PartOutcome
    seconds: float = Field(ge=0)
    why: str = Field("", description="Why it is not done, in a sentence")


class Conformance(_Record):
    """The verdict of the conformance suite on the device."""

    tier: Literal["run"] = Field(description="The tier: all that computes. A plan is never reported here")
    device: str
    suite: str
    verdict: Literal["green", "red", "partial"]
    level: str
    precisions: tuple[str, ...]
    counts: Mapping[str, int]
    seconds: float
    reasons: tuple[str, ...] = ()
    failures: tuple[str, ...] = Field((), description="The cases that failed, by their ids")


class _Measured(_Record):
    library: str
    way: str
    precision: str
    problems: tuple[str, ...] = Field((), description="Why its figures do not count; empty where they do")

    @property
    def title(self) -> str:
        """How tables and messages call it."""
        return f"{self.library}, {self.way}, {self.precision}"


class LayerCell(_Measured):
    """One layer of one contestant."""

    layer: str
    batch: int
    forward_rounds: tuple[float, ...] = Field((), description="Microseconds of a call, one for each round")
    backward_rounds: tuple[float, ...] = ()

    @computed_field(description="The median of the rounds; null where the figures do not count")  # type: ignore[prop-decorator] # mypy knows no decorated property
    @property
    def forward_us(self) -> float | None:
        """Microseconds of a call forward."""
        return _median(self.forward_rounds, self.problems)

    @computed_field(description="The median of the rounds; null where the figures do not count")  # type: ignore[prop-decorator] # mypy knows no decorated property
    @property
    def backward_us(self) -> float | None:
        """Microseconds of a call back."""
        return _median(self.backward_rounds, self.problems)


class StepCell(_Measured):
    """Training, or prediction, of one contestant at one batch size."""

    batch: int
    images: int = Field(description="In a round")
    rounds: tuple[float, ...] = Field((), description="Seconds of all images, one for each round")
    first_s: float | None = Field(None, description="Seconds of the first epoch, which counts as warm-up")
    device_mib: float | None = Field(None, description="What its process took of the card, beyond the CUDA context")

    @computed_field(description="The median of the rounds, as for 50,000 images; null where the figures do not count")  # type: ignore[prop-decorator] # mypy knows no decorated property
    @property
    def seconds_50k(self) -> float | None:
        """Seconds for 50,000 images."""
        found = _median(self.rounds, self.problems)
        return None if found is None else found * 50_000 / self.images


class Target(_Record):
    """One target: what it is, whether it is reached, and by which figures."""

    name: str
    outcome: TargetOutcome
    said: str


class GpuReport(_Record):
    """All of a run."""

    format: Literal[1] = 1
    made: str = Field(description="When the run began, in UTC, ISO 8601")
    command: str
    seconds: float
    budget: float
    quick: bool = Field(description="Whether fewer images and sizes were measured; then no target is judged")
    backend: str
    device: str
    card: Card
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    parts: tuple[Part, ...]
    conformance: Conformance | None = None
    layers: tuple[LayerCell, ...] = ()
    steps: tuple[StepCell, ...] = ()
    inference: tuple[StepCell, ...] = ()
    targets: tuple[Target, ...]
    remarks: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether all parts were done, nothing was found wrong, and every figure counts. Targets may be missed."""
        cells: tuple[_Measured, ...] = (*self.layers, *self.steps, *self.inference)
        return (
            all(part.outcome == "done" for part in self.parts)
            and self.conformance is not None
            and self.conformance.verdict != "red"
            and not any(cell.problems for cell in cells)
        )

    def to_json(self) -> str:
        """The file."""
        return self.model_dump_json(indent=2) + "\n"


def schema() -> dict[str, Any]:
    """The JSON schema of `report.json`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **GpuReport.model_json_schema(mode="serialization"),
    }


def _median(rounds: tuple[float, ...], problems: tuple[str, ...]) -> float | None:
    return median(rounds) if rounds and not problems else None
