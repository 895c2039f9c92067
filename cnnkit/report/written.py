"""What `run.json` and `metrics.json` have to hold for a report, so that a file that was edited is named with its fault."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Moment = Annotated[str, AfterValidator(datetime.fromisoformat)]
Loss = float | None
"""JSON has None for NaN and infinity."""


class _Written(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Request(_Written):
    """`run.json`."""

    model: str
    dataset: str
    backend: str | None
    seed: Count
    limit: Count | None
    validation: Number | None
    patience: Count | None
    command: list[str]
    data_dir: str | None = None
    image_size: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None


class _Figures(_Written):
    loss: Loss
    accuracy: Number


class _Epoch(_Written):
    epoch: Count
    steps: Count
    learning_rate: Number
    running_loss: Loss
    train: _Figures | None
    validation: _Figures | None
    seconds_train: Seconds
    seconds_evaluate: Seconds
    best: bool


class _Class(_Written):
    name: str


class _Judged(_Written):
    loss: Loss
    confusion: list[list[Count]]
    per_class: list[_Class]


class _Images(_Written):
    train: Count
    test: Count


class _Seconds(_Written):
    train: Seconds
    test: Seconds
    wall: Seconds
    train_per_1000: Seconds
    test_per_1000: Seconds


class _Memory(_Written):
    peak_mib: Seconds | None


class _Machine(_Written):
    platform: str
    processor: str
    cpus: Count
    threads: Count | None
    started: Moment
    ended: Moment


class Result(_Written):
    """`metrics.json`. Those of the first cnnkits have no `machine`."""

    model: str | None
    dataset: str
    backend: str
    device: str | None
    precision: str
    options: dict[str, Any]
    seed: Count
    epochs: Count
    batch_size: Count
    optimizer: dict[str, Any]
    images: _Images
    train: _Judged
    test: _Judged
    seconds: _Seconds
    memory: _Memory
    history: Annotated[list[_Epoch], Field(min_length=1)]
    message: str
    versions: dict[str, Any]
    out: str | None
    machine: _Machine | None = None


def what_is_wrong(kind: type[Request | Result], data: object) -> str | None:
    """The first thing in `data` that `cnnkit train` would not have written, by its place, or None."""
    try:
        kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    return None
