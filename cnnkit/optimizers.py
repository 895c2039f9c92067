"""Optimizers and learning-rate schedules: data, plus one update rule each in plain arithmetic.

An update rule uses only `+ - * / **` and their in-place forms, so the same lines run on any array type: an array that
can be changed in place is, one that cannot is replaced, and the caller goes on with what is returned. Scalars are
Python floats, which promote no array.

In the formulas p is a parameter, g its gradient, t the number of this step counted from 1, and every operation is
element by element. With `clip_global_norm=c`, all gradients are first multiplied by min(1, c / n), n being the square
root of the sum of squares over all of them (Pascanu, Mikolov and Bengio, 2013, algorithm 1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypeVar

from cnnkit.errors import OptionError

A = TypeVar("A", bound=Any)
"""Any array type with the arithmetic operators."""


def _require(
    owner: object, name: str, *, least: float = 0.0, below: float = math.inf, above: float = -math.inf
) -> None:
    value = getattr(owner, name)
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not (least <= value < below and value > above):
        bounds = f"more than {above:g}" if above >= least else f"at least {least:g}"
        bounds += f" and less than {below:g}" if below < math.inf else ""
        raise OptionError(f"{type(owner).__name__}: {name} is {value!r}; expected a finite number of {bounds}.")
    if isinstance(value, float):
        object.__setattr__(owner, name, float(value))  # a NumPy scalar would make float32 arrays float64


# ---------------------------------------------------------------------------------------------------------- schedules


@dataclass(frozen=True)
class ConstantRate:
    """The same learning rate at every step; what a plain number means."""

    rate: float

    def __post_init__(self) -> None:
        """Check the range."""
        _require(self, "rate")

    def at(self, step: int) -> float:  # noqa: ARG002 - every schedule is asked alike
        """The learning rate of step `step`, counted from 0."""
        return self.rate


@dataclass(frozen=True)
class StepDecay:
    """`rate * factor ** floor(step / every)`, steps counted from 0."""

    rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require(self, "rate")
        _require(self, "every", least=1)
        _require(self, "factor")

    def at(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        return self.rate * self.factor ** (step // self.every)


@dataclass(frozen=True)
class CosineDecay:
    """`final + (rate - final) * (1 + cos(pi * min(step, steps) / steps)) / 2`, steps counted from 0.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), equation 5, without restarts.
    """

    rate: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require(self, "rate")
        _require(self, "steps", least=1)
        _require(self, "final")

    def at(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        return self.final + (self.rate - self.final) * (1 + math.cos(math.pi * min(step, self.steps) / self.steps)) / 2


Schedule: TypeAlias = ConstantRate | StepDecay | CosineDecay


def rate_at(learning_rate: float | Schedule, step: int) -> float:
    """The learning rate of step `step`, counted from 0; a plain number is the same at every step."""
    return learning_rate.at(step) if isinstance(learning_rate, Schedule) else float(learning_rate)


# --------------------------------------------------------------------------------------------------------- optimizers


class Optimizer(ABC):
    """What a backend asks of an optimizer. Every optimizer is a frozen dataclass with these members."""

    learning_rate: float | Schedule
    clip_global_norm: float | None

    @property
    @abstractmethod
    def slot_names(self) -> tuple[str, ...]:
        """The arrays kept for each parameter, zero at first, in the order in which `update` takes and returns them."""

    @abstractmethod
    def coefficients(self, step: int) -> tuple[float, ...]:
        """What in the formula depends on the step, counted from 0: always as many numbers, worked out on the host."""

    @abstractmethod
    def apply(self, p: A, g: A, slots: Sequence[A], coefficients: Sequence[Any]) -> tuple[A, tuple[A, ...]]:
        """One step for one array: the new parameter and the new slots. `g` may be overwritten.

        `coefficients` are floats, or scalars of an engine that compiles this arithmetic once for all steps.
        """

    def update(self, p: A, g: A, slots: Sequence[A], step: int) -> tuple[A, tuple[A, ...]]:
        """`apply` with the `coefficients` of `step`, counted from 0."""
        return self.apply(p, g, slots, self.coefficients(step))

    def clip_factor(self, sum_of_squares: float) -> float:
        """What every gradient is multiplied by, given the sum of squares over all of them; 1.0 without a limit."""
        if self.clip_global_norm is None:
            return 1.0
        norm = math.sqrt(sum_of_squares)
        return self.clip_global_norm / norm if norm > self.clip_global_norm else 1.0

    def _check_common(self) -> None:
        if not isinstance(self.learning_rate, Schedule):
            _require(self, "learning_rate")
        if self.clip_global_norm is not None:
            _require(self, "clip_global_norm", above=0.0)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent; with `momentum`, in the form of Sutskever et al. (2013) that PyTorch uses.

    ::

        g = g + weight_decay * p
        v = momentum * v + g
        p = p - learning_rate * v                    or, with nesterov,   p - learning_rate * (g + momentum * v)

    Slots: `velocity` (v) when momentum is not 0.
    """

    learning_rate: float | Schedule
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_global_norm: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        self._check_common()
        _require(self, "momentum", below=1.0)
        _require(self, "weight_decay")
        if not isinstance(self.nesterov, bool):
            raise OptionError(f"SGD: nesterov is {self.nesterov!r}; expected True or False.")
        if self.nesterov and not self.momentum:
            raise OptionError(
                "SGD: nesterov is True with momentum 0, which changes nothing. Give a momentum such as 0.9."
            )

    @property
    def slot_names(self) -> tuple[str, ...]:
        """`velocity`, when there is momentum."""
        return ("velocity",) if self.momentum else ()

    def coefficients(self, step: int) -> tuple[float]:
        """The learning rate."""
        return (rate_at(self.learning_rate, step),)

    def apply(self, p: A, g: A, slots: Sequence[A], coefficients: Sequence[Any]) -> tuple[A, tuple[A, ...]]:
        """The formula of the class."""
        (rate,) = coefficients
        if self.weight_decay:
            g += self.weight_decay * p
        if not self.momentum:
            g *= rate
            p -= g
            return p, ()
        (v,) = slots
        v *= self.momentum
        v += g
        p -= rate * (g + self.momentum * v) if self.nesterov else rate * v
        return p, (v,)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Kingma and Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1.

    ::

        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g ** 2
        p = p - learning_rate * (m / (1 - beta_1 ** t)) / (sqrt(v / (1 - beta_2 ** t)) + epsilon)

    Slots: `m` and `v`. Epsilon stands outside the root and after the bias correction.
    """

    learning_rate: float | Schedule = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    clip_global_norm: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        self._check_common()
        _check_adam(self)

    @property
    def slot_names(self) -> tuple[str, ...]:
        """`m` and `v`, the moving averages of the gradient and of its square."""
        return ("m", "v")

    def coefficients(self, step: int) -> tuple[float, float]:
        """The learning rate over the correction of m, and the correction of v."""
        return _adam_coefficients(self, step)

    def apply(self, p: A, g: A, slots: Sequence[A], coefficients: Sequence[Any]) -> tuple[A, tuple[A, ...]]:
        """The formula of the class."""
        return _adam(self, p, g, slots, coefficients)


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), algorithm 2, the decay times the rate.

    ::

        p = p - learning_rate * weight_decay * p
        then Adam's formula

    Slots: `m` and `v`.
    """

    learning_rate: float | Schedule = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip_global_norm: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        self._check_common()
        _check_adam(self)
        _require(self, "weight_decay")

    @property
    def slot_names(self) -> tuple[str, ...]:
        """`m` and `v`, the moving averages of the gradient and of its square."""
        return ("m", "v")

    def coefficients(self, step: int) -> tuple[float, float, float]:
        """What decay leaves of the parameter; then those of Adam."""
        return 1.0 - rate_at(self.learning_rate, step) * self.weight_decay, *_adam_coefficients(self, step)

    def apply(self, p: A, g: A, slots: Sequence[A], coefficients: Sequence[Any]) -> tuple[A, tuple[A, ...]]:
        """The formula of the class."""
        kept, *of_adam = coefficients
        p *= kept
        return _adam(self, p, g, slots, of_adam)


def _check_adam(optimizer: Adam | AdamW) -> None:
    _require(optimizer, "beta_1", below=1.0)
    _require(optimizer, "beta_2", below=1.0)
    _require(optimizer, "epsilon", above=0.0)


def _adam_coefficients(optimizer: Adam | AdamW, step: int) -> tuple[float, float]:
    t = step + 1
    return rate_at(optimizer.learning_rate, step) / (1.0 - optimizer.beta_1**t), 1.0 - optimizer.beta_2**t


def _adam(
    optimizer: Adam | AdamW, p: A, g: A, slots: Sequence[A], coefficients: Sequence[Any]
) -> tuple[A, tuple[A, ...]]:
    m, v = slots
    rate, correction = coefficients
    m *= optimizer.beta_1
    m += (1.0 - optimizer.beta_1) * g
    v *= optimizer.beta_2
    v += (1.0 - optimizer.beta_2) * (g * g)
    root = (v / correction) ** 0.5
    root += optimizer.epsilon
    p -= m * rate / root
    return p, (m, v)


# -------------------------------------------------------------------------------------------------------------- files

_OPTIMIZERS: Mapping[str, type[SGD | Adam | AdamW]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
_SCHEDULES: Mapping[str, type[ConstantRate | StepDecay | CosineDecay]] = {
    "constant": ConstantRate,
    "step": StepDecay,
    "cosine": CosineDecay,
}


def optimizer_to_dict(optimizer: Optimizer) -> dict[str, Any]:
    """Plain data for a file: `{"kind": "adam", "learning_rate": 0.001, ...}`; a schedule is a table with its own kind."""
    kind = next((kind for kind, known in _OPTIMIZERS.items() if type(optimizer) is known), None)
    if kind is None:
        raise OptionError(
            f"{type(optimizer).__name__} is not an optimizer that a file can hold; those are "
            f"{', '.join(known.__name__ for known in _OPTIMIZERS.values())}. Use one of them."
        )
    data = {"kind": kind, **asdict(optimizer)}  # type: ignore[call-overload] # every optimizer is a dataclass
    if isinstance(optimizer.learning_rate, Schedule):
        schedule = next(name for name, known in _SCHEDULES.items() if type(optimizer.learning_rate) is known)
        data["learning_rate"] = {"kind": schedule, **asdict(optimizer.learning_rate)}
    return {name: value for name, value in data.items() if value is not None}


def optimizer_from_dict(data: Mapping[str, Any]) -> SGD | Adam | AdamW:
    """The optimizer that `optimizer_to_dict` wrote, or that a preset describes; an `OptionError` for anything else."""
    fields = dict(data)
    if isinstance(fields.get("learning_rate"), Mapping):
        fields["learning_rate"] = _build(_SCHEDULES, fields["learning_rate"], "schedule")
    return _build(_OPTIMIZERS, fields, "optimizer")


def _build(kinds: Mapping[str, type[A]], data: Mapping[str, Any], what: str) -> A:
    fields = dict(data)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise OptionError(f"{what} kind is {kind!r}; expected one of {', '.join(kinds)}.")
    known = kinds[kind].__dataclass_fields__
    for name in fields:
        if name not in known:
            raise OptionError(f"{name!r} is not an option of {what} '{kind}'; its options are {', '.join(known)}.")
    try:
        built: A = kinds[kind](**fields)
    except TypeError as error:
        raise OptionError(f"{what} '{kind}' needs all of {', '.join(known)}: {error}.") from None
    return built
