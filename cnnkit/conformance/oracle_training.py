"""The oracle in training: one step of every optimizer in float64 with scales, and whole runs in which rounding is tried out.

The formulas are those of docs/reference/optimizers.md, written once more: no line is shared with `cnnkit.optimizers`,
which every backend may use and which is judged too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnkit.conformance.measure import Numbers
from cnnkit.conformance.oracle import Drawing, Values, gradients
from cnnkit.optimizers import SGD, Adam, AdamW, ConstantRate, CosineDecay, Optimizer, StepDecay
from cnnkit.plan import Plan


@dataclass(frozen=True)
class OracleState:
    """Where the oracle stands in training: as `TrainingState`, every number with its scale."""

    parameters: Values
    slots: Mapping[str, Values]
    step: int
    seed: int


def take_step(
    plan: Plan, state: OracleState, optimizer: Optimizer, images: Numbers, labels: Any
) -> tuple[Numbers, OracleState, float]:
    """One update: the loss before it, the state after it, and the margin of the gradients' decisions."""
    loss, of_parameters, trace = gradients(plan, state.parameters, images, labels, Drawing(state.seed, state.step))
    with np.errstate(all="ignore"):
        after = update(optimizer, state, _clipped(of_parameters, optimizer.clip_global_norm))
    return loss, after, trace.margin


def update(optimizer: Optimizer, state: OracleState, of_parameters: Values) -> OracleState:
    """The state after one update with the gradients `of_parameters`."""
    parameters: dict[str, Numbers] = {}
    slots: dict[str, dict[str, Numbers]] = {slot: {} for slot in optimizer.slot_names}
    for name, p in state.parameters.items():
        old = [state.slots[slot][name] for slot in optimizer.slot_names]
        match optimizer:
            case SGD():
                parameters[name], new = _sgd(optimizer, p, of_parameters[name], old, state.step)
            case Adam() | AdamW():
                parameters[name], new = _adam(optimizer, p, of_parameters[name], old, state.step)
            case _:
                raise AssertionError(f"the oracle does not know {type(optimizer).__name__}")
        for slot, numbers in zip(optimizer.slot_names, new, strict=True):
            slots[slot][name] = numbers
    return OracleState(parameters, slots, state.step + 1, state.seed)


def _rate(optimizer: Optimizer, step: int) -> float:
    match optimizer.learning_rate:
        case ConstantRate(rate=rate):
            return rate
        case StepDecay(rate=rate, every=every, factor=factor):
            return float(rate * factor ** math.floor(step / every))
        case CosineDecay(rate=rate, steps=steps, final=final):
            done = min(step / steps, 1.0)
            return final + 0.5 * (rate - final) * (1 + math.cos(math.pi * done))
        case number:
            return float(number)


def _times(factor: float, x: Numbers) -> Numbers:
    value = factor * x.value
    return Numbers(value, np.abs(value) + abs(factor) * x.scale)


def _add(x: Numbers, y: Numbers) -> Numbers:
    value = x.value + y.value
    return Numbers(value, np.abs(value) + x.scale + y.scale)


def _clipped(of_parameters: Values, limit: float | None) -> Values:
    if limit is None:
        return of_parameters
    arrays = list(of_parameters.values())
    norm = math.sqrt(sum(float((g.value**2).sum()) for g in arrays))
    blur = sum(float((np.abs(g.value) * g.scale).sum()) for g in arrays) / norm if norm else 0.0
    if norm <= limit:
        return of_parameters
    factor = limit / norm
    relative = 1.0 + blur / norm  # of the factor, in u's
    return {
        name: Numbers(factor * g.value, factor * (g.scale + np.abs(g.value) * relative))
        for name, g in of_parameters.items()
    }


def _sgd(
    optimizer: SGD, p: Numbers, g: Numbers, slots: Sequence[Numbers], step: int
) -> tuple[Numbers, tuple[Numbers, ...]]:
    rate = _rate(optimizer, step)
    if optimizer.weight_decay:
        g = _add(g, _times(optimizer.weight_decay, p))
    if not slots:
        return _add(p, _times(-rate, g)), ()
    v = _add(_times(optimizer.momentum, slots[0]), g)
    direction = _add(g, _times(optimizer.momentum, v)) if optimizer.nesterov else v
    return _add(p, _times(-rate, direction)), (v,)


def _adam(
    optimizer: Adam | AdamW, p: Numbers, g: Numbers, slots: Sequence[Numbers], step: int
) -> tuple[Numbers, tuple[Numbers, ...]]:
    rate, t = _rate(optimizer, step), step + 1
    if isinstance(optimizer, AdamW):
        p = _add(p, _times(-rate * optimizer.weight_decay, p))
    square = Numbers(g.value**2, g.value**2 + 2 * np.abs(g.value) * g.scale)
    m = _add(_times(optimizer.beta_1, slots[0]), _times(1 - optimizer.beta_1, g))
    v = _add(_times(optimizer.beta_2, slots[1]), _times(1 - optimizer.beta_2, square))
    mean = _times(1 / (1 - optimizer.beta_1**t), m)
    power = _times(1 / (1 - optimizer.beta_2**t), v)
    root = np.sqrt(power.value)
    under = root + optimizer.epsilon
    root_scale = np.divide(power.scale, 2 * root, out=np.zeros_like(root), where=root > 0)
    move = mean.value / under
    move_scale = np.abs(move) * (1 + (np.abs(under) + root_scale) / under) + mean.scale / under
    return _add(p, _times(-rate, Numbers(move, move_scale))), (m, v)


# --------------------------------------------------------------------------------------------------------- whole runs


def train(
    plan: Plan,
    state: OracleState,
    optimizer: Optimizer,
    batches: Sequence[tuple[Numbers, Any]],
    roundoff: float,
    tries: int = 3,
) -> tuple[Numbers, OracleState]:
    """The losses `(steps,)` and the last state of a run, their scales found by trying.

    Carried along to first order, scales grow beyond use within a few dozen steps. So the run is done `tries` times
    more, each gradient moved at random by one unit of its own scale and each parameter by one rounding; the scale of
    an array is the widest distance that this makes anywhere in it, in u's.
    """
    clean = _run(plan, state, optimizer, batches, None, 0.0)
    spread_losses = np.zeros(len(batches))
    spread = dict.fromkeys(_flat(clean[1]), 0.0)
    for number in range(tries):
        losses, last = _run(plan, state, optimizer, batches, np.random.default_rng(number), roundoff)
        spread_losses = np.maximum(spread_losses, np.abs(losses - clean[0]))
        for key, array in _flat(last).items():
            spread[key] = max(spread[key], float(np.abs(array - _flat(clean[1])[key]).max(initial=0.0)))
    losses_scale = np.maximum.accumulate(spread_losses) / roundoff + np.abs(clean[0]) + 1.0

    def scaled(key: tuple[str, str], numbers: Numbers) -> Numbers:
        return Numbers(numbers.value, spread[key] / roundoff + np.abs(numbers.value))

    last = clean[1]
    return Numbers(clean[0], losses_scale), OracleState(
        {name: scaled(("", name), numbers) for name, numbers in last.parameters.items()},
        {
            slot: {name: scaled((slot, name), numbers) for name, numbers in arrays.items()}
            for slot, arrays in last.slots.items()
        },
        last.step,
        last.seed,
    )


def _flat(state: OracleState) -> dict[tuple[str, str], Any]:
    groups = {"": state.parameters, **state.slots}
    return {(group, name): numbers.value for group, arrays in groups.items() for name, numbers in arrays.items()}


def _run(
    plan: Plan,
    state: OracleState,
    optimizer: Optimizer,
    batches: Sequence[tuple[Numbers, Any]],
    noise: np.random.Generator | None,
    roundoff: float,
) -> tuple[Any, OracleState]:
    losses = []
    for images, labels in batches:
        drawing = Drawing(state.seed, state.step)
        loss, found, _ = gradients(plan, _settled(state.parameters, noise, roundoff), images, labels, drawing)
        found = {name: Numbers.exact(g.value + _moves(noise, g.scale) * roundoff) for name, g in found.items()}
        losses.append(float(loss.value))
        after = update(optimizer, state, _clipped(found, optimizer.clip_global_norm))
        slots = {slot: _settled(arrays, None, roundoff) for slot, arrays in after.slots.items()}
        state = OracleState(_settled(after.parameters, noise, roundoff), slots, after.step, after.seed)
    return np.array(losses), state


def _settled(arrays: Values, noise: np.random.Generator | None, roundoff: float) -> dict[str, Numbers]:
    """The same numbers as if they were exact, moved by one rounding each where there is noise."""
    return {
        name: Numbers.exact(numbers.value + _moves(noise, np.abs(numbers.value)) * roundoff)
        for name, numbers in arrays.items()
    }


def _moves(noise: np.random.Generator | None, scale: Any) -> Any:
    return np.zeros_like(scale) if noise is None else scale * noise.choice([-1.0, 1.0], scale.shape)
