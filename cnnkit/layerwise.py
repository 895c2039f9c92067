"""A backend made of kernels: one function for each kind of operation, composed here into programs.

This is the short way to a backend of your own. A kernel takes an operation of the plan, its input and its parameters,
all of them arrays of your engine with the batch axis first, and returns its output, `(batch, *op.output_shape)`::

    def dense(op, x, kernel, bias=None):
        return x @ kernel if bias is None else x @ kernel + bias

    LayerwiseBackend("mine", Kernels({DenseOp: dense, FlattenOp: flatten, SoftmaxOp: softmax, ...}))

For a backend that trains, every kernel returns the way back too: a function from the gradient of its output to a tuple
of the gradients of its input and of each parameter. The loss has the last word, and begins the way back::

    def dense(op, x, kernel, bias=None):
        y = x @ kernel if bias is None else x @ kernel + bias

        def pullback(dy):
            return (dy @ kernel.T, x.T @ dy) if bias is None else (dy @ kernel.T, x.T @ dy, dy.sum(0))

        return y, pullback

    Kernels({DenseOp: dense, ...}, cross_entropy=cross_entropy)

The operations, and what each has beyond `input_shape` and `output_shape`, are in `cnnkit.plan`; their formulas are in
docs/reference/layers.md. What does not depend on an engine is done here: checks of what comes in, dropout, the loop over
layers and back, the optimizers, states. Dropout needs no kernel; without a kernel for another operation, models that
have it are refused.

An array of the engine needs `+ - * / **`, with their in-place forms if it can be changed at all, and `.shape`.
`to_engine` and `to_host` say how one is made and read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import numpy as np

from cnnkit.arrays import Array, Images, Labels, Parameters, check_images, check_labels, dtype_of
from cnnkit.backend import Backend, Program, TrainingProgram
from cnnkit.errors import BackendError, DataError, TrainingNotSupported, UnsupportedModel
from cnnkit.features import feature_of
from cnnkit.optimizers import Optimizer
from cnnkit.parameters import check_parameters
from cnnkit.plan import Conv2DOp, DenseOp, DropoutOp, Operation, Plan
from cnnkit.plugins import Unsupported
from cnnkit.randomness import dropout_mask
from cnnkit.state import TrainingState, check_state

Kernel: TypeAlias = Callable[..., Any]
"""`(op, x, *parameters) -> y`, or `-> (y, pullback)` where `pullback(dy) -> (dx, *gradients of the parameters)`.

`x` has the batch axis first and at least one image. The parameters are the kernel and, if the layer has one, the bias.
Arrays that come in are not changed. Several threads may be in one kernel.
"""

CrossEntropy: TypeAlias = Callable[[Any, Labels], tuple[Any, Any]]
"""`(scores, labels) -> (loss, d_scores)`: the mean cross-entropy of a batch, by log-sum-exp, and its gradient.

`scores` is `(batch, classes)`, what goes into the softmax; `labels` are a NumPy array of whole numbers, checked.
"""


def _as_it_is(array: Array) -> Any:
    return array


@dataclass(frozen=True)
class Kernels:
    """An engine's part of a backend.

    Args:
        by_operation: A kernel for each kind of operation that the engine can run.
        cross_entropy: The loss. With it, every kernel returns its way back; without it the backend only predicts.
        to_engine: A NumPy array to an array of the engine. What it is given is in the precision, in C order, and nobody
            else's: the engine may keep it.
        to_host: An array of the engine to a NumPy array.
    """

    by_operation: Mapping[type[Operation], Kernel]
    cross_entropy: CrossEntropy | None = None
    to_engine: Callable[[Array], Any] = _as_it_is
    to_host: Callable[[Any], Array] = np.asarray

    def missing(self, plan: Plan) -> list[Unsupported]:
        """What in `plan` has no kernel."""
        return without_kernel(plan, self.by_operation)


def without_kernel(plan: Plan, there: Container[type[Operation]]) -> list[Unsupported]:
    """What in `plan` needs a kernel that is not `there`: the answer of `cnnkit_supports`, or its beginning.

    A plugin lists the kinds of operations in its own module, so that the question can be answered without the engine.
    """
    return [
        Unsupported(f"layers[{op.layer}]", feature_of(op), f"the backend has no kernel for {type(op).__name__}")
        for op in plan.operations
        if type(op) not in there and not isinstance(op, DropoutOp)
    ]


@final
@dataclass(frozen=True)
class LayerwiseBackend(Backend):
    """Runs a model layer by layer with the kernels of an engine.

    Args:
        name: The backend's name, for messages.
        kernels: The engine.
        precision: "float32" or "float64".
        supports: What the engine refuses beyond missing kernels: the same function as the plugin's `cnnkit_supports`.
    """

    name: str
    kernels: Kernels
    precision: str = "float32"
    supports: Callable[[Plan], Sequence[Unsupported]] = field(default=lambda _: ())

    def compile(self, plan: Plan, parameters: Parameters) -> Program:
        """A program that predicts; `UnsupportedModel` for a model that the engine cannot run."""
        self._accept(plan)
        check_parameters(plan, parameters)
        return _LayerwiseProgram(_Network(plan, self.kernels, dtype_of(self.precision)), parameters)

    def compile_training(self, plan: Plan, state: TrainingState, optimizer: Optimizer) -> TrainingProgram:
        """A program that trains; `TrainingNotSupported` where the kernels have no way back."""
        if self.kernels.cross_entropy is None:
            raise TrainingNotSupported(
                f"Backend '{self.name}' only predicts: its kernels have no way back and it has no cross_entropy. "
                "Train on another one: `cnnkit why MODEL --all` says which do."
            )
        plan.require_trainable()
        self._accept(plan)
        check_state(plan, state, optimizer)
        return _LayerwiseTraining(_Network(plan, self.kernels, dtype_of(self.precision)), state, optimizer)

    def _accept(self, plan: Plan) -> None:
        for refusal in [*self.kernels.missing(plan), *self.supports(plan)]:
            raise UnsupportedModel(self.name, refusal.path, refusal.feature, refusal.reason)


@final
@dataclass(frozen=True)
class _Network:
    """The loop over the layers, there and back. Holds no numbers."""

    plan: Plan
    kernels: Kernels
    dtype: np.dtype[Any]

    def received(self, array: Array) -> Any:
        """`array` as the engine's own, in the precision."""
        return self.kernels.to_engine(array.astype(self.dtype, order="C", subok=False))  # a copy, always

    def returned(self, array: Any) -> Array:
        """An array of the engine as a fresh NumPy array, in the precision."""
        return np.array(self.kernels.to_host(array), self.dtype, order="C")

    def predict(self, images: Images, parameters: Mapping[str, Any]) -> Array:
        images = check_images(images, self.plan.input_shape, self.dtype)
        if len(images) == 0:
            return np.empty((0, *self.plan.output_shape), self.dtype)
        x = self.received(images)
        for op in self.plan.operations:
            if not isinstance(op, DropoutOp):
                x, _ = self.forward(op, x, parameters)
        return self.returned(x)

    def gradients(
        self, images: Images, labels: Labels, parameters: Mapping[str, Any], seed: int, step: int
    ) -> tuple[Any, dict[str, Any]]:
        assert self.kernels.cross_entropy is not None  # noqa: S101 - compile_training has made sure
        images = check_images(images, self.plan.input_shape, self.dtype)
        if len(images) == 0:
            raise DataError("the batch has 0 images, which have no mean loss. Give at least one image.")
        labels = check_labels(labels, len(images), self.plan.classes)
        x = self.received(images)
        ways_back: list[tuple[Operation, Any, WayBack]] = []
        for op in self.plan.operations[:-1]:
            before = x
            if isinstance(op, DropoutOp):
                shape = (len(images), *op.output_shape)
                mask = self.kernels.to_engine(dropout_mask(seed, step, op.layer, shape, op.rate, self.dtype))
                x, pullback = x * mask, lambda dy, mask=mask: (dy * mask,)
            else:
                x, pullback = self.forward(op, x, parameters)
            if ways_back or _names(op):  # before the first layer that learns, nobody asks for a gradient
                ways_back.append((op, before, pullback))
        loss, dy = self.kernels.cross_entropy(x, labels)
        found: dict[str, Any] = {}
        for op, before, pullback in reversed(ways_back):
            dy, *of_parameters = _pulled_back(op, pullback, dy, [before, *_own(op, parameters)])
            found.update(zip(_names(op), of_parameters, strict=True))
        return loss, {spec.name: found[spec.name] for spec in self.plan.parameters}

    def forward(self, op: Operation, x: Any, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
        """The output of `op` and, from a kernel that trains, its way back."""
        found = self.kernels.by_operation[type(op)](op, x, *_own(op, parameters))
        if self.kernels.cross_entropy is None:
            y, pullback = found, None
        elif isinstance(found, tuple) and len(found) == 2:
            y, pullback = found
        else:
            raise BackendError(
                f"{_kernel_of(op)} returned {_described(found)}; expected (y, pullback), because there is a "
                "cross_entropy. Return the way back too, or leave out cross_entropy for a backend that only predicts."
            )
        _check_shape(op, "an output", y, (*x.shape[:1], *op.output_shape))
        return y, pullback


WayBack: TypeAlias = Callable[[Any], Any]


def _pulled_back(op: Operation, pullback: WayBack, dy: Any, given: Sequence[Any]) -> Sequence[Any]:
    """The gradients of what was `given` to a kernel, its input and parameters; a `BackendError` if they are not that."""
    found = pullback(dy)
    if not isinstance(found, tuple) or len(found) != len(given):
        wanted = ", ".join(["dx", "gradient of the kernel", "gradient of the bias"][: len(given)])
        raise BackendError(
            f"the way back of {_kernel_of(op)} returned {_described(found)}; expected a tuple of {len(given)}: "
            f"({wanted}{',' * (len(given) == 1)})."
        )
    for gradient, array in zip(found, given, strict=True):
        _check_shape(op, "a gradient", gradient, array.shape)
    return found


def _check_shape(op: Operation, what: str, array: Any, shape: Sequence[int]) -> None:
    """Say at which kernel a shape goes wrong: what is made of it further on would be a riddle."""
    if tuple(getattr(array, "shape", ())) != tuple(shape):
        raise BackendError(f"{_kernel_of(op)} returned {what} that is {_described(array)}; expected shape {shape}.")


def _kernel_of(op: Operation) -> str:
    return f"the kernel for {type(op).__name__} (layers[{op.layer}])"


def _described(found: Any) -> str:
    if isinstance(found, tuple):
        return f"a tuple of {len(found)}"
    shape = getattr(found, "shape", None)
    return f"a {type(found).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")


def _names(op: Operation) -> list[str]:
    if not isinstance(op, (Conv2DOp, DenseOp)):
        return []
    return [op.kernel] if op.bias is None else [op.kernel, op.bias]


def _own(op: Operation, parameters: Mapping[str, Any]) -> list[Any]:
    return [parameters[name] for name in _names(op)]


@final
class _LayerwiseProgram(Program):
    def __init__(self, network: _Network, parameters: Parameters) -> None:
        self.network = network
        self.parameters = {name: network.received(array) for name, array in parameters.items()}

    def predict(self, images: Images) -> Array:
        with np.errstate(all="ignore"):  # NaN and infinity are results, not warnings
            return self.network.predict(images, self.parameters)


@final
class _LayerwiseTraining(TrainingProgram):
    def __init__(self, network: _Network, state: TrainingState, optimizer: Optimizer) -> None:
        self.network, self.optimizer = network, optimizer
        self.parameters = {name: network.received(array) for name, array in state.parameters.items()}
        self.slots = {
            name: tuple(network.received(state.slots[slot][name]) for slot in optimizer.slot_names)
            for name in state.parameters
        }
        self.steps, self.seed = state.step, state.seed
        self.lock = threading.Lock()  # callers in several threads see no step half done

    def predict(self, images: Images) -> Array:
        with self.lock, np.errstate(all="ignore"):
            return self.network.predict(images, self.parameters)

    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        with self.lock, np.errstate(all="ignore"):
            loss, found = self.network.gradients(images, labels, self.parameters, self.seed, self.steps)
            return float(loss), {name: self.network.returned(gradient) for name, gradient in found.items()}

    def step(self, images: Images, labels: Labels) -> float:
        with self.lock, np.errstate(all="ignore"):
            loss, found = self.network.gradients(images, labels, self.parameters, self.seed, self.steps)
            factor = 1.0
            if self.optimizer.clip_global_norm is not None:
                # float32 could not hold the square of a large gradient
                squares = (np.square(self.network.returned(g), dtype=np.float64).sum() for g in found.values())
                factor = self.optimizer.clip_factor(float(sum(squares)))
            for name, gradient in found.items():
                self.parameters[name], self.slots[name] = self.optimizer.update(
                    self.parameters[name], gradient * factor, self.slots[name], self.steps
                )
            self.steps += 1
            return float(loss)

    def state(self) -> TrainingState:
        with self.lock:
            parameters = {name: self.network.returned(array) for name, array in self.parameters.items()}
            slots = {
                slot: {name: self.network.returned(arrays[place]) for name, arrays in self.slots.items()}
                for place, slot in enumerate(self.optimizer.slot_names)
            }
            return TrainingState(parameters, slots, self.steps, self.seed)
