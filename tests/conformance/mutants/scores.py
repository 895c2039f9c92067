"""Softmax, the loss and its gradient, broken; and labels misread."""

import numpy as np

from cnnkit.plan import SoftmaxOp
from mutants.breaking import Wrapped, broken_kernel, broken_loss, broken_program
from mutants.right import cross_entropy, softmax

# -------------------------------------------------------------------------------------------------------------- softmax


@broken_kernel(
    SoftmaxOp, "Softmax overflows: the maximum is not taken off first", "v15.softmax.huge", "v15.softmax.close"
)
def softmax_overflows(_op, x):
    weights = np.exp(x)
    return weights / weights.sum(-1, keepdims=True), None


@broken_kernel(
    SoftmaxOp,
    "Softmax takes off the maximum of the whole batch, so that a row far below it is 0 / 0",
    "v15.softmax.huge",
    "v15.softmax.close",
)
def softmax_takes_off_the_batch_maximum(_op, x):
    weights = np.exp(x - x.max())
    return weights / weights.sum(-1, keepdims=True), None


@broken_kernel(SoftmaxOp, "Softmax goes over the batch", "softmax.forward.ordinary")
def softmax_over_the_batch(_op, x):
    weights = np.exp(x - x.max(0))
    return weights / weights.sum(0), None


@broken_kernel(SoftmaxOp, "Softmax is taken twice", "v17.softmax.once.predict")
def softmax_twice(op, x):
    return softmax(op, softmax(op, x)[0])


@broken_kernel(SoftmaxOp, "predict gives the scores, without softmax", "v17.softmax.once.predict")
def softmax_left_out(_op, x):
    return x, None


@broken_kernel(SoftmaxOp, "predict gives the logarithms of the probabilities", "softmax.forward.ordinary")
def softmax_is_its_logarithm(op, x):
    return np.log(softmax(op, x)[0]), None


@broken_kernel(SoftmaxOp, "Softmax is a sigmoid of each score", "softmax.forward.ordinary")
def softmax_is_sigmoid(_op, x):
    return 1 / (1 + np.exp(-x)), None


@broken_kernel(SoftmaxOp, "Softmax has the base 2", "softmax.forward.ordinary", "softmax.forward.behind-rescale")
def softmax_to_the_base_2(op, x):
    return softmax(op, x * np.log(2).astype(x.dtype))


@broken_kernel(
    SoftmaxOp,
    "Every row of probabilities is divided by the sum of the first",
    "softmax.forward.ordinary",
    "softmax.forward.behind-rescale",
)
def softmax_divided_by_the_first_sum(_op, x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights[:1].sum(-1, keepdims=True), None


@broken_kernel(
    SoftmaxOp, "Probabilities below 0.00001 are raised to it", "softmax.forward.tails", "softmax.forward.two-classes"
)
def probabilities_clipped(op, x):
    return np.maximum(softmax(op, x)[0], 1e-5), None


# ----------------------------------------------------------------------------------------------------- loss and gradient


@broken_loss("The loss is the logarithm of clipped probabilities", "v16.loss.huge", "v16.loss.tail")
def loss_of_clipped_probabilities(scores, labels):
    chosen = softmax(None, scores)[0][np.arange(len(labels)), labels]
    return -np.log(np.clip(chosen, 1e-7, 1 - 1e-7)).mean(), cross_entropy(scores, labels)[1]


@broken_loss("The loss is the logarithm of probabilities, which underflow", "v16.loss.huge", "v16.loss.extreme.150")
def loss_of_probabilities(scores, labels):
    chosen = softmax(None, scores)[0][np.arange(len(labels)), labels]
    return -np.log(chosen).mean(), cross_entropy(scores, labels)[1]


@broken_loss("The loss takes the softmax for scores", "v17.softmax.once.loss")
def loss_of_softmax_twice(scores, labels):
    p = softmax(None, scores)[0]
    loss, dp = cross_entropy(p, labels)
    return loss, p * (dp - (dp * p).sum(-1, keepdims=True))


@broken_loss("Log-sum-exp overflows: the maximum is not taken off first", "v16.loss.huge.equal", "v16.loss.huge")
def loss_overflows(scores, labels):
    chosen = scores[np.arange(len(labels)), labels]
    return (np.log(np.exp(scores).sum(-1)) - chosen).mean(), cross_entropy(scores, labels)[1]


@broken_loss("The loss is the sum over the batch", "v20.loss.mean.2", "v20.loss.mean.7")
def loss_is_the_sum(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    return loss * len(labels), d_scores


@broken_loss("The gradient is that of the sum over the batch", "v20.loss.mean.2", "v20.loss.mean.7")
def gradient_of_the_sum(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    return loss, d_scores * len(labels)


@broken_loss("Loss and gradient are those of the sum over the batch", "v20.loss.mean.2", "v20.loss.mean.7")
def loss_and_gradient_of_the_sum(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    return loss * len(labels), d_scores * len(labels)


@broken_loss("The loss is that of the first image", "loss.gradient.one-label", "loss.gradient.each-label")
def loss_of_the_first_image(scores, labels):
    return cross_entropy(scores[:1], labels[:1])[0], cross_entropy(scores, labels)[1]


@broken_loss("The loss is divided by the number of classes", "loss.gradient.two-classes", "loss.gradient.many-classes")
def loss_divided_by_the_classes(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    return loss / scores.shape[1], d_scores


@broken_loss("The loss is in bits", "loss.gradient.one-image", "loss.gradient.one-label")
def loss_in_bits(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    return loss / np.log(2), d_scores


@broken_loss("Labels are smoothed by 1 %", "loss.gradient.one-image", "loss.gradient.one-label")
def labels_smoothed(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    others = [cross_entropy(scores, np.full_like(labels, c)) for c in range(scores.shape[1])]
    share = 0.01 / len(others)
    loss = 0.99 * loss + sum(share * other for other, _ in others)
    return loss, (0.99 * d_scores + sum(share * d for _, d in others)).astype(scores.dtype)


@broken_loss(
    "The gradient of the scores has the label's own missing", "loss.gradient.one-label", "loss.gradient.each-label"
)
def score_gradient_without_the_label(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    d_scores[np.arange(len(labels)), labels] += np.float32(1) / len(labels)
    return loss, d_scores


@broken_loss("Where an image is all but certain, its gradient is set to zero", "v16.gradient.tails")
def gradient_of_certain_images_is_zero(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    return loss, np.where(np.abs(d_scores) < 1e-6, 0, d_scores)


@broken_loss("The gradient is kept between -0.1 and 0.1", "loss.gradient.one-image", "loss.gradient.one-label")
def score_gradient_clipped(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    return loss, np.clip(d_scores, -0.1, 0.1)


@broken_loss("The loss is worked out in float16", "loss.gradient.one-image", "loss.gradient.square")
def loss_in_float16(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    return np.float16(loss), d_scores


@broken_loss(
    "Labels are multiplied in their own dtype, which overflows in uint8",
    "v19.labels.narrow.uint8",
    "v19.labels.narrow.int8",
)
def labels_overflow_in_uint8(scores, labels):
    narrow = labels.dtype.type
    with np.errstate(over="ignore"):
        places = np.arange(len(labels)).astype(narrow) * narrow(scores.shape[1]) + labels
    rows, classes = np.divmod(places.astype(int), scores.shape[1])
    loss = np.mean([cross_entropy(scores[r : r + 1], np.array([c]))[0] for r, c in zip(rows, classes, strict=True)])
    return loss, cross_entropy(scores, labels)[1]


@broken_kernel(
    SoftmaxOp,
    "Softmax goes over the batch where there are as many images as classes",
    "softmax.forward.square",
    "softmax.forward.uint8",
)
def softmax_over_a_square_batch(op, x):
    return softmax_over_the_batch(op, x) if x.shape[0] == x.shape[1] else softmax(op, x)


@broken_kernel(SoftmaxOp, "Only the first 128 classes count in the sum of softmax", "softmax.forward.many-classes")
def classes_beyond_128_ignored(_op, x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights[:, :128].sum(-1, keepdims=True), None


@broken_loss("An infinite loss becomes the largest number", "v36.loss.infinite")
def infinite_loss_is_the_largest_number(scores, labels):
    loss, d_scores = cross_entropy(scores, labels)
    return np.nan_to_num(loss, nan=np.nan), d_scores


@broken_loss("A loss that is NaN is left out of the mean", "v36.loss.tanh.nan", "v36.loss.dense.nan")
def nan_left_out_of_the_mean(scores, labels):
    each = [cross_entropy(scores[i : i + 1], labels[i : i + 1])[0] for i in range(len(labels))]
    return np.nansum(each) / max(1, np.isfinite(each).sum()), cross_entropy(scores, labels)[1]


# --------------------------------------------------------------------------------------------------------------- labels


class Relabeled(Wrapped):
    """A program that sees other labels: `seen(labels, classes)`."""

    def seen(self, labels):
        raise NotImplementedError

    def gradients(self, images, labels):
        return self.inner.gradients(images, self.seen(labels))

    def step(self, images, labels):
        return self.inner.step(images, self.seen(labels))


@broken_program("The label -1 is taken for the last class", "v18.labels.negative.step", "v18.labels.negative.epoch")
class LabelMinusOneIsTheLast(Relabeled):
    """As an index of Python counts from the end."""

    def seen(self, labels):
        return np.where(labels == -1, self.plan.classes - 1, labels) if labels.dtype.kind == "i" else labels


@broken_program("Labels out of range are moved into it", "v18.labels.negative.step", "v18.labels.too-large.step")
class LabelsClipped(Relabeled):
    """As some engines gather."""

    def seen(self, labels):
        return np.clip(labels, 0, self.plan.classes - 1)


@broken_program(
    "Labels that are too high start again from 0", "v18.labels.too-large.step", "v18.labels.too-large.epoch"
)
class LabelsTooHighWrap(Relabeled):
    """As modular arithmetic does."""

    def seen(self, labels):
        return np.where(labels >= self.plan.classes, labels % self.plan.classes, labels).astype(labels.dtype)


@broken_program(
    "A label out of range gives the loss NaN instead of an error",
    "v18.labels.negative.step",
    "v18.labels.too-large.step",
)
class LabelsOutOfRangeGiveNan(Wrapped):
    """As TensorFlow does on a GPU."""

    def gradients(self, images, labels):
        if labels.size and (labels.min() < 0 or labels.max() >= self.plan.classes):
            return float("nan"), {spec.name: np.zeros(spec.shape, np.float32) for spec in self.plan.parameters}
        return self.inner.gradients(images, labels)

    def step(self, images, labels):
        if labels.size and (labels.min() < 0 or labels.max() >= self.plan.classes):
            return float("nan")
        return self.inner.step(images, labels)


@broken_program("A label out of range is an IndexError", "v18.labels.negative.step", "v18.labels.too-large.step")
class LabelsOutOfRangeRaiseAnother(Wrapped):
    """The error of the engine, not cnnkit's."""

    def _check(self, labels):
        if labels.size and (labels.min() < 0 or labels.max() >= self.plan.classes):
            raise IndexError("index out of range")

    def gradients(self, images, labels):
        self._check(labels)
        return self.inner.gradients(images, labels)

    def step(self, images, labels):
        self._check(labels)
        return self.inner.step(images, labels)


@broken_program("Labels that are no whole numbers are rounded", "v18.labels.floats.step", "v18.labels.floats.epoch")
class FloatLabelsAccepted(Relabeled):
    """Contract: whole numbers, or a DataError."""

    def seen(self, labels):
        return np.asarray(labels).astype(np.int64)


@broken_program("Only labels in int64 are taken", "v19.labels.int8")
class OnlyLongLabels(Relabeled):
    """The contract promises every kind of whole number."""

    def seen(self, labels):
        if labels.dtype != np.int64:
            raise TypeError(f"expected int64 labels, got {labels.dtype}")
        return labels
