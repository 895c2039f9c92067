"""Tools that break a right backend: a mutant is a few lines under one of these decorators.

Each takes the sentence that says what is broken, and the cases that are meant to turn red: their ids, or how they begin, with a dot at the end.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cnnkit.backend import Backend, TrainingProgram
from cnnkit.layerwise import Kernels, LayerwiseBackend
from mutants.right import BY_OPERATION, convolve, cross_entropy

TOO_LITTLE_RAN = "suite.enough-ran"
"""Meant by mutants under which no single case turns red, but the run as a whole."""


@dataclass(frozen=True)
class Mutant:
    """A broken backend. `make(precision)` makes it; `refuses` is what its plugin's `cnnkit_supports` says."""

    name: str
    group: str
    broken: str
    make: Callable[[str], Backend]
    meant: tuple[str, ...]
    precision: str = "float32"
    refuses: Callable[[Any], list[Any]] | None = None

    def __str__(self):
        return self.name


MUTANTS: list[Mutant] = []


def mutant(broken, *meant, **options):
    """The decorated function makes the backend for a precision."""

    def note(make):
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", make.__name__).lower().replace("_", "-")
        group = make.__module__.rpartition(".")[2]
        MUTANTS.append(Mutant(name, group, broken, make, meant, **options))
        return make

    return note


def _decorator(build):
    """A decorator like `mutant` whose decorated function goes through `build(function, precision)` to a backend."""

    def decorate(*arguments, **options):
        *first, broken = arguments[: build.leading + 1]
        meant = arguments[build.leading + 1 :]

        def note(function):
            def make(precision):
                return build(*first, function, precision)

            make.__name__, make.__module__ = function.__name__, function.__module__
            mutant(broken, *meant, **options)(make)
            return function

        return note

    return decorate


def backend(precision, kernels=None, loss=cross_entropy, **rest):
    """The right backend but for some kernels, or the loss."""
    return LayerwiseBackend("mutant", Kernels({**BY_OPERATION, **(kernels or {})}, loss, **rest), precision)


# ------------------------------------------------------------------------------------------------------------ kernels


def _kernel(operation, function, precision):
    return backend(precision, {operation: function})


_kernel.leading = 1
broken_kernel = _decorator(_kernel)
"""`@broken_kernel(Conv2DOp, broken, *meant)`: the decorated function is the kernel of that operation."""


def _loss(function, precision):
    return backend(precision, loss=function)


_loss.leading = 0
broken_loss = _decorator(_loss)
"""The decorated function is the cross-entropy."""


def fed(kernel, change):
    """`kernel` on other inputs: `change(op, x, *parameters)` gives the operation, the input and the parameters."""
    return lambda op, x, *parameters: kernel(*change(op, x, *parameters))


class Pass:
    """One pass through a kernel and back, for a mutant to change: `d_parameters` are those of `parameters`."""

    def __init__(self, kernel, op, x, parameters, dy):
        self.right, self.op, self.x, self.parameters, self.dy = kernel, op, x, parameters, dy
        self.dx, *self.d_parameters = self.again()

    def again(self, **other):
        """The right gradients, of the same pass but for what is given: op, x, parameters or dy."""
        given = {name: other.get(name, getattr(self, name)) for name in ("op", "x", "parameters", "dy")}
        return self.right(given["op"], given["x"], *given["parameters"])[1](given["dy"])


def broken_back(operation, broken, *meant, **options):
    """The decorated function changes the gradients of a `Pass` through the kernel of `operation`; forward is right."""
    kernel = BY_OPERATION[operation]

    def note(change):
        def with_broken_back(op, x, *parameters):
            def back(dy):
                through = Pass(kernel, op, x, parameters, dy)
                change(through)
                return through.dx, *through.d_parameters

            return kernel(op, x, *parameters)[0], back

        with_broken_back.__name__, with_broken_back.__module__ = change.__name__, change.__module__
        broken_kernel(operation, broken, *meant, **options)(with_broken_back)
        return change

    return note


def ended(kernel, change):
    """`kernel` with another output: `change(op, x, y)`; the way back is right."""

    def broken(op, x, *parameters):
        y, pullback = kernel(op, x, *parameters)
        return change(op, x, y).astype(y.dtype), pullback

    return broken


def viewed(view):
    """A convolution that takes its kernel for `view(kernel)`, there and back; `view` undoes itself."""

    def broken(op, x, kernel, *bias):
        y, pullback = convolve(op, x, view(kernel), *bias)

        def back(dy):
            dx, d_kernel, *d_bias = pullback(dy)
            return dx, view(d_kernel), *d_bias

        return y, back

    return broken


def roomy(op):
    """`op` with so much padding after the image that no window, however wrong, leaves it."""
    (top, bottom), (left, right) = op.padding
    return replace(op, padding=((top, bottom + 40), (left, right + 40)))


# --------------------------------------------------------------------------------------------------------------- plans


@dataclass(frozen=True)
class Replanned(Backend):
    """Compiles another plan: `change(op, plan)` gives the operations one by one, None to leave one out."""

    inner: Backend
    change: Callable[[Any, Any], Any]

    def _plan(self, plan):
        return replace(plan, operations=tuple(filter(None, (self.change(op, plan) for op in plan.operations))))

    def compile(self, plan, parameters):
        return self.inner.compile(self._plan(plan), parameters)

    def compile_training(self, plan, state, optimizer):
        return self.inner.compile_training(self._plan(plan), state, optimizer)


def _plan(function, precision):
    return Replanned(backend(precision), function)


_plan.leading = 0
broken_plan = _decorator(_plan)
"""The decorated function `(op, plan)` gives the operation that is computed instead."""


# ------------------------------------------------------------------------------------------------------------ programs


class Wrapped(TrainingProgram):
    """A right program to break: every call goes to `self.inner`."""

    def __init__(self, inner, plan):
        self.inner, self.plan = inner, plan

    def predict(self, images):
        return self.inner.predict(images)

    def gradients(self, images, labels):
        return self.inner.gradients(images, labels)

    def step(self, images, labels):
        return self.inner.step(images, labels)

    def state(self):
        return self.inner.state()


@dataclass(frozen=True)
class Wrapping(Backend):
    """Wraps the programs of `inner` in `program(inner_program, plan)`."""

    inner: Backend
    program: Callable[[Any, Any], Any]

    def compile(self, plan, parameters):
        return self.program(self.inner.compile(plan, parameters), plan)

    def compile_training(self, plan, state, optimizer):
        return self.program(self.inner.compile_training(plan, state, optimizer), plan)


def _program(function, precision):
    return Wrapping(backend(precision), function)


_program.leading = 0
broken_program = _decorator(_program)
"""The decorated class is a `Wrapped`."""


def seeing(change):
    """A `Wrapped` whose images are `change(images, plan)` first."""

    class Seeing(Wrapped):
        def predict(self, images):
            return self.inner.predict(change(images, self.plan))

        def gradients(self, images, labels):
            return self.inner.gradients(change(images, self.plan), labels)

        def step(self, images, labels):
            return self.inner.step(change(images, self.plan), labels)

    return Seeing


def _sight(function, precision):
    return Wrapping(backend(precision), seeing(function))


_sight.leading = 0
broken_sight = _decorator(_sight)
"""The decorated function `(images, plan)` gives the images that are taken instead."""


# ---------------------------------------------------------------------------------------------------------- optimizers


class Twisted:
    """An optimizer with another rule: `rule(optimizer, p, g, slots, step)`. It has what a layerwise backend asks for."""

    def __init__(self, right, rule):
        self.right, self.rule = right, rule
        self.slot_names, self.clip_global_norm = right.slot_names, right.clip_global_norm

    def clip_factor(self, sum_of_squares):
        return self.right.clip_factor(sum_of_squares)

    def update(self, p, g, slots, step):
        return self.rule(self.right, p, g, slots, step)


@dataclass(frozen=True)
class OtherOptimizer(Backend):
    """Trains with `change(optimizer)`."""

    inner: Backend
    change: Callable[[Any], Any]

    def compile(self, plan, parameters):
        return self.inner.compile(plan, parameters)

    def compile_training(self, plan, state, optimizer):
        return self.inner.compile_training(plan, state, self.change(optimizer))


def _optimizer(function, precision):
    return OtherOptimizer(backend(precision), function)


_optimizer.leading = 0
broken_optimizer = _decorator(_optimizer)
"""The decorated function gives another optimizer for the one that was asked for."""


def _rule(kind, function, precision):
    return OtherOptimizer(
        backend(precision), lambda right: Twisted(right, function) if isinstance(right, kind) else right
    )


_rule.leading = 1
broken_rule = _decorator(_rule)
"""`@broken_rule(Adam, broken, *meant)`: the decorated function is the update rule of that kind of optimizer."""


def _state(function, precision):
    return OtherState(backend(precision), function)


@dataclass(frozen=True)
class OtherState(Backend):
    """Trains from `change(state)`."""

    inner: Backend
    change: Callable[[Any], Any]

    def compile(self, plan, parameters):
        return self.inner.compile(plan, parameters)

    def compile_training(self, plan, state, optimizer):
        return self.inner.compile_training(plan, self.change(state), optimizer)


@dataclass(frozen=True)
class OtherParameters(Backend):
    """Begins with `change(array)` for every parameter."""

    inner: Backend
    change: Callable[[Any], Any]

    def _changed(self, parameters):
        return {name: self.change(array) for name, array in parameters.items()}

    def compile(self, plan, parameters):
        return self.inner.compile(plan, self._changed(parameters))

    def compile_training(self, plan, state, optimizer):
        changed = replace(state, parameters=self._changed(state.parameters))
        return self.inner.compile_training(plan, changed, optimizer)


_state.leading = 0
broken_state = _decorator(_state)
"""The decorated function gives another state for the one that training begins with."""
