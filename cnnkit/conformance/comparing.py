"""Several backends on one model: the first layer, forward or backward, at which one of them parts from the right answer.

Forward, each layer is the last one of a model of its own (`Model.prefix`), and then alone on the input that it should
get, for rounding adds up along the layers and hides small faults. Backward, from the last layer to the first, the
gradients of a layer's parameters are taken in the whole model, and then in the model that begins with that layer. The
right answer is the oracle's, so that it is known which of two backends is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Images, Labels, Parameters, dtype_of
from cnnkit.backend import Backend
from cnnkit.conformance.measure import THRESHOLD, Mismatch, Numbers, compare, roundoff
from cnnkit.conformance.question import Question, draw_images, draw_labels, draw_parameters, expected_answer
from cnnkit.conformance.sandwiches import back_alone, front_alone, sandwich, split
from cnnkit.conformance.selection import in_words, shortened
from cnnkit.conformance.shrink import Refuses
from cnnkit.conformance.subject import Refusal, Subject
from cnnkit.errors import TrainingNotSupported
from cnnkit.model import Dense, Flatten, Layer, Model
from cnnkit.parameters import own_parameters

Direction: TypeAlias = Literal["forward", "backward"]
Outcome: TypeAlias = Literal["agrees", "parts", "refuses", "fails", "does-not-train", "unseen"]
"""`unseen` is the gradient of an input where the layer that would show it is itself wrong."""

MOVE = 4.0
"""How many u's the parameters are moved, up or down at random, to see whether a decision hangs on rounding."""

MOVES = 3
"""How often that is done."""

TRIES = 20
"""How many seeds are tried for random numbers with clear decisions."""


@dataclass(frozen=True)
class Cell:
    """What one backend answers at one place: its worst error in units where that can be measured, else what it says."""

    outcome: Outcome
    units: float | None = None
    message: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing wrong is known here. A backend that says that it only predicts is not wrong."""
        return self.outcome in ("agrees", "does-not-train", "unseen")


UNSEEN = Cell("unseen", message="what would show it is itself wrong, or the numbers are too large")

ALONE = "by itself, as layer 1 of a small model"
"""What the names of gradients in the message of a sandwich mean."""

FRONT = ("gradient of 0.kernel", "gradient of 0.bias")
"""What shows the gradient of the input of what lies in a sandwich."""


@dataclass(frozen=True)
class Row:
    """One place: the output of a layer, the loss, or a gradient; and a cell for each backend."""

    direction: Direction
    layer: int
    what: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Comparison:
    """All places, in the order in which a fault would show first.

    `is_clear` is false where the gradients hang on a ReLU or a max pooling that rounding may decide otherwise: two
    right engines may part there on the way back.
    """

    question: Question
    rows: tuple[Row, ...]
    is_clear: bool = True

    @property
    def partings(self) -> dict[str, Row]:
        """For each backend that is not right everywhere, the first place where it is not."""
        found: dict[str, Row] = {}
        for row in self.rows:
            for name, cell in row.cells.items():
                if not cell.is_good:
                    found.setdefault(name, row)
        return found

    @property
    def agree(self) -> bool:
        """Whether all backends give the right answer everywhere, within the threshold."""
        return not self.partings

    @property
    def worst(self) -> float:
        """The worst error that was measured, in units."""
        return max((cell.units or 0.0 for row in self.rows for cell in row.cells.values()), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""

        def plain(cell: Cell) -> dict[str, Any]:
            return {"outcome": cell.outcome, "units": cell.units, "message": cell.message}

        return {
            "threshold": THRESHOLD,
            "batch": len(self.question.images),
            "agree": self.agree,
            "clear": self.is_clear,
            "partings": {
                name: {"direction": row.direction, "layer": row.layer, "what": row.what, **plain(row.cells[name])}
                for name, row in self.partings.items()
            },
            "rows": [
                {
                    "direction": row.direction,
                    "layer": row.layer,
                    "what": row.what,
                    "backends": {name: plain(cell) for name, cell in row.cells.items()},
                }
                for row in self.rows
            ],
        }


def compare_backends(
    question: Question, backends: Mapping[str, Backend], refuses: Mapping[str, Refuses] | None = None
) -> Comparison:
    """Ask every backend for the output of each layer and, where the model is a classifier, for the gradients.

    `question` has the model, the numbers and the precision, with labels where the gradients are wanted; `refuses` says
    for a backend what its plugin refuses.
    """
    subjects = {
        name: Subject(backend, question.precision, (refuses or {}).get(name)) for name, backend in backends.items()
    }
    rows = list(_forward(question, subjects))
    if question.labels is None:
        return Comparison(question, tuple(rows))
    asked = replace(question, ask="gradients")
    right = expected_answer(asked).numbers
    rows += _backward(asked, subjects)
    return Comparison(question, tuple(rows), _is_clear(asked, right))


def _is_clear(question: Question, right: Mapping[str, Numbers]) -> bool:
    """Whether the gradients stay within the threshold when the parameters are moved as rounding would move them."""
    size = MOVE * roundoff(question.precision)
    for number in range(MOVES):
        rng = np.random.default_rng(number)
        moved = {name: array * (1 + size * rng.choice([-1, 1], array.shape)) for name, array in _doubled(question)}
        answer = expected_answer(replace(question, parameters=moved)).numbers
        try:
            for what, numbers in right.items():
                compare(what, answer[what].value, numbers, question.precision, THRESHOLD / 2)
        except Mismatch:
            return False
    return True


def _doubled(question: Question) -> list[tuple[str, NDArray[np.float64]]]:
    return [(name, array.astype(np.float64)) for name, array in question.parameters.items()]


def _forward(question: Question, subjects: Mapping[str, Subject]) -> Iterator[Row]:
    inputs = _inputs(question)
    for index, layer in enumerate(question.model.layers):
        model = question.model.prefix(index)
        parameters = own_parameters(model.plan(), question.parameters)
        whole = replace(question, model=model, parameters=parameters, ask="predict", labels=None)
        alone = replace(_part(question, inputs[index], index, index + 1), ask="predict", labels=None)
        cells = _worst_of(_cells(whole, subjects)["output"], _cells(alone, subjects)["output"])
        yield Row("forward", index, layer.kind, cells)


def _backward(question: Question, subjects: Mapping[str, Subject]) -> Iterator[Row]:
    inputs, count = _inputs(question), len(question.model.layers)
    specs = question.plan.parameters
    first, last = min(spec.layer for spec in specs), max(spec.layer for spec in specs)
    whole = _cells(question, subjects)
    end = _cells(_part(question, inputs[last], last, count), subjects)
    yield Row("backward", count - 1, "loss", _worst_of(whole["loss"], end["loss"]))
    for layer in range(count - 2, first - 1, -1):
        seen = _sandwiched(question, layer, inputs[layer : layer + 2], subjects)
        if "activation" in seen:
            what = f"gradient of the input of its {getattr(question.model.layers[layer], 'activation', None)}"
            yield Row("backward", layer, what, _only_seen(whole["loss"], seen["activation"]))
        own = [spec.name for spec in reversed(specs) if spec.layer == layer]
        alone = _cells(_part(question, inputs[layer], layer, count), subjects) if own else {}
        for name in own:
            kind = name.rpartition(".")[2]
            cells = _worst_of(whole[f"gradient of {name}"], alone[f"gradient of 0.{kind}"], seen[kind])
            yield Row("backward", layer, f"gradient of {name}", cells)
        if layer > first:
            yield Row("backward", layer, "gradient of its input", _only_seen(whole["loss"], seen["input"]))


def _sandwiched(
    question: Question, index: int, around: list[Images], subjects: Mapping[str, Subject]
) -> dict[str, dict[str, Cell]]:
    """The gradients of the kernel and the bias of a layer, of its input, and of that of its activation.

    `around` are the input and the output of the layer.
    """
    plain, activation = split(question.model.layers[index])
    is_last = isinstance(plain, Dense) and activation is None and index == len(question.model.layers) - 2
    part = _part(question, around[0], index, index + 1)
    names = [name.rpartition(".")[2] for name in part.parameters]
    parameters = {f"1.{kind}": part.parameters[f"0.{kind}"] for kind in names}
    most = np.sqrt(np.finfo(dtype_of(question.precision)).max)  # of larger numbers even a product is not finite
    if not all((np.abs(array) < most).all() for array in (*around, *parameters.values())) or not around[0].size:
        return {kind: {} for kind in ("input", *names)}
    between, found = around[1], {}
    if activation is not None:
        between = _output(replace(part, model=Model(input_shape=part.model.input_shape, layers=[plain])))
        found["activation"] = _believed([activation], (between, around[1]), question.precision, {}, subjects)["input"]
    edges = around[0], None if is_last else between
    return found | _believed([plain], edges, question.precision, parameters, subjects)


def _believed(
    layers: list[Layer],
    edges: tuple[Images, Images | None],
    precision: str,
    parameters: Parameters,
    subjects: Mapping[str, Subject],
) -> dict[str, dict[str, Cell]]:
    """What a sandwich of `layers` shows of each backend, less what may come from its bread.

    `edges` are what goes into the layers and what comes out of them; without the latter, softmax is next.
    """
    before, after = edges
    question = sandwich(layers, before, precision, parameters, end=after is not None)
    found = {
        what: {name: replace(cell, message=cell.message and f"{ALONE}: {cell.message}") for name, cell in cells.items()}
        for what, cells in _cells(question, subjects).items()
    }
    shown = {what.removeprefix("gradient of 1."): cells for what, cells in found.items() if " of 1." in what}
    shown["input"] = {}
    for name, subject in subjects.items():
        views = {what: found[what][name] for what in FRONT}
        if not all(found[what][name].is_good for what in found if what != "loss"):
            pixels = before.reshape(-1, 1, 1, before.shape[-1])  # a front that no order of flatten matters to
            front = front_alone(pixels if isinstance(layers[0], Flatten) else before, precision)
            bread = _cells(front, {name: subject})
            views = {what: cell for what, cell in views.items() if bread[what][name].is_good}
            if not _is_good_behind(bread, after, precision, name, subject):
                views = {}
                for cells in shown.values():
                    cells[name] = UNSEEN
        shown["input"] |= _worst_of(*[{name: cell} for cell in views.values()]) or {name: UNSEEN}
    return shown


def _is_good_behind(
    front: Mapping[str, Mapping[str, Cell]], after: Images | None, precision: str, name: str, subject: Subject
) -> bool:
    """Whether the layers behind a sandwich's filling are not known to be wrong by themselves."""
    answers = [front]
    if after is not None:
        alone, both = (_cells(make(after, precision), {name: subject}) for make in (front_alone, back_alone))
        answers += [alone, both]
        if any(alone[what][name].is_good and not both[what][name].is_good for what in FRONT):
            return False
    return all(cells[what][name].outcome not in ("fails", "refuses") for cells in answers for what in FRONT)


def _only_seen(whole: Mapping[str, Cell], seen: Mapping[str, Cell]) -> dict[str, Cell]:
    """What the sandwich shows, unless the whole model has no gradients to show."""
    answered = ("agrees", "parts")
    return {name: seen.get(name, UNSEEN) if cell.outcome in answered else cell for name, cell in whole.items()}


def _inputs(question: Question) -> list[Images]:
    """What each layer should get, rounded to the precision, from the images to the output of the model."""
    found: list[Images] = [question.images]
    for index in range(len(question.model.layers)):
        found.append(_output(_part(question, found[-1], index, index + 1)))
    return found


def _output(question: Question) -> Images:
    """The right output, rounded to the precision."""
    right = expected_answer(replace(question, ask="predict", labels=None)).numbers["output"]
    return right.value.astype(dtype_of(question.precision))


def _part(question: Question, images: Images, begin: int, end: int) -> Question:
    """The question about the layers from `begin` to before `end`, as a model that gets `images`."""
    model = Model(input_shape=images.shape[1:], layers=question.model.layers[begin:end])
    names = {spec.name: f"{spec.layer + begin}.{spec.name.rpartition('.')[2]}" for spec in model.plan().parameters}
    parameters = {name: question.parameters[whole] for name, whole in names.items()}
    return replace(question, model=model, parameters=parameters, images=images)


def _cells(question: Question, subjects: Mapping[str, Subject]) -> dict[str, dict[str, Cell]]:
    """For all that is asked, by name, a cell for each backend."""
    right = expected_answer(question).numbers
    answers = {name: _answer(subject, question) for name, subject in subjects.items()}
    return {
        what: {name: _cell(answers[name], what, right, subject) for name, subject in subjects.items()} for what in right
    }


def _worst_of(*views: Mapping[str, Cell]) -> dict[str, Cell]:
    """For each backend the first cell that is not good, or else the one with the largest error."""

    def rank(cell: Cell) -> tuple[bool, float]:
        return cell.units is not None, cell.units or 0.0

    found = {}
    for name in views[0] if views else ():
        cells = [view[name] for view in views if name in view]
        found[name] = next((cell for cell in cells if not cell.is_good), None) or max(cells, key=rank)
    return found


def _answer(subject: Subject, question: Question) -> dict[str, Any] | Cell:
    """The backend's answer, or what became of it."""
    try:
        return subject.answer(question)
    except Refusal as refusal:
        return Cell("refuses", message=str(refusal))
    except TrainingNotSupported as error:
        return Cell("does-not-train", message=str(error))
    except Mismatch as mismatch:
        return Cell("fails", message=str(mismatch))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever an engine raises is its answer, a panic too
        return Cell("fails", message=shortened(in_words(error)[0]))


def _cell(answer: dict[str, Any] | Cell, what: str, right: Mapping[str, Numbers], subject: Subject) -> Cell:
    if isinstance(answer, Cell):
        return answer
    try:
        return Cell("agrees", compare(what, answer[what], right[what], subject.precision))
    except Mismatch as mismatch:
        return Cell("parts", mismatch.units, str(mismatch))


# ------------------------------------------------------------------------------------------------------------- numbers


def question_about(
    model: Model,
    precision: str = "float32",
    *,
    batch: int = 4,
    seed: int = 0,
    parameters: Parameters | None = None,
    images: Images | None = None,
    labels: Labels | None = None,
) -> Question:
    """A question about `model` with random numbers for what is not given, biases included.

    Where the model is a classifier, they are those of the first of a few seeds, from `seed` on, that leaves no ReLU and
    no max pooling to be decided by rounding; or those of `seed` if all of them do.
    """
    learns = model.plan().is_classifier and bool(model.plan().parameters)

    def drawn(attempt: int) -> Question:
        rng = np.random.default_rng(attempt)
        numbers = draw_parameters(model, rng, precision) if parameters is None else parameters
        pixels = draw_images(model.input_shape, batch, rng, precision) if images is None else images
        chosen = draw_labels(model, len(pixels)) if learns and labels is None else labels
        return Question(model, numbers, pixels, precision=precision, labels=chosen if learns else None)

    if learns and (images is None or parameters is None):
        for attempt in range(seed, seed + TRIES):
            asked = replace(drawn(attempt), ask="gradients")
            if _is_clear(asked, expected_answer(asked).numbers):
                return replace(asked, ask="predict")
    return drawn(seed)


def in_precision(arrays: Parameters, precision: str) -> Parameters:
    """Trained parameters in the precision of a comparison."""
    return {name: array.astype(dtype_of(precision)) for name, array in arrays.items()}
