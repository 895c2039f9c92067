"""Where a loss stopped being a number: the first step, and in it the first layer."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Parameters
from cnnkit.backend import Backend
from cnnkit.datasets import Dataset
from cnnkit.errors import NonFiniteLoss
from cnnkit.evaluation import BATCH_SIZE
from cnnkit.optimizers import Optimizer, rate_at
from cnnkit.parameters import own_parameters
from cnnkit.plan import Plan
from cnnkit.state import TrainingState


def explain_non_finite(
    backend: Backend,
    plan: Plan,
    start: TrainingState,
    optimizer: Optimizer,
    data: Dataset,
    order: NDArray[np.int64],
    batch_size: int,
) -> NonFiniteLoss:
    """Repeat the steps of `order` from `start`, one at a time, and say where the first NaN or infinity comes from.

    `data` is the training set in the program's precision. The steps are the same as before, since training depends on
    nothing but state and data.
    """
    program = backend.compile_training(plan, start, optimizer)
    before = start
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        loss = float(program.step(data.images[rows], data.labels[rows]))
        if not math.isfinite(loss):
            where = _where(backend, plan, before.parameters, data, rows, "training set")
            where = where or "the loss itself: every layer's output is finite"
            return _error(f"the loss of {plan.model.title} became {loss}", before.step, where, optimizer)
        before = program.state()
    what = f"the parameters of {plan.model.title} became NaN or infinite"
    name = _broken_parameter(plan, before.parameters)
    if name is None:
        return _error(what, before.step - 1, "an update that did not go wrong when it was repeated", optimizer)
    layer = int(name.partition(".")[0])
    where = (
        f"layers[{layer}] ({type(plan.model.layers[layer]).__name__}): the step left its parameter '{name}' not finite"
    )
    return _error(what, before.step - 1, where, optimizer)


def explain_scores(
    backend: Backend, plan: Plan, state: TrainingState, optimizer: Optimizer, data: Dataset, name: str
) -> NonFiniteLoss:
    """Say where the scores of `data`, the set called `name`, stop being numbers with the parameters of `state`."""
    batches = np.array_split(np.arange(len(data)), -(-len(data) // BATCH_SIZE))
    places = (_where(backend, plan, state.parameters, data, rows, name) for rows in batches)
    where = next(filter(None, places), "scores that were finite when they were computed again")
    what = f"the scores of {plan.model.title} for the {name} became NaN"
    return _error(what, state.step - 1, where, optimizer)


def _where(
    backend: Backend, plan: Plan, parameters: Parameters, data: Dataset, rows: NDArray[np.int64], name: str
) -> str | None:
    """The first place, in the order of computation, that holds something else than finite numbers; None if none does."""
    images = data.images[rows]
    if not np.isfinite(images).all():
        return f"the images: image {_first_broken(images, rows)} of the {name} holds NaN or infinity"
    model = plan.model
    broken = _broken_parameter(plan, parameters)
    for index, layer in enumerate(model.layers):
        if broken and broken.startswith(f"{index}."):
            return f"layers[{index}] ({type(layer).__name__}): the step before left its parameter '{broken}' not finite"
        if index == len(model.layers) - 1:
            break
        prefix = model.prefix(index).plan()
        output = backend.compile(prefix, own_parameters(prefix, parameters)).predict(images)
        if not np.isfinite(output).all():
            return (
                f"layers[{index}] ({type(layer).__name__}): its output for image {_first_broken(output, rows)} of the "
                f"{name} is not finite, though its input is"
            )
    return None


def _broken_parameter(plan: Plan, parameters: Parameters) -> str | None:
    return next((spec.name for spec in plan.parameters if not np.isfinite(parameters[spec.name]).all()), None)


def _first_broken(values: NDArray[np.floating], rows: NDArray[np.int64]) -> int:
    finite = np.isfinite(values).reshape(len(rows), -1).all(axis=1)
    return int(rows[int(np.argmin(finite))])


def _error(what: str, step: int, where: str, optimizer: Optimizer) -> NonFiniteLoss:
    rate = rate_at(optimizer.learning_rate, step)
    fix = f"Try a lower learning rate (it was {rate:g}), or clip the gradients with clip_global_norm=1.0."
    if where.startswith("the images"):
        fix = "Repair or remove the image."
    return NonFiniteLoss(
        f"{what} at step {step}. It began in {where}. {fix}",
        step=step,
        where=where,
    )
