"""From a question that a backend answers wrongly to the smallest one found that it still answers wrongly.

Every reduction is a function from a question to simpler ones, the simplest first. One that fails takes the place of the
question, and the reduction begins again; in the end the numbers themselves become 0 or 1 where that is enough. In the
same time the same question comes out: nothing is random.

A simpler question must be as fair as those of the suite: a right backend answers it, whichever way it rounds
(`is_fair`). Zeros in a kernel or an image may leave a number without any scale beside numbers that have one, and an
engine that works on whole tiles, as Winograd's convolution does, rounds by the scale of the tile: see `LEAST_BALANCE`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, dtype_of
from cnnkit.backend import Backend
from cnnkit.conformance.measure import THRESHOLD, Mismatch, roundoff
from cnnkit.conformance.question import Expected, Question, expected_answer
from cnnkit.conformance.subject import Refusal, Subject
from cnnkit.errors import ModelError, OptionError
from cnnkit.model import AvgPool2D, Layer, MaxPool2D, Model
from cnnkit.optimizers import SGD
from cnnkit.parameters import own_parameters
from cnnkit.plan import Conv2DOp, Plan, pair
from cnnkit.plugins import Unsupported

LEAST_BALANCE = 1 / 8
"""The smallest scale in an array over the largest one may fall so far, if it was not less to begin with."""

Refuses: TypeAlias = Callable[[Plan], Sequence[Unsupported]]
Reduction: TypeAlias = Callable[[Question], Iterator[Question]]


def is_fair(question: Question, expected: Expected) -> bool:
    """Whether every right backend gives the `expected` answer.

    What learns must have finite numbers, for little is promised about others, and no decision of a layer may fall
    otherwise by rounding.
    """
    largest = float(np.finfo(dtype_of(question.precision)).max)
    sizes = [np.abs(numbers.value) for numbers in expected.numbers.values()]
    if any(((size > largest) & (size < np.inf)).any() for size in sizes):
        return False  # infinite in this precision, but not in the oracle's
    if question.ask == "predict":
        return True
    clear = question.ask == "run" or expected.margin > 4 * THRESHOLD * roundoff(question.precision)
    return clear and all(bool(np.isfinite(size).all()) for size in sizes)


def _balance(question: Question, expected: Expected) -> float:
    """The smallest scale over the largest, in the array where that is least."""
    least = 1.0
    for numbers in expected.numbers.values():
        scale = numbers.scale[np.isfinite(numbers.value)]
        largest = float(scale.max(initial=0.0))
        if largest:
            least = min(least, float(scale.min()) / largest)
        elif any(isinstance(op, Conv2DOp) for op in question.plan.operations) and question.images.any():
            least = 0.0
    return least


def mismatch(
    question: Question, backend: Backend, refuses: Refuses | None = None, least_balance: float = 0.0
) -> Mismatch | None:
    """How the backend's answer to a fair question differs from the right one; None if it does not, or there is none."""
    try:
        with np.errstate(all="ignore"):
            expected = expected_answer(question)
            if not is_fair(question, expected) or _balance(question, expected) < least_balance:
                return None
            Subject(backend, question.precision, refuses).ask(question, dict(expected.numbers))
    except Mismatch as found:
        return found
    except Refusal:
        return None
    except (Exception, SystemExit):  # noqa: BLE001 - an engine that breaks down fails in another way than the one looked for
        return None
    return None


def shrink(question: Question, backend: Backend, refuses: Refuses | None = None, seconds: float = 2.0) -> Question:
    """The smallest question found within `seconds` that `backend` answers wrongly as it does `question`.

    It is `question` itself where the backend answers that rightly, or nothing simpler fails.
    """
    deadline = time.monotonic() + seconds
    original = mismatch(question, backend, refuses)
    if original is None:
        return question
    search = _Search(question, _way(original), backend, refuses, deadline)
    while search.reduce(_REDUCTIONS):
        pass
    search.make_plainer()
    return search.question


def _way(found: Mismatch) -> tuple[bool, bool]:
    """What stays the same: whether an error was measured, and whether it is finite."""
    return found.units is not None, found.units is not None and bool(np.isfinite(found.units))


class _Search:
    """The smallest question so far, and what has been tried."""

    def __init__(
        self,
        question: Question,
        way: tuple[bool, bool],
        backend: Backend,
        refuses: Refuses | None,
        deadline: float,
    ) -> None:
        self.question, self.way = question, way
        self.backend, self.refuses, self.deadline = backend, refuses, deadline
        self.tried: set[int] = set()
        self.least_balance = 0.0
        self.settle()

    def settle(self) -> None:
        """Note what balance simpler questions need: that of the question now, up to a limit. A run has none."""
        self.least_balance = 0.0
        if self.question.ask != "run":
            with np.errstate(all="ignore"):
                self.least_balance = min(_balance(self.question, expected_answer(self.question)), LEAST_BALANCE)

    def reduce(self, reductions: Sequence[Reduction]) -> bool:
        """Apply each reduction for as long as it helps; whether any did."""
        helped = False
        for reduction in reductions:
            while self._once(reduction):
                helped = True
        return helped

    def make_plainer(self) -> None:
        """Each array, then its halves, their halves and so on to single numbers, become zeros, or else ones."""
        self.settle()
        sizes = [(place, array.size) for place, array in _arrays(self.question)]
        pieces = 1
        while pieces < 2 * max(size for _, size in sizes):
            for place, size in sizes:
                for part in np.array_split(np.arange(size), pieces) if pieces < 2 * size else ():
                    if self.is_over:
                        return
                    any(self._accept(candidate) for candidate in self._plainer(place, part))
            pieces *= 2

    @property
    def is_over(self) -> bool:
        """Whether there is no time left."""
        return time.monotonic() > self.deadline

    def _once(self, reduction: Reduction) -> bool:
        for candidate in reduction(self.question):
            if self.is_over:
                return False
            if self._accept(candidate):
                return True
        return False

    def _accept(self, candidate: Question) -> bool:
        """Take `candidate` for the question if it fails in the same way and has not been tried before."""
        key = _key(candidate)
        if key in self.tried:
            return False
        self.tried.add(key)
        found = mismatch(candidate, self.backend, self.refuses, self.least_balance)
        if found is None or _way(found) != self.way:
            return False
        self.question = candidate
        return True

    def _plainer(self, place: tuple[str, ...], part: NDArray[np.int64]) -> Iterator[Question]:
        """The question with zeros, or else ones, at `part` of one array; a zero stays, for it is plainer than a one."""
        array = dict(_arrays(self.question))[place]
        allowed = self.least_balance > 0 or place[-1].endswith(".bias") or place[0] == "slots"
        for value, plain in ((0, (0,)), (1, (0, 1))) if allowed else ((1, (0, 1)),):
            flat = array.reshape(-1).copy()
            if not np.isin(flat[part], plain).all():
                flat[part] = value
                yield _with_array(self.question, place, flat.reshape(array.shape))


def _key(question: Question) -> int:
    arrays = [array.tobytes() for _, array in _arrays(question)]
    labels = b"" if question.labels is None else question.labels.tobytes()
    course = (question.ask, question.batch_size, question.epochs, question.step, repr(question.optimizer))
    return hash((question.model.to_json(), question.images.shape, *arrays, labels, course))


def _arrays(question: Question) -> Iterator[tuple[tuple[str, ...], Array]]:
    """Every array of numbers, and how `_with_array` finds it."""
    yield ("images",), question.images
    for name, array in question.parameters.items():
        yield ("parameters", name), array
    for slot, arrays in question.slots.items():
        for name, array in arrays.items():
            yield ("slots", slot, name), array


def _with_array(question: Question, place: tuple[str, ...], array: Array) -> Question:
    match place:
        case ("parameters", name):
            return replace(question, parameters={**question.parameters, name: array})
        case ("slots", slot, name):
            return replace(question, slots={**question.slots, slot: {**question.slots[slot], name: array}})
    return replace(question, images=array)


# ------------------------------------------------------------------------------------------------- less to be answered


def _less_asked(question: Question) -> Iterator[Question]:
    less = replace(question, optimizer=None, slots={}, step=0, batch_size=None, epochs=1)
    if question.ask != "predict":
        yield replace(less, ask="predict", labels=None)
    if question.ask in ("steps", "run"):
        yield replace(less, ask="gradients")


def _prefixes(question: Question) -> Iterator[Question]:
    if question.ask == "predict":
        for last in range(len(question.model.layers) - 1):
            model = question.model.prefix(last)
            yield replace(question, model=model, parameters=own_parameters(model.plan(), question.parameters))


def _fewer_images(question: Question) -> Iterator[Question]:
    count = len(question.images)
    for kept in [*_halves(count), *(_all_but(count, place) for place in range(count) if count > 1)]:
        rows = np.array(kept)
        labels = None if question.labels is None else question.labels[rows]
        size = question.batch_size
        yield replace(
            question,
            images=question.images[rows],
            labels=labels,
            batch_size=None if size is None else min(size, len(rows)),
        )


def _halves(count: int) -> list[list[int]]:
    half = count // 2
    return [list(range(half)), list(range(half, count))] if half else []


def _all_but(count: int, place: int) -> list[int]:
    return [index for index in range(count) if index != place]


def _fewer_steps(question: Question) -> Iterator[Question]:
    if question.epochs > 1:
        yield replace(question, epochs=1)
        yield replace(question, epochs=question.epochs // 2)
    if question.batch_size is not None:
        yield replace(question, batch_size=None)


def _simpler_optimizer(question: Question) -> Iterator[Question]:
    optimizer = question.optimizer
    if optimizer is None:
        return
    if optimizer != SGD(0.1):
        yield replace(question, optimizer=SGD(0.1), slots={}, step=0)
    if question.step or question.slots:
        yield replace(question, slots={}, step=0)
    simpler: dict[str, Any] = {"learning_rate": 0.1, "clip_global_norm": None, "weight_decay": 0.0, "nesterov": False}
    for name, value in simpler.items():
        if getattr(optimizer, name, value) != value:
            yield replace(question, optimizer=replace(optimizer, **{name: value}))  # type: ignore[type-var] # a dataclass


# ------------------------------------------------------------------------------------------------------ simpler models


def _fewer_layers(question: Question) -> Iterator[Question]:
    layers = question.model.layers
    for place in range(len(layers)):
        kept = _all_but(len(layers), place)
        yield from _rebuilt(question, [layers[index] for index in kept], kept)


_SIMPLER: Mapping[str, Any] = {
    "dilation": 1,
    "strides": 1,
    "padding": "valid",
    "activation": None,
    "use_bias": False,
}
_SIZES = ("kernel_size", "pool_size")
_COUNTS = ("filters", "units")


def _simpler_layers(question: Question) -> Iterator[Question]:
    layers = question.model.layers
    for index, layer in enumerate(layers):
        for change in _changes(layer):
            changed = [*layers[:index], layer.model_copy(update=change), *layers[index + 1 :]]
            yield from _rebuilt(question, changed, list(range(len(layers))))


def _changes(layer: Layer) -> Iterator[dict[str, Any]]:
    for name in _COUNTS:
        for smaller in _smaller(getattr(layer, name, 1)):
            yield {name: smaller}
    for name in _SIZES:
        height, width = pair(getattr(layer, name, 1))
        yield from ({name: (smaller, width)} for smaller in _smaller(height))
        yield from ({name: (height, smaller)} for smaller in _smaller(width))
    for name, simple in _SIMPLER.items():
        default = None if name == "strides" and isinstance(layer, (MaxPool2D, AvgPool2D)) else simple
        if getattr(layer, name, default) != default:
            yield {name: default}


def _smaller(size: int) -> list[int]:
    return sorted({1, size // 2, size - 1} - {0, size})


def _smaller_images(question: Question) -> Iterator[Question]:
    shape = question.model.input_shape
    layers = list(question.model.layers)
    for axis, size in enumerate(shape):
        for smaller in _smaller(size):
            cut = (*shape[:axis], smaller, *shape[axis + 1 :])
            for start in (0, size - smaller):  # the beginning or the end of every image
                part = replace(question, images=question.images.take(range(start, start + smaller), axis + 1))
                yield from _rebuilt(part, layers, list(range(len(layers))), cut)


def _rebuilt(
    question: Question, layers: Sequence[Layer], origins: Sequence[int], input_shape: tuple[int, ...] | None = None
) -> Iterator[Question]:
    """The question with other layers, layer `i` having been layer `origins[i]`; nothing if that is no model.

    Its arrays are cut where they are too long now, and repeat where they are too short.
    """
    shape = input_shape or question.model.input_shape
    try:
        model = Model(input_shape=shape, layers=layers)
        plan = model.plan()
        if question.ask != "predict":
            plan.require_trainable()
    except (ModelError, OptionError):
        return

    def fitted(arrays: Mapping[str, Array]) -> dict[str, Array]:
        found = {}
        for spec in plan.parameters:
            kind = spec.name.rpartition(".")[2]
            found[spec.name] = _fitted(arrays[f"{origins[spec.layer]}.{kind}"], spec.shape)
        return found

    yield replace(
        question,
        model=model,
        images=_fitted(question.images, (len(question.images), *shape)),
        parameters=fitted(question.parameters),
        slots={slot: fitted(arrays) for slot, arrays in question.slots.items()},
        labels=None if question.labels is None else question.labels % plan.classes,
    )


def _fitted(array: Array, shape: tuple[int, ...]) -> Array:
    for axis, size in enumerate(shape):
        array = np.take(array, np.arange(size) % max(array.shape[axis], 1), axis)
    return np.ascontiguousarray(array)


# ------------------------------------------------------------------------------------------------------ reductions

_REDUCTIONS: tuple[Reduction, ...] = (
    _less_asked,
    _prefixes,
    _fewer_images,
    _fewer_steps,
    _fewer_layers,
    _simpler_optimizer,
    _smaller_images,
    _simpler_layers,
)
