"""Backends whose numbers are right, and whose conduct is not: what they do to arrays, to each other, and to odd calls."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnnkit.backend import Backend
from cnnkit.errors import DataError, UnsupportedModel
from cnnkit.layerwise import Kernels, LayerwiseBackend
from cnnkit.plan import AvgPool2DOp, Conv2DOp, DropoutOp, MaxPool2DOp
from cnnkit.plugins import Unsupported
from mutants.breaking import (
    TOO_LITTLE_RAN,
    Twisted,
    Wrapped,
    Wrapping,
    backend,
    broken_program,
    broken_sight,
    mutant,
)
from mutants.right import BY_OPERATION, cross_entropy, right


@dataclass(frozen=True)
class Compiling(Backend):
    """The right backend with another way to compile: `change(compile, plan, parameters)`, and for training likewise."""

    precision: str
    change: Callable[..., Any]
    change_training: Callable[..., Any] | None = None

    def compile(self, plan, parameters):
        return self.change(right(self.precision).compile, plan, parameters)

    def compile_training(self, plan, state, optimizer):
        change = self.change_training or (lambda compile_training, *given: compile_training(*given))
        return change(right(self.precision).compile_training, plan, state, optimizer)


# -------------------------------------------------------------------------------------------- what was handed over


@broken_program("predict scales its images in place", "v48.untouched.tanh", "v48.untouched.softmax")
class ImagesOverwritten(Wrapped):
    """Where they can be written to."""

    def predict(self, images):
        output = self.inner.predict(images)
        if images.flags.writeable and images.dtype.kind == "f":
            images *= 0.5
        return output


@broken_program("step sorts the labels it was handed", "conduct.interleaved.training", "v48.fresh.gradients")
class LabelsOverwritten(Wrapped):
    """After it has used them."""

    def step(self, images, labels):
        loss = self.inner.step(images, labels)
        if labels.flags.writeable:
            labels.sort()
        return loss


@broken_program(
    "gradients subtracts the mean from its images in place",
    "v48.untouched.rescale.training",
    "v48.untouched.sigmoid.training",
)
class ImagesOverwrittenInTraining(Wrapped):
    """Only while training."""

    def gradients(self, images, labels):
        answer = self.inner.gradients(images, labels)
        if images.flags.writeable and images.dtype.kind == "f":
            images -= images.mean()
        return answer


@broken_program("epoch shuffles the order it was handed", "v32.epoch.in-order", "v32.epoch.permuted")
class OrderOverwritten(Wrapped):
    """After it has used it."""

    def epoch(self, images, labels, order, batch_size):
        totals = super().epoch(images, labels, order, batch_size)
        if order.flags.writeable:
            order[:] = order[::-1].copy()
        return totals


@broken_program("Arrays that are read-only are refused", "v48.images.read-only.predict", "v48.bytes.read-only.predict")
class ReadOnlyRefused(Wrapped):
    """As a function that writes into them would."""

    def predict(self, images):
        if not images.flags.writeable:
            raise ValueError("assignment destination is read-only")
        return self.inner.predict(images)


@broken_program("Only training refuses arrays that are read-only", "v19.labels.read-only", "v19.labels.equal")
class ReadOnlyRefusedInTraining(Wrapped):
    """As PyTorch warns."""

    def step(self, images, labels):
        if not (images.flags.writeable and labels.flags.writeable):
            raise ValueError("assignment destination is read-only")
        return self.inner.step(images, labels)


@broken_sight(
    "Images in Fortran order are read as if they were in C order",
    "v48.bytes.fortran.predict",
    "v48.images.fortran.predict",
)
def fortran_order_misread(images, _plan):
    return images.ravel(order="K").reshape(images.shape) if images.flags.f_contiguous else images


@broken_sight(
    "A view is read as the array behind it, from its beginning",
    "conduct.threads.made-elsewhere",
    "v48.images.broadcast.predict",
)
def views_read_from_the_beginning(images, _plan):
    base = images.base
    if isinstance(base, np.ndarray) and base.dtype == images.dtype and base.size >= images.size:
        return base.ravel()[: images.size].reshape(images.shape)
    return images


@broken_sight(
    "Negative strides are taken for positive ones", "v48.bytes.backwards.predict", "v48.images.backwards.predict"
)
def negative_strides_misread(images, _plan):
    turned = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in images.strides)
    return images[turned]


@broken_sight(
    "Strides are ignored: every other image is read as every image", "v48.bytes.gaps.predict", "v48.images.gaps.predict"
)
def strides_of_the_batch_misread(images, _plan):
    if images.ndim == 4 and len(images) > 1 and images.strides[0] > images[0].size * images.itemsize > 0:
        return np.lib.stride_tricks.as_strided(images, strides=(images[0].size * images.itemsize, *images.strides[1:]))
    return images


@broken_sight("uint8 images are not taken", "v39.rescale.uint8", "v39.avg-pool.uint8")
def uint8_not_taken(images, _plan):
    if images.dtype == np.uint8:
        raise TypeError("expected float32 images")
    return images


@broken_sight("Images of a wrong shape are reshaped if their size fits", "v46.images.flat", "v46.images.turned")
def images_reshaped(images, plan):
    images = np.asarray(images)
    if (
        images.ndim
        and images.shape[1:] != plan.input_shape
        and images.size == len(images) * int(np.prod(plan.input_shape))
    ):
        return images.reshape(len(images), *plan.input_shape)
    return images


@broken_sight("Images of any dtype are taken, and rounded", "v46.images.float64", "v46.images.int8")
def images_of_any_dtype(images, _plan):
    images = np.asarray(images)
    return images.astype(np.float32) if images.dtype.kind in "biuf" and images.dtype != np.uint8 else images


@broken_program("Images of a wrong shape are a ValueError, not a DataError", "v46.images.features", "v46.images.larger")
class WrongShapeRaisesAnother(Wrapped):
    """The error of the engine."""

    def predict(self, images):
        if np.shape(images)[1:] != self.plan.input_shape:
            raise ValueError("could not broadcast input array")
        return self.inner.predict(images)


# ------------------------------------------------------------------------------------------------- what comes back


@broken_program("predict gives float64", "conduct.twice.predict", "dense.forward.one-feature")
class OutputsInFloat64(Wrapped):
    """In a float32 program."""

    def predict(self, images):
        return self.inner.predict(images).astype(np.float64)


@broken_program("predict gives arrays that are read-only", "dense.forward.wide", "dense.forward.tall")
class OutputsReadOnly(Wrapped):
    """As JAX does."""

    def predict(self, images):
        output = self.inner.predict(images)
        output.flags.writeable = False
        return output


@broken_program("predict gives lists", "v48.untouched.softmax", "v48.untouched.flatten")
class OutputsAreLists(Wrapped):
    """Not NumPy arrays."""

    def predict(self, images):
        return self.inner.predict(images).tolist()


class FancyArray(np.ndarray):
    """An array of the engine."""


@broken_program(
    "predict gives arrays of the engine, a subclass of NumPy's", "v48.untouched.softmax", "v48.untouched.flatten"
)
class OutputsOfTheEngine(Wrapped):
    """Which behave otherwise somewhere."""

    def predict(self, images):
        return self.inner.predict(images).view(FancyArray)


@broken_program("predict writes every answer into the same array", "v48.fresh.output")
class OutputsAliasABuffer(Wrapped):
    """The answer before changes under its owner's hands."""

    def predict(self, images):
        output = self.inner.predict(images)
        self.buffers = getattr(self, "buffers", {})
        kept = self.buffers.setdefault(output.shape, np.empty_like(output))
        kept[...] = output
        return kept


@broken_program("gradients writes every answer into the same arrays", "v48.fresh.gradients")
class GradientsAliasABuffer(Wrapped):
    """The answer before changes under its owner's hands."""

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        self.kept = getattr(self, "kept", {name: array.copy() for name, array in found.items()})
        for name, array in found.items():
            self.kept[name][...] = array
        return loss, dict(self.kept)


@broken_program("state gives the arrays that training goes on with", "v48.fresh.state", "state.handed-over.sgd")
class StateNotCopied(Wrapped):
    """Later steps change it."""

    def state(self):
        return replace(self.inner.state(), parameters=dict(self.inner.parameters))


@broken_program("state gives the slots that training goes on with", "v48.fresh.state", "state.handed-over.momentum")
class SlotsOfTheStateNotCopied(Wrapped):
    """Later steps change them."""

    def state(self):
        state = self.inner.state()
        slots = {
            slot: {name: arrays[place] for name, arrays in self.inner.slots.items()}
            for place, slot in enumerate(state.slots)
        }
        return replace(state, slots=slots)


@broken_program("state gives what it gave the first time", "v48.fresh.state")
class StateKept(Wrapped):
    """Whatever has been learned since."""

    def state(self):
        self.kept = getattr(self, "kept", None) or self.inner.state()
        return self.kept


@broken_program(
    "An image that models pass through unchanged comes back as the caller's own array",
    "v48.untouched.identity",
    "v48.untouched.window-of-one",
)
class OutputMayBeTheInput(Wrapped):
    """Where nothing has to be computed."""

    def predict(self, images):
        output = self.inner.predict(images)
        if output.shape == images.shape and output.dtype == images.dtype and np.array_equal(output, images):
            return images
        return output


@broken_program(
    "Images, not features: what a convolution puts out comes as (batch, channels, height, width)",
    "v11.conv2d.strides-and-dilation.forward",
)
class OutputsChannelsFirst(Wrapped):
    """Under the right shape."""

    def predict(self, images):
        output = self.inner.predict(images)
        return np.moveaxis(output, -1, 1).reshape(output.shape).copy() if output.ndim == 4 else output


@broken_program("gradients leaves out the biases", "dense.gradient.wide", "dense.gradient.tall")
class GradientsWithoutBiases(Wrapped):
    """As if they were not learned."""

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        return loss, {name: array for name, array in found.items() if name.endswith("kernel")}


@broken_program(
    "gradients gives the gradients first and the loss second", "dense.gradient.no-bias", "dense.gradient.one-feature"
)
class GradientsTheOtherWayRound(Wrapped):
    """As some engines do."""

    def gradients(self, images, labels):
        return self.inner.gradients(images, labels)[::-1]


@broken_program("step gives the loss after the step", "optimizer.step.loss-before", "optimizer.step.many-layers")
class LossAfterTheStep(Wrapped):
    """The contract says before."""

    def step(self, images, labels):
        self.inner.step(images, labels)
        return self.inner.gradients(images, labels)[0]


@broken_program("step gives the loss of the step before", "optimizer.schedule.constant.adamw")
class LossOfTheStepBefore(Wrapped):
    """As a device that runs ahead would."""

    def step(self, images, labels):
        loss = self.inner.step(images, labels)
        self.kept, loss = loss, getattr(self, "kept", loss)
        return loss


@broken_program("step gives nothing", "optimizer.step.slot-names", "optimizer.step.loss-before")
class StepGivesNothing(Wrapped):
    """The contract says the loss."""

    def step(self, images, labels):
        self.inner.step(images, labels)


class LazyLoss:
    """A loss that is worked out when somebody asks, of what there is by then."""

    def __init__(self, ask):
        self.ask = ask

    def __float__(self):
        return float(self.ask())


@broken_program(
    "A loss that is asked for later is that of another batch", "conduct.epoch.reused-memory", "conduct.epoch.other-data"
)
class LossWorkedOutLate(Wrapped):
    """It may stay on the device until float(), but must not change there."""

    def step(self, images, labels):
        self.last = self.inner.step(images, labels)
        return LazyLoss(lambda: self.last)


# ------------------------------------------------------------------------------------------------- leaks and memory


@mutant(
    "The parameters are not copied: the program changes with the caller's arrays",
    "conduct.copy.parameters",
    "conduct.copy.parameters-later",
)
def parameters_not_copied(precision):
    class Later(Wrapped):
        def __init__(self, make):
            self.make = make

        def predict(self, images):
            return self.make().predict(images)

    def compile_late(compile_now, plan, parameters):
        compile_now(plan, parameters)
        held = dict(parameters)
        return Later(lambda: compile_now(plan, held))

    return Compiling(precision, compile_late)


@mutant(
    "The state that training begins with is not copied: steps write into the caller's arrays",
    "conduct.copy.state-left-alone",
)
def state_written_to(precision):
    class Writing(Wrapped):
        def __init__(self, inner, state):
            self.inner, self.begin = inner, state

        def step(self, images, labels):
            loss = self.inner.step(images, labels)
            for name, array in self.begin.parameters.items():
                if array.flags.writeable:
                    array[...] = self.inner.parameters[name]
            return loss

    def compile_training(make, plan, state, optimizer):
        return Writing(make(plan, state, optimizer), state)

    return Compiling(precision, lambda make, *given: make(*given), compile_training)


@mutant(
    "The slots that training begins with are not copied: steps write into the caller's arrays",
    "conduct.copy.state-left-alone",
    "conduct.state.mapping",
)
def slots_written_to(precision):
    class Writing(Wrapped):
        def __init__(self, inner, state):
            self.inner, self.begin = inner, state

        def step(self, images, labels):
            loss = self.inner.step(images, labels)
            for place, arrays in enumerate(self.begin.slots.values()):
                for name, array in arrays.items():
                    array[...] = self.inner.slots[name][place]
            return loss

    def compile_training(make, plan, state, optimizer):
        return Writing(make(plan, state, optimizer), state)

    return Compiling(precision, lambda make, *given: make(*given), compile_training)


@mutant(
    "Compiled programs are kept by plan, parameters included", "conduct.threads.two-programs", "conduct.leak.parameters"
)
def programs_kept_by_plan(precision):
    kept = {}
    return Compiling(precision, lambda make, plan, parameters: kept.setdefault(plan, make(plan, parameters)))


@mutant(
    "Training programs are kept by plan and optimizer: a second one goes on where the first is",
    "conduct.threads.training",
    "conduct.interleaved.training",
)
def training_programs_kept_by_plan(precision):
    kept = {}

    def compile_training(make, plan, state, optimizer):
        return kept.setdefault((plan, repr(optimizer)), make(plan, state, optimizer))

    return Compiling(precision, lambda make, *given: make(*given), compile_training)


@mutant("Compiled operations are kept by the shapes of a plan: other strides meet the first ones", "conduct.leak.plans")
def operations_kept_by_shapes(precision):
    kept = {}

    def compile_once(make, plan, parameters):
        key = plan.layer_shapes, tuple(type(op) for op in plan.operations), plan.parameters, plan.input_shape
        return make(replace(plan, operations=kept.setdefault(key, plan.operations)), parameters)

    return Compiling(precision, compile_once)


@mutant(
    "All programs of a backend share the parameters of the last one that was compiled",
    "conduct.leak.parameters",
    "conduct.threads.two-programs",
)
def parameters_shared_between_programs(precision):
    shared = {}

    class Sharing(Wrapped):
        def __init__(self, make, plan, parameters):
            super().__init__(make(plan, parameters), plan)
            self.make = make
            shared[plan] = {name: array.copy() for name, array in parameters.items()}

        def predict(self, images):
            return self.make(self.plan, shared[self.plan]).predict(images)

    return Compiling(precision, Sharing)


@mutant(
    "All training programs of a backend count their steps together",
    "conduct.predict.between-steps",
    "conduct.leak.optimizers",
)
def steps_counted_together(precision):
    class Counting(Wrapped):
        total = 0

        def step(self, images, labels):
            self.inner.steps += Counting.total
            loss = self.inner.step(images, labels)
            self.inner.steps -= Counting.total
            Counting.total += 1
            return loss

        def predict(self, images):
            return self.inner.predict(images)

    return Wrapping(backend(precision), Counting)


@broken_program(
    "Gradients are added to those of the call before", "v35.conduct.twice.gradients", "conduct.batch.sizes-training"
)
class GradientsAccumulate(Wrapped):
    """As PyTorch does unless they are zeroed."""

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        before = getattr(self, "before", {})
        self.before = {name: array + before.get(name, 0) for name, array in found.items()}
        return loss, {name: array.copy() for name, array in self.before.items()}


@broken_program("A call of gradients is added to the next step", "conduct.epoch.between", "v31.dropout.next-step")
class GradientsLeakIntoTheStep(Wrapped):
    """As PyTorch does unless they are zeroed."""

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        self.left = {name: array.copy() for name, array in found.items()}
        return loss, found

    def step(self, images, labels):
        left, self.left = getattr(self, "left", None), None
        loss = self.inner.step(images, labels)
        if left:
            for name, array in left.items():
                self.inner.parameters[name] = self.inner.parameters[name] - array * array.dtype.type(0.1)
        return loss


@broken_program("gradients makes a step", "v35.conduct.twice.gradients")
class GradientsMakeAStep(Wrapped):
    """And tells what the gradients were."""

    def gradients(self, images, labels):
        answer = self.inner.gradients(images, labels)
        self.inner.step(images, labels)
        return answer


@broken_program("gradients counts as a step", "v31.dropout.next-step")
class GradientsConsumeTheStep(Wrapped):
    """Parameters stay; masks, schedules and bias correction move on."""

    def gradients(self, images, labels):
        answer = self.inner.gradients(images, labels)
        self.inner.steps += 1
        return answer


@broken_program("predict counts as a step", "v43.predict.changes-nothing", "conduct.predict.between-steps")
class PredictConsumesTheStep(Wrapped):
    """Parameters stay; masks, schedules and bias correction move on."""

    def predict(self, images):
        output = self.inner.predict(images)
        if hasattr(self.inner, "steps"):
            self.inner.steps += 1
        return output


@broken_program(
    "A step trains on the sum of the losses, while gradients gives those of the mean",
    "optimizer.step.whole-numbers.sgd",
    "optimizer.step.whole-numbers.adamw",
)
class StepOnTheSum(Wrapped):
    """Two ways that should be one."""

    def step(self, images, labels):
        count = len(images)
        right = self.inner.optimizer
        self.inner.optimizer = Twisted(right, lambda own, p, g, slots, step: own.update(p, g * count, slots, step))
        loss = self.inner.step(images, labels)
        self.inner.optimizer = right
        return loss


@broken_program("gradients leaves dropout out", "v31.dropout.input", "v31.dropout.scores")
class GradientsWithoutDropout(Wrapped):
    """As if it were an evaluation."""

    def gradients(self, images, labels):
        plan = replace(self.plan, operations=tuple(op for op in self.plan.operations if not isinstance(op, DropoutOp)))
        made = right(self.inner.network.dtype.name).compile_training(plan, self.inner.state(), self.inner.optimizer)
        return made.gradients(images, labels)


@broken_program(
    "A step with a label out of range is refused only after the update",
    "v18.labels.negative.step",
    "v18.labels.too-large.step",
)
class RefusedAfterTheUpdate(Wrapped):
    """The state has changed by then."""

    def step(self, images, labels):
        try:
            return self.inner.step(images, labels)
        except DataError:
            fitting = np.clip(labels, 0, self.plan.classes - 1)
            if len(np.shape(fitting)) == 1 and len(fitting) == len(images) and fitting.dtype.kind in "iu":
                self.inner.step(images, fitting)
            raise


@broken_program(
    "From the third call on, predict answers as the second time",
    "conduct.images.bytes-after-floats",
    "conduct.predict.between-steps",
)
class ThirdCallIsTheSecond(Wrapped):
    """For images of the same shape."""

    calls = 0

    def predict(self, images):
        self.calls += 1
        if self.calls > 2 and self.kept.shape[0] == len(images):
            return self.kept.copy()
        self.kept = self.inner.predict(images)
        return self.kept.copy()


@broken_program(
    "predict in a training program uses the parameters it began with",
    "conduct.predict.between-steps",
    "conduct.epoch.between",
)
class PredictWithTheFirstParameters(Wrapped):
    """Whatever has been learned since."""

    def __init__(self, inner, plan):
        super().__init__(inner, plan)
        if hasattr(inner, "optimizer"):
            precision = inner.network.dtype.name
            self.first = right(precision).compile(plan, inner.state().parameters)

    def predict(self, images):
        return getattr(self, "first", self.inner).predict(images)


@broken_program(
    "predict gives the answer before for images of the same shape",
    "conduct.images.bytes-after-floats",
    "conduct.leak.parameters",
)
class AnswersKeptByShape(Wrapped):
    """Whatever they show."""

    def predict(self, images):
        self.kept = getattr(self, "kept", {})
        if images.shape not in self.kept:
            self.kept[images.shape] = self.inner.predict(images)
        return self.kept[images.shape].copy()


@broken_program(
    "predict gives the answer before for the same array, whatever it holds by now", "conduct.predict.between-steps"
)
class AnswersKeptByIdentity(Wrapped):
    """The caller may write into his array."""

    def predict(self, images):
        if getattr(self, "seen", None) is not images:
            self.seen, self.answer = images, self.inner.predict(images)
        return self.answer.copy()


@broken_program("Every call differs a little from the one before", "conduct.twice.predict")
class NeverTwiceTheSame(Wrapped):
    """By a few roundings, as an order of sums that depends on the time would."""

    calls = 0

    def predict(self, images):
        output = self.inner.predict(images)
        self.calls += 1
        return output * (1 + self.calls * np.finfo(output.dtype).eps).astype(output.dtype)


@broken_program(
    "Gradients differ a little from call to call",
    "v35.conduct.twice.gradients",
    "v07.conduct.twice.overlapping-windows",
)
class GradientsNeverTwiceTheSame(Wrapped):
    """As sums by atomic additions do."""

    calls = 0

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        self.calls += 1
        return loss, {
            name: array * (1 + self.calls * np.finfo(array.dtype).eps).astype(array.dtype)
            for name, array in found.items()
        }


@broken_program("Two threads that predict at once share a buffer", "conduct.threads.one-program")
class ThreadsShareABuffer(Wrapped):
    """The later one's images replace the earlier one's."""

    def predict(self, images):
        self.images = images
        time.sleep(0.002)
        images = self.images if np.shape(self.images) == np.shape(images) else images
        return self.inner.predict(images)


@mutant(
    "Two programs share their working memory: one's answer is another's, when they take turns",
    "conduct.threads.two-programs",
)
def programs_share_a_workspace(precision):
    workspace = {}

    class Sharing(Wrapped):
        def predict(self, images):
            output = self.inner.predict(images)
            kept = workspace.setdefault(output.shape, np.empty_like(output))
            kept[...] = output
            return kept

    return Wrapping(backend(precision), Sharing)


@broken_program("A failed call leaves the program unusable", "v46.images.features")
class FailureLeavesItUnusable(Wrapped):
    """The lock is never given back."""

    broken = False

    def _call(self, method, *arguments):
        if self.broken:
            raise RuntimeError("the program is in use")
        try:
            return method(*arguments)
        except Exception:
            self.broken = True
            raise

    def predict(self, images):
        return self._call(self.inner.predict, images)

    def step(self, images, labels):
        return self._call(self.inner.step, images, labels)

    def gradients(self, images, labels):
        return self._call(self.inner.gradients, images, labels)


# --------------------------------------------------------------------------------------------------------- odd sizes


@broken_program("A batch of no images is a ZeroDivisionError", "v49.batch.0.dense", "v49.batch.0.softmax")
class EmptyBatchFails(Wrapped):
    """In predict."""

    def predict(self, images):
        if len(images) == 0:
            raise ZeroDivisionError("division by zero")
        return self.inner.predict(images)


@broken_program("A batch of no images gives an array of shape (0,)", "v49.batch.0.dense", "v49.batch.0.softmax")
class EmptyBatchHasNoShape(Wrapped):
    """In predict."""

    def predict(self, images):
        output = self.inner.predict(images)
        return output if len(images) else output.ravel()


@broken_program("A batch of one image loses its batch axis", "v49.alone.dense.one-image", "v49.alone.softmax.one-image")
class BatchOfOneSqueezed(Wrapped):
    """In predict."""

    def predict(self, images):
        output = self.inner.predict(images)
        return output[0] if len(images) == 1 else output


@broken_program("Images of one pixel lose their axes", "v49.large.avg-pool-global")
class OnePixelSqueezed(Wrapped):
    """In predict."""

    def predict(self, images):
        output = self.inner.predict(images)
        return output.squeeze((1, 2)) if output.ndim == 4 and output.shape[1:3] == (1, 1) else output


@broken_program(
    "Images go through in sixty-fours; the rest gets the answer of the first",
    "conduct.batch.large",
    "v49.large.130x130",
)
class LargeBatchIsTheFirst(Wrapped):
    """In predict."""

    def predict(self, images):
        output = self.inner.predict(images)
        output[64:] = output[:1]
        return output


@broken_program(
    "Images go through in thirty-twos; of an unfinished one, zeros come out",
    "v49.large.130x130",
    "v49.large.66000-pixels",
)
class UnfinishedChunkIsZero(Wrapped):
    """In predict, behind the first thirty-two."""

    def predict(self, images):
        output = self.inner.predict(images)
        if len(images) > 32:
            output[len(images) // 32 * 32 :] = 0
        return output


@broken_program(
    "Gradients of batches beyond 64 images are those of the first 64",
    "conduct.batch.large-gradients",
    "v49.large.130x130.gradient",
)
class GradientsOfTheFirstImages(Wrapped):
    """The loss too."""

    def gradients(self, images, labels):
        return self.inner.gradients(images[:64], labels[:64])

    def step(self, images, labels):
        return self.inner.step(images[:64], labels[:64])


@broken_program("predict answers batches in reverse", "dense.forward.one-feature", "dense.forward.no-bias.wide")
class BatchReversed(Wrapped):
    """Every row is right, at the wrong place."""

    def predict(self, images):
        return self.inner.predict(images)[::-1].copy()


@broken_program(
    "Every image but the first is taken for the first", "dense.forward.one-feature", "dense.forward.no-bias.wide"
)
class FirstImageForAll(Wrapped):
    """In predict."""

    def predict(self, images):
        output = self.inner.predict(images)
        output[1:] = output[:1]
        return output


@broken_program(
    "A batch of another size than the first is refused", "conduct.threads.one-program", "conduct.batch.sizes"
)
class OneBatchSizeOnly(Wrapped):
    """As a graph that is compiled for one shape."""

    def predict(self, images):
        self.size = getattr(self, "size", len(images))
        if len(images) != self.size:
            raise RuntimeError(f"expected {self.size} images")
        return self.inner.predict(images)


@broken_program(
    "A batch whose size differs from the first step's cannot be trained on",
    "conduct.empty-batch.step",
    "v20.epoch.last-batch",
)
class OneBatchSizeInTraining(Wrapped):
    """As a graph that is compiled for one shape."""

    def step(self, images, labels):
        self.size = getattr(self, "size", len(images))
        if len(images) != self.size:
            raise RuntimeError(f"expected {self.size} images")
        return self.inner.step(images, labels)


# --------------------------------------------------------------------------------------------------------- refusals


def refusing(*kinds, where=lambda _: True):
    """The refusals of a plan that has these operations."""

    def refuse(plan):
        return [
            Unsupported(f"layers[{op.layer}]", type(op).__name__, "is not done yet")
            for op in plan.operations
            if isinstance(op, kinds) and where(op)
        ]

    return refuse


def refusing_backend(precision, refuse):
    return LayerwiseBackend("mutant", Kernels(BY_OPERATION, cross_entropy), precision, refuse)


@mutant(
    "Dilation is refused, and nothing said so beforehand", "conv2d.forward.dilation.2", "conv2d.forward.dilation.3x1"
)
def refuses_dilation_undeclared(precision):
    return refusing_backend(precision, refusing(Conv2DOp, where=lambda op: op.dilation != (1, 1)))


@mutant(
    "Padding in average pooling is refused, and nothing said so beforehand",
    "avg-pool.forward.padding",
    "avg-pool.forward.padding-top",
)
def refuses_average_padding_undeclared(precision):
    return refusing_backend(precision, refusing(AvgPool2DOp, where=lambda op: op.padding != ((0, 0), (0, 0))))


@mutant("Dropout is refused, and nothing said so beforehand", "v31.dropout.rate-zero", "v31.dropout.input")
def refuses_dropout_undeclared(precision):
    return refusing_backend(precision, refusing(DropoutOp))


@mutant("Max pooling is refused as it should be, declared beforehand", TOO_LITTLE_RAN, refuses=refusing(MaxPool2DOp))
def refuses_max_pooling(precision):
    return refusing_backend(precision, refusing(MaxPool2DOp))


@mutant("Everything is refused, declared beforehand", TOO_LITTLE_RAN, refuses=refusing(object))
def refuses_everything(precision):
    return refusing_backend(precision, refusing(object))


@mutant("All convolutions are refused, declared beforehand", TOO_LITTLE_RAN, refuses=refusing(Conv2DOp))
def refuses_convolutions(precision):
    return refusing_backend(precision, refusing(Conv2DOp))


@broken_program(
    "Dilation is refused only when the program runs", "conv2d.forward.dilation.2", "conv2d.forward.dilation.3x1"
)
class RefusesLate(Wrapped):
    """The contract says before any arithmetic, when it is compiled."""

    def predict(self, images):
        for op in self.plan.operations:
            if isinstance(op, Conv2DOp) and op.dilation != (1, 1):
                raise UnsupportedModel("mutant", f"layers[{op.layer}]", "conv2d.dilation", "the engine has none")
        return self.inner.predict(images)


@broken_program("Dilation is a RuntimeError of the engine", "conv2d.forward.dilation.2", "conv2d.forward.dilation.3x1")
class RefusesByAnotherError(Wrapped):
    """The contract says UnsupportedModel."""

    def __init__(self, inner, plan):
        super().__init__(inner, plan)
        if any(isinstance(op, Conv2DOp) and op.dilation != (1, 1) for op in plan.operations):
            raise RuntimeError("CPU implementation does not support dilations")


@mutant(
    "Training is not supported, and nothing said so beforehand",
    "optimizer.step.slot-names",
    "optimizer.step.loss-before",
)
def trains_not(precision):
    def compile_training(_make, _plan, _state, _optimizer):
        return Backend.compile_training(right(precision), _plan, _state, _optimizer)

    return Compiling(precision, lambda make, *given: make(*given), compile_training)


@mutant(
    "A float64 backend gives float32 programs",
    "dense.forward.one-feature",
    "dense.forward.no-bias.wide",
    precision="float64",
)
def float64_is_float32(precision):  # noqa: ARG001 - ignored is what it is
    return right("float32")


@mutant("Models without parameters cannot be compiled", "rescale.forward.zero-scale", "max-pool.forward.plain")
def parameters_needed(precision):
    def compile_some(make, plan, parameters):
        if not parameters:
            raise IndexError("list index out of range")
        return make(plan, parameters)

    return Compiling(precision, compile_some)


@mutant("Parameters are taken by their order, not by their names", "v46.parameters.lists")
def parameters_by_order(precision):
    def in_order(make, plan, parameters):
        arrays = list(parameters.values())
        wanted = plan.parameters
        if [a.shape for a in arrays] == [spec.shape for spec in wanted]:
            parameters = {spec.name: array for spec, array in zip(wanted, arrays, strict=True)}
        return make(plan, parameters)

    return Compiling(precision, in_order)
