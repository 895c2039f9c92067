"""Dropouts that are broken."""

import threading
from dataclasses import dataclass, fields

import numpy as np

from cnnkit.backend import Backend
from cnnkit.plan import DropoutOp, Operation
from cnnkit.randomness import dropout_mask
from mutants.breaking import Replanned, Wrapped, backend, mutant


@dataclass(frozen=True, kw_only=True)
class OwnDropoutOp(Operation):
    """A dropout that the backend does itself."""

    rate: float


class Drawing:
    """What the masks of a program depend on."""

    def __init__(self):
        self.training, self.program = False, None

    @property
    def seed(self):
        return getattr(self.program, "seed", 0)

    @property
    def step(self):
        return getattr(self.program, "steps", 0)

    def mask(self, op, x, **other):
        """The right mask, but for what is given: seed, step, layer, shape, rate."""
        right = {"seed": self.seed, "step": self.step, "layer": op.layer, "shape": x.shape, "rate": op.rate}
        return dropout_mask(**{**right, **other}, dtype=x.dtype)


class Dropping(Wrapped):
    """Tells its drawing when it trains."""

    def __init__(self, inner, plan, drawing):
        super().__init__(inner, plan)
        self.drawing, self.lock = drawing, threading.Lock()
        drawing.program = inner

    def _while(self, training, call, *arguments):
        with self.lock:
            self.drawing.training = training
            return call(*arguments)

    def predict(self, images):
        return self._while(False, self.inner.predict, images)

    def gradients(self, images, labels):
        return self._while(True, self.inner.gradients, images, labels)

    def step(self, images, labels):
        return self._while(True, self.inner.step, images, labels)


@dataclass(frozen=True)
class OwnDropout(Backend):
    """Does dropout by `drop(drawing, op, x) -> (y, pullback)`."""

    precision: str
    drop: object

    def _backend(self, drawing):
        def own(op, _plan):
            given = {field.name: getattr(op, field.name) for field in fields(op)}
            return OwnDropoutOp(**given) if isinstance(op, DropoutOp) else op

        def kernel(op, x):
            return self.drop(drawing, op, x)

        return Replanned(backend(self.precision, {OwnDropoutOp: kernel}), own)

    def compile(self, plan, parameters):
        drawing = Drawing()
        return Dropping(self._backend(drawing).compile(plan, parameters), plan, drawing)

    def compile_training(self, plan, state, optimizer):
        drawing = Drawing()
        return Dropping(self._backend(drawing).compile_training(plan, state, optimizer), plan, drawing)


def broken_dropout(broken, *meant):
    """The decorated function `(drawing, op, x)` gives the output and the way back."""

    def note(drop):
        def make(precision):
            return OwnDropout(precision, drop)

        make.__name__, make.__module__ = drop.__name__, drop.__module__
        mutant(broken, *meant)(make)
        return drop

    return note


def times(x, mask):
    return x * mask, lambda dy: (dy * mask,)


def masked(drawing, op, x, **other):
    return times(x, drawing.mask(op, x, **other)) if drawing.training else times(x, 1)


@broken_dropout("Dropout drops in predict too", "v43.dropout.predict", "v43.dropout.off")
def dropout_in_predict(drawing, op, x):
    return times(x, drawing.mask(op, x))


@broken_dropout("A training program drops in predict too", "v43.dropout.off")
def dropout_in_predict_of_a_training_program(drawing, op, x):
    return times(x, drawing.mask(op, x)) if drawing.program.__class__.__name__.endswith("Training") else times(x, 1)


@broken_dropout("Dropout never drops", "v31.dropout.input", "v31.dropout.scores")
def dropout_never(_drawing, _op, x):
    return times(x, 1)


@broken_dropout("Dropout draws the mask of the step that has been", "v31.dropout.next-step", "v31.dropout.resumed")
def dropout_mask_of_the_last_step(drawing, op, x):
    return masked(drawing, op, x, step=max(0, drawing.step - 1))


@broken_dropout("Dropout draws the mask of the step after the next", "v31.dropout.mask", "v31.dropout.next-step")
def dropout_mask_of_a_later_step(drawing, op, x):
    return masked(drawing, op, x, step=drawing.step + 1)


@broken_dropout("Every step drops the same", "v31.dropout.next-step", "v31.dropout.resumed")
def dropout_mask_of_the_first_step(drawing, op, x):
    return masked(drawing, op, x, step=0)


@broken_dropout("Every dropout layer draws the mask of layer 0", "v31.dropout.mask", "v31.dropout.scores")
def dropout_mask_of_another_layer(drawing, op, x):
    return masked(drawing, op, x, layer=0)


@broken_dropout("The seed is ignored by dropout", "v31.dropout.seed", "v31.dropout.steps-resumed")
def dropout_ignores_the_seed(drawing, op, x):
    return masked(drawing, op, x, seed=0)


@broken_dropout("Dropout draws numbers of its own", "v31.dropout.input", "v31.dropout.scores")
def dropout_draws_its_own_numbers(drawing, op, x):
    mask = (np.random.default_rng(drawing.step).random(x.shape) >= op.rate).astype(x.dtype) / (1 - op.rate)
    return times(x, mask.astype(x.dtype) if drawing.training else 1)


@broken_dropout("What dropout keeps is not scaled up", "v31.dropout.input", "v31.dropout.scores")
def dropout_does_not_scale(drawing, op, x):
    return times(x, (drawing.mask(op, x) > 0).astype(x.dtype) if drawing.training else 1)


@broken_dropout(
    "What dropout keeps is scaled down in predict, not up in training", "v31.dropout.input", "v31.dropout.scores"
)
def dropout_scales_in_predict(drawing, op, x):
    return times(x, (drawing.mask(op, x) > 0).astype(x.dtype) if drawing.training else 1 - op.rate)


@broken_dropout("The rate is the share that is kept", "v31.dropout.rate-tenth", "v31.dropout.rate-nine-tenths")
def dropout_rate_is_what_is_kept(drawing, op, x):
    return masked(drawing, op, x, rate=1 - op.rate) if op.rate else times(x, 1)


@broken_dropout("All images of a batch share the mask of the first", "v31.dropout.input", "v31.dropout.scores")
def dropout_same_for_all_images(drawing, op, x):
    return times(x, drawing.mask(op, x)[:1] if drawing.training else 1)


@broken_dropout(
    "All places of an image share a mask: whole channels are dropped", "v31.dropout.input", "v31.dropout.image"
)
def dropout_of_whole_channels(drawing, op, x):
    if not drawing.training or x.ndim == 2:
        return masked(drawing, op, x)
    return times(x, drawing.mask(op, x)[:, :1, :1])


@broken_dropout("The gradient passes dropout unmasked", "v31.dropout.scores", "v31.dropout.in-a-row")
def dropout_gradient_unmasked(drawing, op, x):
    return masked(drawing, op, x)[0], lambda dy: (dy,)


@broken_dropout("The gradient is masked, but not scaled", "v31.dropout.scores", "v31.dropout.in-a-row")
def dropout_gradient_unscaled(drawing, op, x):
    y, pullback = masked(drawing, op, x)
    return y, lambda dy: (pullback(dy)[0] * (1 - op.rate),)
