"""A failure as a small file: what was asked, of whom, and what came back; to be read, sent to somebody, and replayed.

::

    {
      "format": 1,
      "suite": "1.0",
      "case": "v06.max-pool.ties",
      "precision": "float32",
      "backend": "fancy",
      "stage": "compare",
      "claim": "...",
      "message": "output[0, 1] is 3; expected 4 (...)",
      "units": 4194304.0,
      "question": {"ask": "predict", "model": {...}, "parameters": {...}, "images": {...}, ...}
    }

A failure that no single question repeats, such as a state that leaks between two programs, has the question null: it is
replayed by running its case. Arrays are `{"dtype", "shape", "values"}` and come back to the last bit, but for the
payload of a NaN.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cnnkit.arrays import check_images, check_labels, dtype_of
from cnnkit.backend import Backend
from cnnkit.conformance import SUITE_VERSION
from cnnkit.conformance.case import Case
from cnnkit.conformance.explore import case_by_id
from cnnkit.conformance.judging import Verdict, judge
from cnnkit.conformance.question import Ask, Question, expected_answer
from cnnkit.conformance.selection import shortened
from cnnkit.conformance.shrink import Refuses, is_fair, shrink
from cnnkit.conformance.subject import Stage
from cnnkit.errors import CnnkitError, OptionError
from cnnkit.files import write_whole
from cnnkit.model import Model
from cnnkit.optimizers import optimizer_from_dict, optimizer_to_dict
from cnnkit.parameters import check_parameters
from cnnkit.state import check_state

REPRO_FORMAT = 1


@dataclass(frozen=True)
class Repro:
    """A failure that can be replayed. Without a `question` the case itself is run again."""

    case: str
    precision: str
    backend: str
    stage: Stage
    message: str
    claim: str = ""
    units: float | None = None
    question: Question | None = None
    suite: str = SUITE_VERSION


# -------------------------------------------------------------------------------------------------------------- saving


def save_failure(
    folder: Path,
    *,
    case_id: str,
    precision: str,
    backend_name: str,
    backend: Backend,
    refuses: Refuses | None,
    verdict: Verdict,
    smaller: bool = True,
) -> Path:
    """Write `<case_id>.<precision>.json` to `folder`, which is made if it is not there, and return its path.

    A wrong answer is shrunk first, for at most about two seconds, unless `smaller` is false. The file is written whole or
    not at all.
    """
    case = find_case(case_id)
    assert verdict.stage is not None  # noqa: S101 - every failure has a stage
    repro = Repro(
        case_id,
        precision,
        backend_name,
        verdict.stage,
        shortened(verdict.message),
        "" if case is None else case.claim,
        verdict.units,
    )
    repro = _with_question(repro, verdict, backend, refuses, smaller=smaller)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case_id}.{precision}.json"
    write_whole(path, to_json(repro).encode())
    return path


def _with_question(
    repro: Repro, verdict: Verdict, backend: Backend, refuses: Refuses | None, *, smaller: bool
) -> Repro:
    """`repro` with the question, shrunk, if asking that alone, as the file would hold it, fails in the same way."""
    question = verdict.question and _as_read(verdict.question)
    if question is None or not is_fair(question, expected_answer(question)):
        return repro
    again = _ask(repro, question, backend, refuses)
    if (again.outcome, again.stage, again.error) != ("failed", verdict.stage, verdict.error):
        return repro
    if verdict.stage == "compare" and smaller:
        question = shrink(question, backend, refuses)
        again = _ask(repro, question, backend, refuses)
    return replace(repro, question=question, message=shortened(again.message), units=again.units)


def _as_read(question: Question) -> Question | None:
    """The question as it comes back out of a file; None if no file can hold it."""
    try:
        return _question(_QuestionFile.model_validate(_question_data(question)), question.precision)
    except (CnnkitError, ValidationError):  # an optimizer of the suite's own, or arrays that are wrong on purpose
        return None


# ------------------------------------------------------------------------------------------------------------ replaying


def remove_earlier(folder: Path, backend_name: str, names: Collection[tuple[str, str]] | None = None) -> None:
    """Remove the files that runs of this backend saved in `folder`; with `names`, those of these cases and precisions.

    What is no such file stays, whatever it is called. Raises `OSError`.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            file = _File.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue  # a folder, a report, anybody's notes
        if file.backend == backend_name and (names is None or (file.case, file.precision) in names):
            path.unlink()


def replay(repro: Repro, backend: Backend, refuses: Refuses | None = None, precision: str | None = None) -> Verdict:
    """Ask `backend` what failed elsewhere, in the precision of the failure or another one, and judge the answer.

    Raises `OptionError` where there is no question and the suite has no case of that name any more.
    """
    precision = precision or repro.precision
    if repro.question is not None:
        return _ask(repro, in_precision(repro.question, precision), backend, refuses)
    case = find_case(repro.case)
    if case is None:
        raise OptionError(
            f"suite {SUITE_VERSION} has no case {repro.case!r}; the failure is one of suite {repro.suite}. Replay it "
            "with a cnnkit that has that suite."
        )
    return judge(case, backend, precision, refuses)


def _ask(repro: Repro, question: Question, backend: Backend, refuses: Refuses | None) -> Verdict:
    level: Literal["inference", "training"] = "inference" if question.ask == "predict" else "training"
    case = Case(repro.case, repro.claim, level, question.features, lambda subject: subject.ask(question))
    return judge(case, backend, question.precision, refuses)


def in_precision(question: Question, precision: str) -> Question:
    """The question with its floating-point arrays in `precision`."""
    dtype = dtype_of(precision)

    def cast(array: NDArray[Any]) -> NDArray[Any]:
        return array.astype(dtype) if array.dtype.kind == "f" else array

    return replace(
        question,
        precision=precision,
        images=cast(question.images),
        parameters={name: cast(array) for name, array in question.parameters.items()},
        slots={slot: {name: cast(a) for name, a in arrays.items()} for slot, arrays in question.slots.items()},
    )


def find_case(case_id: str) -> Case | None:
    """The case of the suite, or the random one, that is called so."""
    from cnnkit.conformance.catalogue import all_cases  # some of them are random cases, which repro need not know of

    return case_by_id(case_id) or next((case for case in all_cases() if case.id == case_id), None)


# --------------------------------------------------------------------------------------------------------------- files

DtypeName = Literal["float32", "float64", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
Count = Annotated[int, Field(ge=0, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _ArrayFile(_Strict):
    dtype: DtypeName
    shape: tuple[Count, ...]
    values: Any


class _QuestionFile(_Strict):
    ask: Ask
    model: dict[str, Any]
    parameters: dict[str, _ArrayFile]
    images: _ArrayFile
    labels: _ArrayFile | None = None
    optimizer: dict[str, Any] | None = None
    slots: dict[str, dict[str, _ArrayFile]] = Field(default_factory=dict)
    step: Count = 0
    seed: Count = 0
    batch_size: Annotated[int, Field(ge=1, strict=True)] | None = None
    epochs: Annotated[int, Field(ge=1, strict=True)] = 1


class _File(_Strict):
    format: Literal[1]
    suite: str
    case: str
    precision: Literal["float32", "float64"]
    backend: str
    stage: Stage
    claim: str = ""
    message: str
    units: float | Literal["Infinity"] | None = None
    question: _QuestionFile | None = None


def to_json(repro: Repro) -> str:
    """The file as text, every innermost row of numbers on one line."""
    data = {
        "format": REPRO_FORMAT,
        "suite": repro.suite,
        "case": repro.case,
        "precision": repro.precision,
        "backend": repro.backend,
        "stage": repro.stage,
        "claim": repro.claim,
        "message": repro.message,
        "units": "Infinity" if repro.units == np.inf else repro.units,
        "question": None if repro.question is None else _question_data(repro.question),
    }
    return _pretty(data) + "\n"


def load(path: Path) -> Repro:
    """Read a file that `save_failure` wrote. Raises `OptionError`, which names the path in the file that is wrong."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"{path} cannot be read: {error}. Give a file that `cnnkit conformance` saved.") from error
    newer = isinstance(data, dict) and isinstance(data.get("format"), int) and data["format"] > REPRO_FORMAT
    if newer:
        raise OptionError(f"{path} has format {data['format']}, but this cnnkit reads {REPRO_FORMAT}. Upgrade cnnkit.")
    try:
        file = _File.model_validate(data)
        question = None if file.question is None else _question(file.question, file.precision)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise OptionError(
            f"{path} holds no failure that can be replayed: {place}: {first['msg']}. Correct it there, or save the "
            "failure again."
        ) from None
    except CnnkitError as error:
        raise OptionError(f"{path} holds no failure that can be replayed: question: {error}") from error
    units = np.inf if file.units == "Infinity" else file.units
    return Repro(
        file.case,
        file.precision,
        file.backend,
        file.stage,
        file.message,
        file.claim,
        units,
        question,
        file.suite,
    )


def _question_data(question: Question) -> dict[str, Any]:
    return {
        "ask": question.ask,
        "model": question.model.to_dict(),
        "parameters": _arrays_data(question.parameters),
        "images": _array_data(question.images),
        "labels": None if question.labels is None else _array_data(question.labels),
        "optimizer": None if question.optimizer is None else optimizer_to_dict(question.optimizer),
        "slots": {slot: _arrays_data(arrays) for slot, arrays in question.slots.items()},
        "step": question.step,
        "seed": question.seed,
        "batch_size": question.batch_size,
        "epochs": question.epochs,
    }


def _question(file: _QuestionFile, precision: str) -> Question:
    """The question, whose parts fit each other; a `CnnkitError` where they do not."""
    question = Question(
        Model.from_dict(file.model, "model"),
        _arrays("parameters", file.parameters),
        _array("images", file.images),
        file.ask,
        precision,
        None if file.labels is None else _array("labels", file.labels),
        None if file.optimizer is None else optimizer_from_dict(file.optimizer),
        {slot: _arrays(f"slots.{slot}", arrays) for slot, arrays in file.slots.items()},
        file.step,
        file.seed,
        file.batch_size,
        file.epochs,
    )
    plan = question.plan
    check_images(question.images, plan.input_shape, dtype_of(precision))
    check_parameters(plan, question.parameters)
    if question.ask == "predict":
        return question
    plan.require_trainable()
    if question.labels is None:
        raise OptionError(f"labels are null, but to ask for {question.ask} takes one for each image.")
    check_labels(question.labels, len(question.images), plan.classes)
    if question.ask != "gradients":
        if question.optimizer is None:
            raise OptionError(f"optimizer is null, but to ask for {question.ask} takes one.")
        check_state(plan, question.state, question.optimizer)
    return question


# -------------------------------------------------------------------------------------------------------------- arrays

_SPECIAL = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}


def _arrays_data(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {name: _array_data(array) for name, array in arrays.items()}


def _array_data(array: NDArray[Any]) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": _nested(array)}


def _nested(array: NDArray[Any]) -> Any:
    if array.ndim:
        return [_nested(row) for row in array]
    return _number(array[()])


def _number(value: Any) -> Any:
    """A number as JSON has it, in as few digits as its dtype needs."""
    if isinstance(value, np.integer):
        return int(value)
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    short = float(str(value))
    return short if type(value)(short) == value else float(value)


def _arrays(path: str, files: Mapping[str, _ArrayFile]) -> dict[str, NDArray[Any]]:
    return {name: _array(f"{path}.{name}", file) for name, file in files.items()}


def _array(path: str, file: _ArrayFile) -> NDArray[Any]:
    numbers: list[float] = []
    dtype = np.dtype(file.dtype)
    _collect(f"{path}.values", file.values, file.shape, dtype, numbers)
    return np.array(numbers, dtype).reshape(file.shape)


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether `value` is a finite number of `dtype`, once rounded: the text of the largest may be a little above it."""
    if dtype.kind != "f":
        return int(np.iinfo(dtype).min) <= value <= int(np.iinfo(dtype).max)
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(dtype.type(value)))
    except OverflowError:  # a whole number that no float holds
        return False


def _collect(path: str, values: Any, shape: tuple[int, ...], dtype: np.dtype[Any], numbers: list[float]) -> None:
    if shape:
        if not isinstance(values, list) or len(values) != shape[0]:
            what = f"{len(values)} values" if isinstance(values, list) else repr(values)
            raise OptionError(f"{path} is {what}; expected a list of {shape[0]}, as the shape says.")
        for index, value in enumerate(values):
            _collect(f"{path}[{index}]", value, shape[1:], dtype, numbers)
        return
    real = dtype.kind == "f"
    if real and isinstance(values, str) and values in _SPECIAL:
        numbers.append(_SPECIAL[values])
        return
    wanted = (int, float) if real else int
    if not isinstance(values, wanted) or isinstance(values, bool) or not _holds(dtype, values):
        raise OptionError(f"{path} is {values!r}; expected a number of {dtype.name}.")
    numbers.append(values)


def _pretty(value: Any, indent: str = "") -> str:
    """JSON with an innermost list on one line."""
    deeper = f"{indent}  "
    if isinstance(value, Mapping) and value:
        rows = [f"{deeper}{json.dumps(key)}: {_pretty(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (list, Mapping)) for item in value):
        rows = [f"{deeper}{_pretty(item, deeper)}" for item in value]
        return "[\n" + ",\n".join(rows) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)
