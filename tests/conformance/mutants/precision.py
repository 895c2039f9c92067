"""Arithmetic that is less precise than it should be, and numbers that are not kept as they are."""

from dataclasses import replace

import numpy as np

from cnnkit.optimizers import Adam, AdamW
from cnnkit.plan import ActivationOp, AvgPool2DOp, Conv2DOp, DenseOp
from mutants.breaking import (
    OtherParameters,
    OtherState,
    Twisted,
    Wrapped,
    Wrapping,
    backend,
    broken_kernel,
    broken_optimizer,
    broken_program,
    broken_rule,
    broken_sight,
    mutant,
)
from mutants.right import BY_OPERATION, activation, average_pool, convolve, cross_entropy, dense


def rounded(array, bits):
    """float32 numbers rounded to `bits` of fraction, as TF32 (10) and bfloat16 (7) keep them."""
    drop = 23 - bits
    whole = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64) + (1 << (drop - 1))
    kept = (whole >> drop << drop).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(array), kept, array).astype(array.dtype)


def with_inputs(kernel, change):
    """`kernel` on changed inputs, and its way back on changed gradients."""

    def broken(op, x, *parameters):
        y, pullback = kernel(op, change(x), *(change(p) if p.ndim > 1 else p for p in parameters))
        return y, lambda dy: pullback(change(dy))

    return broken


@broken_kernel(Conv2DOp, "Convolutions round their inputs to TF32", "v33.conv2d.identity", "v33.conv2d.identity-image")
def conv_in_tf32(*given):
    return with_inputs(convolve, lambda array: rounded(array, 10))(*given)


@broken_kernel(DenseOp, "Dense layers round their inputs to TF32", "v33.dense.long-sum", "v33.dense.identity-image")
def dense_in_tf32(*given):
    return with_inputs(dense, lambda array: rounded(array, 10))(*given)


@mutant("Everything with a kernel rounds its inputs to bfloat16", "v33.dense.identity-image", "v33.conv2d.identity")
def bfloat16_inputs(precision):
    kernels = {kind: with_inputs(BY_OPERATION[kind], lambda array: rounded(array, 7)) for kind in (Conv2DOp, DenseOp)}
    return backend(precision, kernels)


@mutant("Only the way back rounds to TF32", "dense.gradient.wide", "conv2d.gradient.plain")
def gradients_in_tf32(precision):
    def rough_back(kernel):
        def broken(op, x, *parameters):
            y, _ = kernel(op, x, *parameters)
            rough = kernel(op, rounded(x, 10), *(rounded(p, 10) for p in parameters))[1]
            return y, lambda dy: rough(rounded(dy, 10))

        return broken

    return backend(precision, {kind: rough_back(BY_OPERATION[kind]) for kind in (Conv2DOp, DenseOp)})


@broken_kernel(Conv2DOp, "Convolutions add up in float16", "conv2d.forward.kernel.1x1", "conv2d.forward.no-bias")
def conv_adds_up_in_float16(op, x, kernel, *bias):
    y, _ = convolve(op, x.astype(np.float16), kernel.astype(np.float16), *(b.astype(np.float16) for b in bias))
    return y.astype(x.dtype), convolve(op, x, kernel, *bias)[1]


@broken_kernel(DenseOp, "Dense layers add up in float16", "dense.forward.one-feature", "dense.forward.no-bias.wide")
def dense_adds_up_in_float16(op, x, kernel, *bias):
    y, _ = dense(op, x.astype(np.float16), kernel.astype(np.float16), *(b.astype(np.float16) for b in bias))
    return y.astype(x.dtype), dense(op, x, kernel, *bias)[1]


@broken_program("Gradients come back through float16", "dense.gradient.wide", "conv2d.gradient.plain")
class GradientsThroughFloat16(Wrapped):
    """As mixed-precision training keeps them."""

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        return loss, {name: g.astype(np.float16).astype(g.dtype) for name, g in found.items()}


@mutant("Parameters are kept in float16", "dense.forward.wide", "conv2d.forward.plain")
def parameters_in_float16(precision):
    return OtherParameters(backend(precision), lambda array: array.astype(np.float16).astype(array.dtype))


@mutant("Every product is 0.05 % too large", "dense.forward.wide", "conv2d.forward.plain")
def results_times_1_0005(precision):
    def more(kernel):
        def broken(op, x, *parameters):
            y, pullback = kernel(op, x, *parameters)
            return y * y.dtype.type(1.0005), pullback

        return broken

    return backend(precision, {kind: more(BY_OPERATION[kind]) for kind in (Conv2DOp, DenseOp)})


@broken_kernel(
    AvgPool2DOp, "Averages are 0.05 % too large", "avg-pool.forward.channels.1", "avg-pool.gradient.channels.1"
)
def averages_times_1_0005(op, x):
    y, pullback = average_pool(op, x)
    return y * y.dtype.type(1.0005), pullback


@broken_program("Gradients are 0.05 % too large", "dense.gradient.wide", "conv2d.gradient.plain")
class GradientsTooLarge(Wrapped):
    """Only those that `gradients` gives."""

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        return loss, {name: g * g.dtype.type(1.0005) for name, g in found.items()}


@broken_program("The loss is 0.05 % too large", "loss.gradient.one-image", "loss.gradient.one-label")
class LossTooLarge(Wrapped):
    """Both of `gradients` and of `step`."""

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        return loss * 1.0005, found

    def step(self, images, labels):
        return float(self.inner.step(images, labels)) * 1.0005


@broken_optimizer("Updates are 0.05 % too large", "optimizer.step.whole-numbers.adam", "optimizer.step.many-layers")
def updates_times_1_0005(optimizer):
    def rule(right, p, g, slots, step):
        before = p.copy()
        p, slots = right.update(p, g, slots, step)
        return before + (p - before) * p.dtype.type(1.0005), slots

    return Twisted(optimizer, rule)


# -------------------------------------------------------------------------------------------------------------- float64


def in_float32(kernel):
    """`kernel` with everything rounded to float32 on the way in."""
    return with_inputs(kernel, lambda array: array.astype(np.float32).astype(array.dtype))


@mutant(
    "A float64 program convolves in float32", "conv2d.forward.kernel.1x1", "conv2d.forward.no-bias", precision="float64"
)
def float64_conv_in_float32(precision):
    return backend(precision, {Conv2DOp: in_float32(convolve)})


@mutant(
    "A float64 program multiplies its dense layers in float32",
    "dense.forward.one-feature",
    "dense.forward.no-bias.wide",
    precision="float64",
)
def float64_dense_in_float32(precision):
    return backend(precision, {DenseOp: in_float32(dense)})


@mutant(
    "A float64 program computes its activations in float32",
    "tanh.forward.on-dense",
    "sigmoid.forward.on-dense",
    precision="float64",
)
def float64_activations_in_float32(precision):
    def rough(op, x):
        return activation(op, x)[0].astype(np.float32).astype(x.dtype), activation(op, x)[1]

    return backend(precision, {ActivationOp: rough})


@mutant(
    "A float64 program takes its losses in float32",
    "loss.gradient.one-image",
    "loss.gradient.one-label",
    precision="float64",
)
def float64_loss_in_float32(precision):
    def rough(scores, labels):
        loss, d_scores = cross_entropy(scores, labels)
        return np.float32(loss), d_scores

    return backend(precision, loss=rough)


@mutant(
    "A float64 program works out the gradient of its scores in float32",
    "loss.gradient.one-image",
    "loss.gradient.one-label",
    precision="float64",
)
def float64_score_gradient_in_float32(precision):
    def rough(scores, labels):
        loss, d_scores = cross_entropy(scores, labels)
        return loss, d_scores.astype(np.float32).astype(d_scores.dtype)

    return backend(precision, loss=rough)


@broken_sight(
    "A float64 program rounds its images to float32",
    "conduct.images.float32",
    "conduct.images.bytes-after-floats",
    precision="float64",
)
def float64_images_rounded(images, _plan):
    return images.astype(np.float32) if images.dtype == np.float64 else images


@mutant(
    "A float64 program keeps its parameters in float32",
    "dense.forward.one-feature",
    "dense.forward.no-bias.wide",
    precision="float64",
)
def float64_parameters_rounded(precision):
    return OtherParameters(backend(precision), lambda array: array.astype(np.float32).astype(array.dtype))


@mutant(
    "A float64 program hands out its state rounded to float32",
    "state.numpy-numbers",
    "state.round-trip.sgd",
    precision="float64",
)
def float64_state_rounded(precision):
    class Rounding(Wrapped):
        def state(self):
            state = self.inner.state()
            rough = {name: a.astype(np.float32).astype(a.dtype) for name, a in state.parameters.items()}
            return replace(state, parameters=rough)

    return Wrapping(backend(precision), Rounding)


@mutant(
    "A float64 program rounds the slots it begins with to float32",
    "state.round-trip.momentum",
    "state.round-trip.nesterov",
    precision="float64",
)
def float64_slots_rounded(precision):
    def rough(state):
        slots = {
            slot: {name: a.astype(np.float32).astype(a.dtype) for name, a in arrays.items()}
            for slot, arrays in state.slots.items()
        }
        return replace(state, slots=slots)

    return OtherState(backend(precision), rough)


@broken_optimizer(
    "A float64 program updates in float32",
    "optimizer.step.whole-numbers.sgd",
    "optimizer.step.whole-numbers.adamw",
    precision="float64",
)
def float64_updates_in_float32(optimizer):
    def rule(right, p, g, slots, step):
        before = p.copy()
        p, slots = right.update(p, g, slots, step)
        return before + (p - before).astype(np.float32), slots

    return Twisted(optimizer, rule)


@broken_optimizer(
    "A float64 program keeps the learning rate in float32",
    "optimizer.step.many-layers",
    "optimizer.adam.no-betas.three",
    precision="float64",
)
def float64_learning_rate_rounded(optimizer):
    if not isinstance(optimizer.learning_rate, float):
        return optimizer
    return replace(optimizer, learning_rate=float(np.float32(optimizer.learning_rate)))


@broken_rule(
    (Adam, AdamW),
    "A float64 program works 1 - beta 2 out in float32",
    "optimizer.adam.clipped.first",
    "optimizer.adam.first",
    precision="float64",
)
def float64_beta_rounded(optimizer, p, g, slots, step):
    return replace(optimizer, beta_2=1 - float(np.float32(1) - np.float32(optimizer.beta_2))).update(p, g, slots, step)


# ---------------------------------------------------------------------------------------- numbers that are not kept


def everywhere(change):
    """A backend in which every kernel's output is `change(y)`."""

    def changed(kernel):
        def broken(op, x, *parameters):
            y, pullback = kernel(op, x, *parameters)
            return change(y).astype(y.dtype), pullback

        return broken

    return lambda precision: backend(precision, {kind: changed(kernel) for kind, kernel in BY_OPERATION.items()})


@mutant("Infinities become the largest number", "v36.conv2d.large.inf", "v36.conv2d.large.minus-inf")
def infinities_become_large_numbers(precision):
    return everywhere(lambda y: np.where(np.isnan(y), y, np.nan_to_num(y)))(precision)


@mutant("NaN becomes zero", "v36.loss.tanh.nan", "v36.loss.dense.nan")
def nan_becomes_zero(precision):
    return everywhere(lambda y: np.where(np.isnan(y), 0, y))(precision)


@mutant("Numbers are kept between -1,000,000 and 1,000,000", "v36.conv2d.large.inf")
def numbers_clipped(precision):
    return everywhere(lambda y: np.clip(y, -1e6, 1e6))(precision)


@mutant("Numbers overflow as in float16, beyond 65,504", "v36.max-pool.lowest")
def numbers_overflow_early(precision):
    return everywhere(lambda y: np.where(np.abs(y) > 65504, np.sign(y) * np.inf, y))(precision)


@mutant("Numbers below 0.000001 become zero", "relu.forward.tiny", "softmax.forward.tails")
def small_numbers_become_zero(precision):
    return everywhere(lambda y: np.where(np.abs(y) < 1e-6, 0, y))(precision)


@broken_sight("NaN in images is taken for zero", "v36.loss.tanh.nan", "v36.loss.dense.nan")
def nan_in_images_is_zero(images, _plan):
    return np.nan_to_num(images, posinf=np.inf, neginf=-np.inf) if images.dtype.kind == "f" else images


@broken_sight("Images are kept between -1 and 1, or 0 and 255", "v36.conv2d.inf")
def images_clipped(images, _plan):
    return np.clip(images, -1, 1) if images.dtype.kind == "f" else images


@broken_program("A gradient that is not finite is given as zero", "v36.loss.tanh.nan", "v36.loss.dense.nan")
class NonFiniteGradientsAreZero(Wrapped):
    """As loss scaling skips them."""

    def gradients(self, images, labels):
        loss, found = self.inner.gradients(images, labels)
        return loss, {name: np.nan_to_num(g, nan=0, posinf=0, neginf=0) for name, g in found.items()}


@broken_program("A step whose loss is not finite is skipped", "v36.step.sgd", "v36.step.adam")
class NonFiniteStepsAreSkipped(Wrapped):
    """As loss scaling skips them: parameters stay as they were."""

    def step(self, images, labels):
        loss, _ = self.inner.gradients(images, labels)
        return self.inner.step(images, labels) if np.isfinite(loss) else loss


@broken_kernel(
    Conv2DOp, "NaN spreads to a whole image, as through a Fourier transform", "v36.conv2d.gaps.nan", "v36.conv2d.nan"
)
def nan_spreads_over_the_image(op, x, *parameters):
    y, pullback = convolve(op, x, *parameters)
    lost = np.isnan(x).any((1, 2, 3), keepdims=True)
    return np.where(lost, np.nan, y).astype(y.dtype), pullback


@broken_kernel(Conv2DOp, "NaN spreads to the other images of the batch", "v36.conv2d.gaps.nan", "v36.conv2d.nan")
def nan_spreads_over_the_batch(op, x, *parameters):
    y, pullback = convolve(op, x, *parameters)
    return np.where(np.isnan(x).any(), np.nan, y).astype(y.dtype), pullback


@broken_kernel(Conv2DOp, "Taps that are zero are skipped, and with them NaN", "v36.parameters.conv2d.zero-tap.nan")
def zero_taps_skip_nan(op, x, kernel, *bias):
    return convolve(op, np.nan_to_num(x, posinf=np.inf, neginf=-np.inf) if not kernel.all() else x, kernel, *bias)


@broken_kernel(
    DenseOp, "Zeros are skipped in dense layers, so that 0 times infinity is 0", "v36.parameters.dense.zero-times-inf"
)
def zero_times_infinity_is_zero(op, x, kernel, *bias):
    if not (np.isinf(x).any() or np.isinf(kernel).any()):
        return dense(op, x, kernel, *bias)
    product = x[:, :, None] * kernel
    product[(x[:, :, None] == 0) | (kernel == 0)] = 0
    return product.sum(1) + sum(bias), dense(op, x, kernel, *bias)[1]
