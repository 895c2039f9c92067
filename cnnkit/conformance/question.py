"""A question: a model, its numbers, and what is asked of a program. The oracle answers it, and so does every backend.

Most cases are one question. A question is data: it is drawn from a seed, shrunk, written to a file and asked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from cnnkit.arrays import Array, Images, Labels, Parameters, dtype_of
from cnnkit.conformance.measure import THRESHOLD, CaseFault, Numbers, roundoff
from cnnkit.conformance.oracle import Drawing, forward, gradients
from cnnkit.conformance.oracle_training import OracleState, take_step, train
from cnnkit.features import features_of
from cnnkit.model import Layer, Model
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.state import TrainingState, fresh_state

Ask: TypeAlias = Literal["predict", "gradients", "steps", "run"]
"""`steps` carries rounding errors along, for a few steps; `run` finds them by trying, for dozens."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a backend. Arrays are of `precision`, images may be uint8; labels are needed to learn.

    `steps` and `run` go through the images `epochs` times in batches of `batch_size`, the last one as small as it is.
    """

    model: Model
    parameters: Parameters
    images: Images
    ask: Ask = "predict"
    precision: str = "float32"
    labels: Labels | None = None
    optimizer: Optimizer | None = None
    slots: Mapping[str, Parameters] = field(default_factory=dict)
    step: int = 0
    seed: int = 0
    batch_size: int | None = None
    epochs: int = 1

    @property
    def plan(self) -> Plan:
        """The plan of the model."""
        return self.model.plan()

    @property
    def features(self) -> frozenset[str]:
        """The ids of what it takes to answer."""
        found = features_of(self.plan, self.optimizer, self.precision)
        return found if self.ask == "predict" else found | {"training"}

    @property
    def state(self) -> TrainingState:
        """Where training begins; slots that are not given are zero."""
        assert self.optimizer is not None  # noqa: S101 - only asked of questions that train
        if not self.slots:
            return replace(fresh_state(self.parameters, self.optimizer, self.seed), step=self.step)
        return TrainingState(self.parameters, self.slots, self.step, self.seed)

    def batches(self) -> Iterator[slice]:
        """The rows of each step."""
        size = self.batch_size or len(self.images)
        for _ in range(self.epochs):
            for start in range(0, len(self.images), size):
                yield slice(start, min(start + size, len(self.images)))


@dataclass(frozen=True)
class Expected:
    """The oracle's answer: numbers by what they are, and how far the nearest decision is from falling otherwise, in u's."""

    numbers: Mapping[str, Numbers]
    margin: float


def expected_answer(question: Question) -> Expected:
    """What a right program answers."""
    plan, labels = question.plan, question.labels
    images = Numbers.exact(question.images)
    parameters = {name: Numbers.exact(array) for name, array in question.parameters.items()}
    if question.ask == "predict":
        trace = forward(plan, parameters, images)
        return Expected({"output": trace.outputs[-1]}, trace.margin)
    assert labels is not None  # noqa: S101 - as the class says
    if question.ask == "gradients":
        loss, found, trace = gradients(plan, parameters, images, labels, Drawing(question.seed, question.step))
        return Expected({"loss": loss, **{f"gradient of {name}": g for name, g in found.items()}}, trace.margin)
    return _after_training(question, images, labels)


def _after_training(question: Question, images: Numbers, labels: Labels) -> Expected:
    plan, optimizer, begin = question.plan, question.optimizer, question.state
    assert optimizer is not None  # noqa: S101 - as the class says
    state = OracleState(
        {name: Numbers.exact(array) for name, array in begin.parameters.items()},
        {slot: {name: Numbers.exact(a) for name, a in arrays.items()} for slot, arrays in begin.slots.items()},
        begin.step,
        begin.seed,
    )
    batches = [(images[rows], labels[rows]) for rows in question.batches()]
    margin = np.inf
    if question.ask == "run":
        losses, state = train(plan, state, optimizer, batches, roundoff(question.precision))
    else:
        taken = []
        for rows in batches:
            loss, state, found = take_step(plan, state, optimizer, *rows)
            taken.append(loss)
            margin = min(margin, found)
        losses = Numbers(np.array([loss.value for loss in taken]), np.array([loss.scale for loss in taken]))
    return Expected({"losses": losses, **_state_numbers(state.parameters, state.slots)}, margin)


def _state_numbers(parameters: Mapping[str, Any], slots: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    named = {f"parameter {name}": array for name, array in parameters.items()}
    return named | {f"slot {slot} of {name}": a for slot, arrays in slots.items() for name, a in arrays.items()}


def state_answer(state: TrainingState) -> dict[str, Array]:
    """The arrays of a state under the names that `expected_answer` gives them."""
    return _state_numbers(state.parameters, state.slots)


# ------------------------------------------------------------------------------------------------------------ drawing


def draw(
    layers: list[Layer],
    input_shape: tuple[int, ...],
    *,
    precision: str,
    ask: Ask = "predict",
    batch: int = 2,
    images: Literal["uniform", "uint8"] | Images = "uniform",
    seed: int = 0,
    **rest: Any,
) -> Question:
    """A question with random numbers in which no decision of a layer is near enough to fall otherwise.

    Images are uniform on -1..1, or whole numbers from 0 to 255 with `images="uint8"`, or those given. Kernels are
    uniform with the variance 1 / fan_in, biases uniform on -0.5..0.5. Labels go through the classes in turn.
    """
    model = Model(input_shape=input_shape, layers=layers)
    for attempt in range(seed, seed + 100):
        rng = np.random.default_rng(attempt)
        question = Question(
            model,
            draw_parameters(model, rng, precision),
            draw_images(model.input_shape, batch, rng, precision, images) if isinstance(images, str) else images,
            ask,
            precision,
            **({} if ask == "predict" else {"labels": draw_labels(model, batch)}) | rest,
        )
        # A decision within the threshold could fall otherwise in a right backend; four times as far is safe.
        if ask in ("predict", "run") or expected_answer(question).margin > 4 * THRESHOLD * roundoff(precision):
            return question
    raise CaseFault("no seed keeps the decisions of this model apart; give it numbers of its own")


def draw_parameters(model: Model, rng: np.random.Generator, precision: str) -> dict[str, Array]:
    """Random parameters, none of them zero, in the precision."""
    dtype = dtype_of(precision)
    found: dict[str, Array] = {}
    for spec in model.plan().parameters:
        limit = np.sqrt(3 / spec.fan_in) if spec.name.endswith("kernel") else 0.5
        found[spec.name] = rng.uniform(-limit, limit, spec.shape).astype(dtype)
    return found


def draw_images(
    shape: tuple[int, ...], batch: int, rng: np.random.Generator, precision: str, kind: str = "uniform"
) -> Images:
    """Random images: uniform on -1..1, or of the kind "uint8"."""
    if kind == "uint8":
        return rng.integers(0, 256, (batch, *shape), dtype=np.uint8)
    return rng.uniform(-1, 1, (batch, *shape)).astype(dtype_of(precision))


def draw_labels(model: Model, batch: int) -> Labels:
    """Labels that go through the classes, the last one first, so that no two classes look alike."""
    classes = model.plan().classes
    labels: Labels = (classes - 1 - np.arange(batch) * 2) % classes
    return labels


def unbalanced_labels(model: Model, batch: int) -> Labels:
    """The last class for every second image and the others in turn, so that the gradients of a batch do not cancel."""
    last, turn = model.plan().classes - 1, np.arange(batch)
    labels: Labels = np.where(turn % 2 == 0, last, turn // 2 % max(last, 1))
    return labels


def calmed(question: Question) -> Question:
    """The same question with scores near 0, and with gradients that do not cancel: faults in the way back show best so.

    The rounding errors of the scores go into the gradient of every score, and from there all the way back. With a small
    last layer they are so small that a fault of 0.05 % anywhere is many times as large. Of that layer's kernel every
    class has one sign, and the last class, which is the first label, weighs most, so that the gradients of an image do
    not cancel where they are summed. No decision of a layer in front of it moves. The last layer is a dense one without
    activation, and the softmax comes next.
    """
    last = max(spec.layer for spec in question.plan.parameters)
    classes = question.plan.classes
    parameters = dict(question.parameters)
    kernel = parameters[f"{last}.kernel"]
    signs = np.array([*[0.25] * (classes - 1), -1.0], kernel.dtype) if classes > 1 else 1
    parameters[f"{last}.kernel"] = np.abs(kernel) * signs
    exact = {name: Numbers.exact(array) for name, array in parameters.items()}
    scores = forward(question.plan, exact, Numbers.exact(question.images)).outputs[-2]
    largest = (scores.scale + np.abs(scores.value)).max()
    factor = 2.0 ** -np.ceil(np.log2(8 * largest)) if largest else 1.0
    for name, array in parameters.items():
        if name.startswith(f"{last}."):
            parameters[name] = (array * factor).astype(array.dtype)
    return replace(question, parameters=parameters)
