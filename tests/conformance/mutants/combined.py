"""Faults that show in one method alone, and there for some sizes, dtypes, layouts or options alone."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnnkit.backend import Backend, TrainingProgram
from cnnkit.plan import ActivationOp, AvgPool2DOp, Conv2DOp, DenseOp, DropoutOp, GrayscaleOp, MaxPool2DOp
from mutants.breaking import Wrapped, Wrapping, broken_back, broken_kernel, broken_program, mutant
from mutants.right import average_pool, max_pool, right


class Apart(Wrapped):
    """A program with an epoch that is not made of its steps."""

    def epoch(self, images, labels, order, batch_size):
        return self.inner.epoch(images, labels, order, batch_size)


def darker(images):
    """Other images of the same dtype and shape."""
    return images // 2 if images.dtype == np.uint8 else (images * 0.99).astype(images.dtype)


def fooled(method, broken, *meant, precision="float32"):
    """The decorated function says of a call of `method`, program first, whether it sees other images than were given.

    `predict_in_training` is `predict` of programs that train, `predict` that of the others.
    """
    name = "predict" if method == "predict_in_training" else method

    def note(condition):
        def call(self, images, *rest):
            asked = name != "predict" or isinstance(self.inner, TrainingProgram) == (method != "predict")
            seen = darker(images) if asked and condition(self, images, *rest) else images
            return getattr(self.inner, name)(seen, *rest)

        program = type(condition.__name__, (Apart,), {name: call, "__module__": condition.__module__})
        broken_program(broken, *meant, precision=precision)(program)
        return condition

    return note


def is_strided(array):
    return not array.flags.c_contiguous


def is_bytes(array):
    return array.dtype == np.uint8


# ------------------------------------------------------------------------------------------------------------- batches


@broken_program("A step learns from its first 33 images", "v49.batch.64.step.images", "v49.batch.130.step.features")
class StepOf33(Apart):
    """More do not fit into its buffer."""

    def step(self, images, labels):
        return self.inner.step(images[:33], labels[:33])


@fooled("step", "A step on 64 images or more is wrong", "v49.batch.64.step.images", "v49.batch.130.step.bytes")
def step_of_64(_program, images, _labels):
    return len(images) >= 64


@fooled("step", "A step on 100 images or more, with dropout, is wrong", "v49.batch.130.step.dropout")
def step_of_100_with_dropout(program, images, _labels):
    return len(images) >= 100 and any(isinstance(op, DropoutOp) for op in program.plan.operations)


@fooled("step", "A step on one image of bytes is wrong", "v49.batch.1.step.bytes")
def step_of_one_image_of_bytes(_program, images, _labels):
    return len(images) == 1 and is_bytes(images)


@fooled("gradients", "Gradients of 64 rows of bytes or more are wrong", "v49.batch.64.gradients.bytes")
def gradients_of_64_images_of_bytes(_program, images, _labels):
    return len(images) >= 64 and is_bytes(images)


@fooled("gradients", "Gradients of one row with dropout are wrong", "v49.batch.1.gradients.dropout")
def gradients_of_one_row_with_dropout(program, images, _labels):
    return len(images) == 1 and any(isinstance(op, DropoutOp) for op in program.plan.operations)


@fooled(
    "predict_in_training",
    "A program that trains predicts wrongly from 64 images on",
    "v49.batch.64.predict-in-training.",
    "v49.batch.130.predict-in-training.",
)
def prediction_of_64_in_training(_program, images):
    return len(images) >= 64


@fooled(
    "predict_in_training",
    "A program that trains predicts one image wrongly",
    "v49.batch.1.predict-in-training.images",
    "v49.batch.1.predict-in-training.features",
)
def prediction_of_one_in_training(_program, images):
    return len(images) == 1


@broken_program("An epoch splits batches above 32", "v49.epoch.64.images", "v49.epoch.130.features")
class EpochSplitsBatches(Apart):
    """More steps than were asked for."""

    def epoch(self, images, labels, order, batch_size):
        return self.inner.epoch(images, labels, order, min(batch_size, 32))


@fooled("epoch", "An epoch with an order above 100 is wrong", "v49.epoch.64.images", "v49.epoch.many-steps")
def epoch_of_100(_program, _images, _labels, order, _batch_size):
    return len(order) > 100


@fooled("epoch", "An epoch of bytes in batches of 64 or more is wrong", "v49.epoch.64.bytes", "v49.epoch.130.bytes")
def epoch_of_bytes_in_batches_of_64(_program, images, _labels, _order, batch_size):
    return batch_size >= 64 and is_bytes(images)


@fooled("epoch", "An epoch with dropout, one row at a time, is wrong", "v49.epoch.1.dropout")
def epoch_of_single_rows_with_dropout(program, _images, _labels, _order, batch_size):
    return batch_size == 1 and any(isinstance(op, DropoutOp) for op in program.plan.operations)


@fooled("epoch", "An epoch over one image is wrong", "v49.epoch.one-image")
def epoch_over_one_image(_program, images, _labels, _order, _batch_size):
    return len(images) == 1


@fooled("epoch", "An epoch in batches of 64 or more misreads strides", "v49.epoch.70.gaps.")
def epoch_in_batches_of_64_with_strides(_program, images, _labels, _order, batch_size):
    return batch_size >= 64 and is_strided(images)


@broken_program("An epoch leaves out a last batch of one image", "v49.epoch.last-of-one")
class EpochWithoutLastOfOne(Apart):
    """As does who fears its variance."""

    def epoch(self, images, labels, order, batch_size):
        whole = order[:-1] if len(order) % batch_size == 1 and batch_size > 32 else order
        return replace(self.inner.epoch(images, labels, whole, batch_size), count=len(order))


@broken_program("An epoch holds places in 16 bits", "v32.epoch.far-places")
class EpochOfPlacesIn16Bits(Apart):
    """Without a sign."""

    def epoch(self, images, labels, order, batch_size):
        return self.inner.epoch(images, labels, np.asarray(order).astype(np.uint16), batch_size)


@broken_program("Steps after a smaller batch take as many images as that", "v49.epoch.sizes")
class StepsOfTheSmallestBatch(Apart):
    """Their buffer was made for it, if it was large enough at all."""

    def epoch(self, images, labels, order, batch_size):
        size = self.size = min(len(order), getattr(self, "size", 1000))
        if 3 <= size < len(order) <= batch_size:
            order = order[:size]
        return self.inner.epoch(images, labels, order, batch_size)


# ------------------------------------------------------------------------------------------------------------- layouts


@fooled("step", "A step misreads images with strides", "v48.images.fortran.step", "v48.features.gaps.step")
def step_with_strides(_program, images, _labels):
    return is_strided(images)


@fooled("step", "A step misreads images that are read-only", "v48.images.read-only.step", "v48.bytes.read-only.step")
def step_read_only(_program, images, _labels):
    return not images.flags.writeable


@fooled("step", "A step misreads the other byte order", "v48.images.byte-order.step", "v48.features.byte-order.step")
def step_in_another_byte_order(_program, images, _labels):
    return not images.dtype.isnative


@fooled("step", "A step misreads Fortran order", "v48.images.fortran.step", "v48.bytes.transposed.step")
def step_in_fortran_order(_program, images, _labels):
    return is_strided(images) and images.flags.f_contiguous


@fooled("step", "A step misreads negative strides", "v48.images.backwards.step", "v48.features.backwards.step")
def step_with_negative_strides(_program, images, _labels):
    return min(images.strides) < 0


@fooled("step", "A step misreads rows of features with strides", "v48.features.transposed.step")
def step_on_features_with_strides(_program, images, _labels):
    return images.ndim == 2 and is_strided(images)


@fooled("step", "A step misreads rows of features that are bytes", "v48.byte-features.read-only.step")
def step_on_features_of_bytes(_program, images, _labels):
    return images.ndim == 2 and is_bytes(images)


@fooled("predict", "predict misreads rows of features with strides", "v48.features.gaps.predict")
def prediction_of_features_with_strides(_program, images):
    return images.ndim == 2 and is_strided(images)


@fooled("predict", "predict misreads rows of bytes with strides", "v48.byte-features.gaps.predict")
def prediction_of_byte_features_with_strides(_program, images):
    return images.ndim == 2 and is_strided(images) and is_bytes(images)


@fooled(
    "predict_in_training",
    "A program that trains misreads strides when it predicts",
    "v48.images.gaps.predict-in-training",
    "v48.features.transposed.predict-in-training",
)
def prediction_with_strides_in_training(_program, images):
    return is_strided(images)


@fooled(
    "predict_in_training",
    "A program that trains misreads bytes when it predicts",
    "v48.bytes.read-only.predict-in-training",
    "v48.byte-features.read-only.predict-in-training",
)
def prediction_of_bytes_in_training(_program, images):
    return is_bytes(images)


@fooled("gradients", "gradients misreads bytes with strides", "v48.bytes.gaps.gradients")
def gradients_of_bytes_with_strides(_program, images, _labels):
    return is_bytes(images) and is_strided(images)


@fooled("gradients", "gradients misreads rows of features with strides", "v48.features.transposed.gradients")
def gradients_of_features_with_strides(_program, images, _labels):
    return images.ndim == 2 and is_strided(images)


@fooled("epoch", "An epoch misreads bytes with strides", "v48.bytes.gaps.epoch", "v48.byte-features.gaps.epoch")
def epoch_of_bytes_with_strides(_program, images, _labels, _order, _batch_size):
    return is_bytes(images) and is_strided(images)


@fooled("epoch", "An epoch misreads rows of features with strides", "v48.features.transposed.epoch")
def epoch_of_features_with_strides(_program, images, _labels, _order, _batch_size):
    return images.ndim == 2 and is_strided(images)


@fooled("epoch", "An epoch misreads labels that are not int64", "v19.labels.uint8.epoch", "v19.labels.byte-order.epoch")
def epoch_of_narrow_labels(_program, _images, labels, _order, _batch_size):
    return labels.dtype != np.int64


@fooled("epoch", "An epoch misreads an order with strides", "v48.order.gaps", "v48.order.backwards")
def epoch_with_strides_in_its_order(_program, _images, _labels, order, _batch_size):
    return is_strided(order)


@fooled("gradients", "gradients misreads float32", "v48.single.gaps.gradients", precision="float64")
def gradients_of_float32(_program, images, _labels):
    return images.dtype == np.float32


@fooled("epoch", "An epoch misreads float32", "v48.single.read-only.epoch", precision="float64")
def epoch_of_float32(_program, images, _labels, _order, _batch_size):
    return images.dtype == np.float32


@fooled(
    "predict_in_training",
    "A program that trains misreads float32 when it predicts",
    "v48.single.read-only.predict-in-training",
    precision="float64",
)
def prediction_of_float32_in_training(_program, images):
    return images.dtype == np.float32


@dataclass(frozen=True)
class Placed(Backend):
    """Reads the memory of parameters and slots in its order, as if that were C order."""

    inner: Backend
    parameters: bool = False
    slots: bool = False

    def _misread(self, arrays: Any, *, wrongly: bool) -> Any:
        return {
            name: array.ravel(order="K").reshape(array.shape) if wrongly else array for name, array in arrays.items()
        }

    def compile(self, plan, parameters):
        return self.inner.compile(plan, self._misread(parameters, wrongly=self.parameters))

    def compile_training(self, plan, state, optimizer):
        slots = {slot: self._misread(arrays, wrongly=self.slots) for slot, arrays in state.slots.items()}
        parameters = self._misread(state.parameters, wrongly=self.parameters)
        return self.inner.compile_training(plan, replace(state, parameters=parameters, slots=slots), optimizer)


@mutant("Parameters are read in memory order", "v48.parameters.transposed", "v48.state.fortran")
def parameters_in_memory_order(precision):
    return Placed(right(precision), parameters=True)


@mutant("Slots are read in memory order", "v48.state.transposed", "v48.state.fortran")
def slots_in_memory_order(precision):
    return Placed(right(precision), slots=True)


# ------------------------------------------------------------------------------------------------------- what is kept


@broken_program(
    "A step takes the labels of the gradients before, if the images are those", "conduct.twice.other-labels"
)
class StepWithLabelsOfGradients(Apart):
    """Gradients are kept by their images."""

    def gradients(self, images, labels):
        self.kept = (images.tobytes(), labels.copy())
        return self.inner.gradients(images, labels)

    def step(self, images, labels):
        kept, self.kept = getattr(self, "kept", None), None
        return self.inner.step(images, kept[1] if kept and kept[0] == images.tobytes() else labels)


@broken_program("An epoch takes the labels of the call before, if the images are those", "conduct.twice.other-labels")
class EpochWithLabelsOfBefore(StepWithLabelsOfGradients):
    """Uploads are kept by their images."""

    def step(self, images, labels):
        return self.inner.step(images, labels)

    def epoch(self, images, labels, order, batch_size):
        kept, self.kept = getattr(self, "kept", None), None
        return self.inner.epoch(images, kept[1] if kept and kept[0] == images.tobytes() else labels, order, batch_size)


@broken_program(
    "A step takes the images of the gradients before, if the labels are those", "conduct.twice.other-images"
)
class StepWithImagesOfGradients(Apart):
    """Gradients are kept by their labels."""

    def gradients(self, images, labels):
        self.kept = getattr(self, "kept", None) or (labels.tobytes(), images.copy())
        return self.inner.gradients(images, labels)

    def step(self, images, labels):
        kept = getattr(self, "kept", None)
        return self.inner.step(kept[1] if kept and kept[0] == labels.tobytes() else images, labels)


@broken_program("A program that trains writes every prediction into the same array", "v48.fresh.output-in-training")
class OutputsInTrainingAliasABuffer(Apart):
    """The answer before changes under its owner's hands."""

    def predict(self, images):
        output = self.inner.predict(images)
        if not isinstance(self.inner, TrainingProgram):
            return output
        self.buffers = getattr(self, "buffers", {})
        kept = self.buffers.setdefault(output.shape, np.empty_like(output))
        kept[...] = output
        return kept


# ------------------------------------------------------------------------------------------------------------- options


def epochs_with(change, precision):
    """A backend whose epochs, not its steps, train with `change(optimizer, step)`."""

    class OtherEpochs(Apart):
        def epoch(self, images, labels, order, batch_size):
            asked, self.inner.optimizer = self.inner.optimizer, change(self.inner.optimizer, self.inner.steps)
            totals = self.inner.epoch(images, labels, order, batch_size)
            self.inner.optimizer = asked
            return totals

    return Wrapping(right(precision), OtherEpochs)


def fields(optimizer, **values):
    """The optimizer with those of `values` that it has a field for."""
    return replace(optimizer, **{name: value for name, value in values.items() if hasattr(optimizer, name)})


@mutant("An epoch has Adam's usual betas", "v20.epoch.betas.adam", "v20.epoch.betas.adamw")
def epoch_with_usual_betas(precision):
    return epochs_with(lambda asked, _: fields(asked, beta_1=0.9, beta_2=0.999), precision)


@mutant("An epoch has Adam's usual epsilon", "v32.epoch.in-pieces.adam", "v20.epoch.betas.adamw")
def epoch_with_usual_epsilon(precision):
    return epochs_with(lambda asked, _: fields(asked, epsilon=1e-7), precision)


@mutant("An epoch does not clip", "v32.epoch.in-pieces.momentum", "v32.epoch.in-pieces.adamw")
def epoch_without_clipping(precision):
    return epochs_with(lambda asked, _: fields(asked, clip_global_norm=None), precision)


@mutant("An epoch decays no weights", "v32.epoch.in-pieces.momentum", "v20.epoch.betas.adamw")
def epoch_without_weight_decay(precision):
    return epochs_with(lambda asked, _: fields(asked, weight_decay=0.0), precision)


@mutant("An epoch knows no Nesterov momentum", "v32.epoch.in-pieces.nesterov")
def epoch_without_nesterov(precision):
    return epochs_with(lambda asked, _: fields(asked, nesterov=False), precision)


# ------------------------------------------------------------------------------------------------------ kernels


def is_padded_and_deep(op):
    return op.padding != ((0, 0), (0, 0)) and op.input_shape[2] > 8


@broken_kernel(
    MaxPool2DOp,
    "Padded max pooling of more than 8 channels is wrong",
    "max-pool.forward.channels.9-padded",
    "max-pool.forward.channels.18-same",
)
def padded_maxima_of_many_channels(op, x):
    y, pullback = max_pool(op, x)
    return y * (1.01 if is_padded_and_deep(op) else 1), pullback


@broken_kernel(
    AvgPool2DOp,
    "Padded average pooling of more than 8 channels is wrong",
    "avg-pool.forward.channels.9-padded",
    "avg-pool.forward.channels.18-same",
)
def padded_averages_of_many_channels(op, x):
    y, pullback = average_pool(op, x)
    return y * (1.01 if is_padded_and_deep(op) else 1), pullback


@broken_back(
    MaxPool2DOp,
    "The gradient of padded max pooling of more than 8 channels is wrong",
    "max-pool.gradient.channels.9-padded",
    "max-pool.gradient.channels.18-same",
)
def padded_maxima_of_many_channels_back(through):
    if is_padded_and_deep(through.op):
        through.dx = through.dx * 1.01


@broken_back(Conv2DOp, "The gradient of a dilated 1 x 1 kernel is wrong", "conv2d.gradient.dilation.1x1-kernel")
def dilated_kernel_of_one_back(through):
    if through.op.kernel_size == (1, 1) and through.op.dilation != (1, 1):
        through.dx = through.dx * 1.01


# ------------------------------------------------------------------------------------------------- options in pairs


def off(operation, broken, condition, *meant):
    """A mutant whose kernel for `operation` gives gradients that are 1 % too large where `condition(op, x)` holds."""
    name = re.sub(r"[^a-z0-9]+", "_", broken.lower()).strip("_")

    def too_large(through):
        if condition(through.op, through.x):
            through.dx = through.dx * through.dx.dtype.type(1.01)

    too_large.__name__, too_large.__module__ = name, __name__
    broken_back(operation, f"The gradient of {broken} is 1 % too large", *meant)(too_large)


def is_padded(op):
    return op.padding != ((0, 0), (0, 0))


def is_stepped(op):
    return op.strides != (1, 1)


def is_dilated(op):
    return op.dilation != (1, 1)


def has_gaps(op):
    return op.strides[0] > op.pool_size[0]


off(
    Conv2DOp,
    "strided convolutions of one channel",
    lambda op, _: is_stepped(op) and op.input_shape[2] == 1,
    "crossed.conv2d.01",
    "crossed.conv2d.06",
)
off(
    Conv2DOp,
    "dilated convolutions of more than 8 channels",
    lambda op, _: is_dilated(op) and op.input_shape[2] > 8,
    "crossed.conv2d.02",
    "crossed.conv2d.03",
)
off(
    Conv2DOp,
    "padded convolutions of more than 8 filters",
    lambda op, _: is_padded(op) and op.output_shape[2] > 8,
    "crossed.conv2d.02",
    "crossed.conv2d.04",
)
off(
    Conv2DOp,
    "strided convolutions of more than 8 filters",
    lambda op, _: is_stepped(op) and op.output_shape[2] > 8,
    "crossed.conv2d.02",
    "crossed.conv2d.06",
)
off(
    Conv2DOp,
    "dilated and strided 1 x 1 kernels",
    lambda op, _: op.kernel_size == (1, 1) and is_dilated(op) and is_stepped(op),
    "crossed.conv2d.27",
    "crossed.conv2d.31",
)
off(
    Conv2DOp,
    "padded and strided 1 x 1 kernels",
    lambda op, _: op.kernel_size == (1, 1) and is_padded(op) and is_stepped(op),
    "crossed.conv2d.31",
    "crossed.conv2d.34",
)
off(
    Conv2DOp,
    "dilated convolutions of more than 4 images",
    lambda op, x: len(x) > 4 and is_dilated(op),
    "crossed.conv2d.02",
    "crossed.conv2d.05",
)
off(
    Conv2DOp,
    "dilated convolutions of images higher than 20",
    lambda op, _: op.input_shape[0] > 20 and is_dilated(op),
    "crossed.conv2d.02",
    "crossed.conv2d.14",
)
for kind, pool, id_of in ((MaxPool2DOp, "max", "crossed.max-pool"), (AvgPool2DOp, "average", "crossed.avg-pool")):
    off(
        kind,
        f"{pool} pooling of more than 8 channels with gaps",
        lambda op, _: op.input_shape[2] > 8 and has_gaps(op),
        f"{id_of}.02",
        f"{id_of}.16",
    )
    off(
        kind,
        f"padded {pool} pooling of images higher than 20",
        lambda op, _: op.input_shape[0] > 20 and is_padded(op),
        f"{id_of}.02",
        f"{id_of}.10",
    )
    off(
        kind,
        f"{pool} pooling of more than 64 images",
        lambda _, x: len(x) > 64,
        f"v49.batch.70.gradient.{id_of.removeprefix('crossed.')}",
    )
off(
    AvgPool2DOp,
    "padded average pooling of more than 16 pixels",
    lambda op, _: op.pool_size[0] * op.pool_size[1] > 16 and is_padded(op),
    "crossed.avg-pool.02",
    "crossed.avg-pool.08",
)
off(GrayscaleOp, "grayscale of more than 4 images", lambda _, x: len(x) > 4, "v49.batch.70.gradient.grayscale")
off(
    ActivationOp,
    "sigmoids of more than 1,000 numbers",
    lambda op, x: op.function == "sigmoid" and x.size > 1000,
    "v49.batch.70.gradient.sigmoid",
)


# ------------------------------------------------------------------------------------------------- layers and methods


def has(program, kind, condition=lambda _: True):
    """Whether one of the program's operations is of this kind, and so."""
    return any(isinstance(op, kind) and condition(op) for op in program.plan.operations)


def meets_bytes(program, images, kind):
    """Whether bytes meet an operation of this kind first."""
    return is_bytes(images) and isinstance(program.plan.operations[0], kind)


@fooled("step", "A step through average pooling is wrong", "ways.step.avg-pool", "ways.step.avg-pool.bytes")
def step_through_average_pooling(program, _images, _labels):
    return has(program, AvgPool2DOp)


@fooled("epoch", "An epoch through dilated convolutions is wrong", "ways.epoch.conv2d-dilation")
def epoch_through_dilated_convolutions(program, _images, _labels, _order, _batch_size):
    return has(program, Conv2DOp, is_dilated)


@fooled(
    "predict_in_training",
    "A program that trains predicts wrongly through max pooling",
    "ways.predict-in-training.max-pool",
    "ways.predict-in-training.max-pool.bytes",
)
def prediction_through_max_pooling_in_training(program, _images):
    return has(program, MaxPool2DOp)


@fooled("gradients", "Gradients are wrong where bytes meet max pooling first", "ways.gradients.max-pool.bytes")
def gradients_of_bytes_that_meet_max_pooling(program, images, _labels):
    return meets_bytes(program, images, MaxPool2DOp)


@fooled("step", "A step is wrong where bytes meet a convolution first", "ways.step.conv2d.bytes")
def step_on_bytes_that_meet_a_convolution(program, images, _labels):
    return meets_bytes(program, images, Conv2DOp)


@fooled("step", "A step is wrong where bytes meet a dense layer first", "v48.byte-features.read-only.step")
def step_on_bytes_that_meet_a_dense_layer(program, images, _labels):
    return meets_bytes(program, images, DenseOp)


@fooled("predict", "predict is wrong where bytes meet dropout first", "ways.predict.dropout.bytes")
def prediction_of_bytes_that_meet_dropout(program, images):
    return meets_bytes(program, images, DropoutOp)


@fooled("predict", "predict misreads strides from 64 images on", "v49.batch.70.predict.gaps")
def prediction_of_64_with_strides(_program, images):
    return len(images) >= 64 and is_strided(images)


@fooled("predict", "predict misreads the strides of one image", "v49.batch.1.predict.gaps")
def prediction_of_one_with_strides(_program, images):
    return len(images) == 1 and is_strided(images)
