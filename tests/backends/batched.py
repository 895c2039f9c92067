"""Short ways to a result of the batched layers: a network on any engine, and programs of `numpy-batched`."""

from dataclasses import dataclass, field

import numpy as np
from networks import random_parameters

from cnnkit import SGD, fresh_state, get_backend
from cnnkit.conformance.measure import compare
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.plan import DropoutOp
from cnnkit.randomness import dropout_kept
from cnnkit_batched.engine import Arena
from cnnkit_batched.network import Network
from cnnkit_batched.vector import Layout


def run(calls):
    """Make all calls, without warnings: NaN and infinity are results."""
    with np.errstate(all="ignore"):
        for call in calls:
            call()


@dataclass
class Loose(Arena):
    """Every array by itself and full of NaN: whoever reads what nobody wrote shows it."""

    engine: object

    def keep(self, shape, dtype=None):
        array = self.engine.empty(shape, dtype)
        if np.dtype(dtype or self.engine.dtype).kind == "f":
            run(self.engine.fill(array, np.nan))
        return array

    def scratch(self, name, shape, dtype=None):  # noqa: ARG002 - nobody shares
        return self.keep(shape, dtype)


@dataclass
class Tight(Loose):
    """Scratches of one name are one piece of memory, as in a program. For NumPy."""

    pieces: dict = field(default_factory=dict)

    def scratch(self, name, shape, dtype=None):
        dtype = np.dtype(dtype or self.engine.dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        whole = self.pieces.setdefault(name, np.full(1 << 23, 0xFF, np.uint8))  # floats are NaN
        assert size <= len(whole)
        return whole[:size].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Passes:
    """What came out of a network: `gradients` by name, `vector` as the engine wrote them."""

    output: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray
    gradients: dict
    vector: np.ndarray

    def arrays(self):
        return [self.output, self.probabilities, self.losses, self.vector]


def there_and_back(engine, model, images, labels, *, parameters=None, arena=Loose, seed=0, step=0):
    """Forward and backward through `model` on `engine`, in its dtype, with the dropout of one step."""
    xp, plan, dtype = getattr(engine, "xp", np), model.plan(), engine.dtype
    layout = Layout(plan)
    packed = layout.pack(parameters or random_parameters(plan, seed, dtype), dtype)
    vector, gradient = xp.asarray(packed), xp.asarray(np.zeros_like(packed))
    network = Network(engine, arena(engine), plan, layout, vector, gradient, len(images))
    pixels = images.astype(dtype) * dtype.type(network.scale) + dtype.type(network.offset)
    network.images[...] = xp.asarray(pixels)
    network.head.labels[...] = xp.asarray(labels.astype(np.int32))
    network.head.weight = 1 / len(images)
    for dropping in network.droppings:
        op = dropping.op
        kept = dropout_kept(seed, step, op.layer, (len(images), *op.output_shape), op.rate)
        dropping.kept[...] = xp.asarray(kept)
    run([*network.reset, *network.forward, *network.finish, *network.backward])
    arrays = (network.output, network.probabilities, network.head.losses, gradient)
    output, probabilities, losses, found = (np.array(on_host(array)) for array in arrays)
    return Passes(output, probabilities, losses, layout.unpack(found), found)


def on_host(array):
    """An array of any library of the standard as one of NumPy."""
    return array if isinstance(array, np.ndarray) else np.from_dlpack(array)


def masks_of(plan, count, seed=0, step=0):
    """The dropout masks of a step."""
    return {
        op.layer: dropout_kept(seed, step, op.layer, (count, *op.output_shape), op.rate) / (1 - op.rate)
        for op in plan.operations
        if isinstance(op, DropoutOp)
    }


def worst_units(passes, model, images, labels, *, parameters=None, seed=0):
    """The worst error of loss and gradients, in units of rounding; a `Mismatch` above the suite's threshold."""
    dtype = passes.vector.dtype
    parameters = parameters or random_parameters(model.plan(), seed, dtype)
    question = Question(
        model, parameters, images.astype(dtype), ask="gradients", precision=dtype.name, labels=labels, seed=seed
    )
    right = expected_answer(question).numbers
    answers = {"loss": passes.losses.mean()} | {f"gradient of {name}": g for name, g in passes.gradients.items()}
    assert answers.keys() == right.keys()
    return max(compare(what, answer, right[what], dtype.name) for what, answer in answers.items())


# ----------------------------------------------------------------------------------------------------------- programs


def backend(precision="float64", threads=1, **options):
    """`numpy-batched`."""
    return get_backend("numpy-batched", precision=precision, threads=threads, **options)


def trainer(model, optimizer=None, *, precision="float64", threads=1, seed=0, **options):
    """A training program with random parameters, biases included, at step 0."""
    plan, optimizer = model.plan(), optimizer or SGD(learning_rate=0.1)
    state = fresh_state(random_parameters(plan, seed, np.dtype(precision)), optimizer, seed)
    return backend(precision, threads, **options).compile_training(plan, state, optimizer)


def predictor(model, parameters, *, precision="float64", threads=1, **options):
    """A program that predicts."""
    return backend(precision, threads, **options).compile(model.plan(), parameters)
