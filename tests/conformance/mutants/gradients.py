"""Ways back that are broken: forward is right."""

from dataclasses import replace

import numpy as np

from cnnkit.plan import AvgPool2DOp, Conv2DOp, DenseOp, FlattenOp, GrayscaleOp, MaxPool2DOp, RescaleOp
from mutants.breaking import broken_back, broken_kernel, roomy
from mutants.right import average_pool, crop, max_pool, pad, seen_by

# --------------------------------------------------------------------------------------------- convolutions: the kernel


@broken_back(
    Conv2DOp, "The gradient of a kernel is flipped", "v01.conv2d.not-flipped.gradient", "conv2d.gradient.plain"
)
def kernel_gradient_flipped(at):
    at.d_parameters[0] = at.d_parameters[0][::-1, ::-1]


@broken_back(
    Conv2DOp,
    "The gradient of a kernel with as many filters as channels has them transposed",
    "conv2d.gradient.kernel.5x4",
    "conv2d.gradient.strides.1x1-kernel",
)
def kernel_gradient_transposed(at):
    if at.d_parameters[0].shape[2] == at.d_parameters[0].shape[3]:
        at.d_parameters[0] = at.d_parameters[0].swapaxes(2, 3)


@broken_back(Conv2DOp, "The gradient of a kernel sees the first image of the batch only", "conv2d.gradient.many-images")
def kernel_gradient_of_the_first_image(at):
    at.d_parameters[0] = at.again(x=at.x[:1], dy=at.dy[:1])[1]


@broken_back(
    Conv2DOp,
    "The gradient of a kernel is the mean over the images of the batch once more",
    "conv2d.gradient.many-images",
)
def kernel_gradient_divided_by_the_batch(at):
    at.d_parameters[0] = at.d_parameters[0] / len(at.x)


@broken_back(
    Conv2DOp,
    "The gradient of a kernel is worked out as if strides were 1",
    "conv2d.gradient.strides.1x1-kernel",
    "conv2d.gradient.strides.over-kernel",
)
def kernel_gradient_ignores_strides(at):
    at.d_parameters[0] = at.again(op=replace(at.op, strides=(1, 1)))[1]


@broken_back(
    Conv2DOp,
    "The gradient of a kernel is worked out without dilation",
    "conv2d.gradient.dilation.2",
    "conv2d.gradient.dilation.3x1",
)
def kernel_gradient_ignores_dilation(at):
    at.d_parameters[0] = at.again(op=replace(at.op, dilation=(1, 1)))[1]


@broken_back(
    Conv2DOp,
    "The gradient of a kernel is worked out with padding on the wrong side",
    "conv2d.gradient.padding.1x1-kernel",
    "conv2d.gradient.padding.over-kernel",
)
def kernel_gradient_pads_on_the_wrong_side(at):
    (top, bottom), (left, right) = at.op.padding
    at.d_parameters[0] = at.again(op=replace(at.op, padding=((bottom, top), (right, left))))[1]


@broken_back(
    Conv2DOp,
    "The gradient of a kernel leaves out windows that meet padding",
    "conv2d.gradient.padding.even",
    "conv2d.gradient.padding.sides",
)
def kernel_gradient_without_the_border(at):
    met = windows_that_meet_padding(at.op, at.x)
    at.d_parameters[0] = at.again(dy=np.where(met, 0, at.dy))[1]


def windows_that_meet_padding(op, x):
    inside = pad(np.ones_like(x[:1, :, :, :1]), op.padding)
    return sum(inside[seen_by(tap, op, op.dilation)] == 0 for tap in np.ndindex(*op.kernel_size)) > 0


@broken_back(
    Conv2DOp,
    "The gradient of a kernel is wrong for a batch of one image: it is not added up over rows",
    "v49.batch.1.gradient",
)
def kernel_gradient_of_one_image(at):
    if len(at.x) == 1 and at.dy.shape[1] > 1:
        last = at.dy.copy()
        last[:, :-1] = 0
        at.d_parameters[0] = at.again(dy=last)[1]


@broken_back(
    Conv2DOp,
    "Batches of more than one image have the gradient of their kernels halved",
    "conv2d.gradient.kernel.1x1",
    "conv2d.gradient.many-images",
)
def kernel_gradient_of_several_images(at):
    if len(at.x) > 1:
        at.d_parameters[0] = at.d_parameters[0] / 2


@broken_back(
    Conv2DOp,
    "No gradient passes through a kernel of 1 x 1 with strides to the pixels between",
    "conv2d.gradient.strides.1x1-kernel",
)
def one_by_one_gradient_in_one_corner(at):
    if at.op.kernel_size == (1, 1) and at.op.strides != (1, 1):
        at.dx = at.again(op=replace(at.op, strides=(1, 1)))[0]


# ---------------------------------------------------------------------------------------------- convolutions: the bias


@broken_back(
    Conv2DOp, "The gradient of a convolution's bias is the mean over the places, not the sum", "conv2d.gradient.plain"
)
def conv_bias_gradient_is_a_mean(at):
    at.d_parameters[1:] = [at.dy.mean((1, 2)).sum(0) for _ in at.d_parameters[1:]]


@broken_back(Conv2DOp, "The gradient of a convolution's bias sees the first image only", "conv2d.gradient.many-images")
def conv_bias_gradient_of_the_first_image(at):
    at.d_parameters[1:] = [at.dy[0].sum((0, 1)) for _ in at.d_parameters[1:]]


@broken_back(Conv2DOp, "The gradient of a convolution's bias is zero", "conv2d.gradient.plain")
def conv_bias_gradient_forgotten(at):
    at.d_parameters[1:] = [gradient * 0 for gradient in at.d_parameters[1:]]


@broken_back(
    Conv2DOp, "The gradient of a convolution's bias leaves out the last column of places", "conv2d.gradient.plain"
)
def conv_bias_gradient_without_the_last_column(at):
    places = at.dy[:, :, : max(1, at.dy.shape[2] - 1)]
    at.d_parameters[1:] = [places.sum((0, 1, 2)) for _ in at.d_parameters[1:]]


# --------------------------------------------------------------------------------------------- convolutions: the input


@broken_back(
    Conv2DOp,
    "The gradient of the input is worked out with the kernel flipped",
    "conv2d.gradient.plain",
    "relation.adjoint.conv2d",
)
def input_gradient_with_the_flipped_kernel(at):
    kernel, *bias = at.parameters
    at.dx = at.again(parameters=(kernel[::-1, ::-1], *bias))[0]


@broken_back(
    Conv2DOp,
    "The gradient of the input is worked out with channels and filters mixed up",
    "v12.conv2d.layout.1x1.gradient",
)
def input_gradient_with_the_transposed_kernel(at):
    kernel, *bias = at.parameters
    if kernel.shape[2] == kernel.shape[3]:
        at.dx = at.again(parameters=(kernel.swapaxes(2, 3), *bias))[0]


@broken_back(
    Conv2DOp,
    "The gradient of the input is worked out as if strides were 1",
    "conv2d.gradient.strides.1x1-kernel",
    "conv2d.gradient.strides.1x2",
)
def input_gradient_ignores_strides(at):
    at.dx = at.again(op=replace(at.op, strides=(1, 1)))[0]


@broken_back(
    Conv2DOp,
    "The gradient of the input is worked out without dilation",
    "conv2d.gradient.dilation.2",
    "conv2d.gradient.dilation.3x1",
)
def input_gradient_ignores_dilation(at):
    at.dx = at.again(op=replace(at.op, dilation=(1, 1)))[0]


@broken_back(
    Conv2DOp,
    "The gradient of the input is cropped as if the padding were on the other side",
    "conv2d.gradient.padding.1x1-kernel",
    "conv2d.gradient.padding.right",
)
def input_gradient_cropped_on_the_wrong_side(at):
    (top, bottom), (left, right) = at.op.padding
    whole = at.again(op=replace(at.op, padding=((0, 0), (0, 0))), x=pad(at.x, at.op.padding))[0]
    at.dx = crop(whole, ((bottom, top), (right, left)), at.x.shape[1:3])


@broken_back(
    Conv2DOp,
    "Pixels that no window meets get garbage for a gradient, not 0",
    "v09.conv2d.unused-border.strides.gradient",
    "v09.conv2d.unused-border.dilation.gradient",
)
def border_gradient_is_garbage(at):
    ones = np.ones_like(at.parameters[0])
    met = at.again(parameters=(ones,), dy=np.ones_like(at.dy))[0]
    at.dx = np.where(met == 0, at.dy.mean(), at.dx)


@broken_back(Conv2DOp, "The gradient of the input sees the first filter only", "conv2d.gradient.plain")
def input_gradient_of_the_first_filter(at):
    at.dx = at.again(dy=np.where(np.arange(at.op.filters) == 0, at.dy, 0))[0]


@broken_back(
    Conv2DOp, "Where windows overlap, the last tap overwrites the gradient of those before it", "conv2d.gradient.plain"
)
def input_gradient_overwritten(at):
    padded = pad(np.zeros_like(at.x), at.op.padding)
    for tap in np.ndindex(*at.op.kernel_size):
        padded[seen_by(tap, at.op, at.op.dilation)] = at.dy @ at.parameters[0][tap].T
    at.dx = crop(padded, at.op.padding, at.x.shape[1:3])


@broken_back(Conv2DOp, "A convolution passes no gradient on to the layer before it", "conv2d.gradient.plain")
def conv_passes_no_gradient_on(at):
    at.dx = at.dx * 0


@broken_back(Conv2DOp, "Gradients of batches beyond the first image are those of the first", "conv2d.gradient.plain")
def input_gradient_of_the_first_image_for_all(at):
    at.dx = np.repeat(at.dx[:1], len(at.x), 0)


@broken_back(
    Conv2DOp, "The first layer gets no gradient", "conv2d.gradient.first-layer.uint8", "conv2d.gradient.first-layer"
)
def first_layer_without_gradient(at):
    if at.op.layer == 0:
        at.d_parameters[:] = [gradient * 0 for gradient in at.d_parameters]


# ---------------------------------------------------------------------------------------------------------- max pooling


def max_pool_giving(share):
    """Max pooling whose gradient goes to `share(tied, window)`, a weight for each tap; `tied` are the maxima."""

    def broken(op, x):
        y, _ = max_pool(op, x)
        padded = pad(x, op.padding, -np.inf)
        taps = [seen_by(tap, op) for tap in np.ndindex(*op.pool_size)]
        weights = share(np.stack([padded[seen] == y for seen in taps]), op)

        def back(dy):
            d_padded = np.zeros_like(padded)
            for weight, seen in zip(weights, taps, strict=True):
                d_padded[seen] += (weight * dy).astype(dy.dtype)
            return (crop(d_padded, op.padding, x.shape[1:3]),)

        return y, back

    return broken


def only(places):
    """One winner a window: `places` are the numbers of their taps."""
    return lambda count: np.arange(count).reshape(-1, 1, 1, 1, 1) == places


@broken_kernel(
    MaxPool2DOp,
    "All tied maxima of a window get the whole gradient",
    "v06.max-pool.ties.three",
    "v06.max-pool.ties.in-a-row",
)
def all_tied_maxima_win(*given):
    return max_pool_giving(lambda tied, _: tied)(*given)


@broken_kernel(
    MaxPool2DOp,
    "Tied maxima share the gradient of their window",
    "v06.max-pool.ties.three",
    "v06.max-pool.ties.in-a-row",
)
def tied_maxima_share_the_gradient(*given):
    return max_pool_giving(lambda tied, _: tied / np.maximum(tied.sum(0), 1))(*given)


@broken_kernel(MaxPool2DOp, "The last of tied maxima wins", "v06.max-pool.ties.three", "v06.max-pool.ties.in-a-row")
def last_of_tied_maxima_wins(*given):
    return max_pool_giving(lambda tied, _: only(len(tied) - 1 - tied[::-1].argmax(0))(len(tied)))(*given)


@broken_kernel(
    MaxPool2DOp,
    "The first of tied maxima wins column by column, not row by row",
    "v06.max-pool.ties.three",
    "v06.max-pool.ties.on-a-diagonal",
)
def first_of_tied_maxima_by_columns(*given):
    def share(tied, op):
        by_columns = np.arange(len(tied)).reshape(op.pool_size).T.ravel()
        return only(by_columns[tied[by_columns].argmax(0)])(len(tied))

    return max_pool_giving(share)(*given)


@broken_kernel(
    MaxPool2DOp,
    "The gradient of a window goes to its first pixel",
    "max-pool.gradient.channels.1",
    "max-pool.gradient.square",
)
def max_pool_gradient_to_the_first_pixel(*given):
    return max_pool_giving(lambda tied, _: only(0 * tied.argmax(0))(len(tied)))(*given)


@broken_kernel(
    MaxPool2DOp,
    "The gradient of a window is spread evenly over it",
    "max-pool.gradient.channels.1",
    "max-pool.gradient.square",
)
def max_pool_gradient_spread(*given):
    return max_pool_giving(lambda tied, _: np.ones_like(tied) / len(tied))(*given)


@broken_kernel(
    MaxPool2DOp,
    "The winners of the first image are taken for those of all",
    "max-pool.gradient.image",
    "max-pool.gradient.channels.1",
)
def winners_of_the_first_image(*given):
    return max_pool_giving(lambda tied, _: only(tied.argmax(0)[:1])(len(tied)))(*given)


@broken_kernel(
    MaxPool2DOp,
    "The winners of the first channel are taken for those of all",
    "max-pool.gradient.square",
    "max-pool.gradient.plain",
)
def winners_of_the_first_channel(*given):
    return max_pool_giving(lambda tied, _: only(tied.argmax(0)[..., :1])(len(tied)))(*given)


@broken_kernel(
    MaxPool2DOp,
    "Where windows overlap, a pixel that wins twice gets the gradient of one window only",
    "v07.max-pool.overlap.accumulates",
)
def max_pool_gradient_overwritten(op, x):
    y, _ = max_pool(op, x)
    padded = pad(x, op.padding, -np.inf)

    def back(dy):
        d_padded = np.zeros_like(padded)
        for tap in np.ndindex(*op.pool_size):
            seen = seen_by(tap, op)
            d_padded[seen] = np.where((padded[seen] == y) & (d_padded[seen] == 0), dy, d_padded[seen])
        return (crop(d_padded, op.padding, x.shape[1:3]),)

    return y, back


@broken_back(
    MaxPool2DOp,
    "The gradient of max pooling is cropped with the padding on the wrong side",
    "max-pool.gradient.padding-right",
    "max-pool.gradient.padding-top",
)
def max_pool_gradient_cropped_on_the_wrong_side(at):
    at.dx = np.roll(at.dx, [after - before for before, after in at.op.padding], (1, 2))


@broken_back(
    MaxPool2DOp,
    "The last row of pixels gets no gradient from max pooling",
    "max-pool.gradient.one-pixel",
    "max-pool.gradient.square",
)
def max_pool_gradient_without_the_last_row(at):
    at.dx = at.dx.copy()
    at.dx[:, at.x.shape[1] - 1 :] = 0


@broken_back(
    MaxPool2DOp,
    "The gradient passes through max pooling only where the maximum is positive",
    "max-pool.gradient.one-pixel",
    "max-pool.gradient.one-pixel-strides",
)
def max_pool_gradient_of_positive_maxima(at):
    y = max_pool(at.op, at.x)[0]
    (at.dx,) = at.again(dy=np.where(y > 0, at.dy, 0))


@broken_kernel(
    MaxPool2DOp,
    "The place of a winner is kept in a byte, which windows of more than 256 pixels overflow",
    "max-pool.gradient.window-of-340",
)
def winners_kept_in_bytes(*given):
    return max_pool_giving(lambda tied, _: only(tied.argmax(0).astype(np.uint8))(len(tied)))(*given)


@broken_kernel(MaxPool2DOp, "The place of a winner in its image is kept in 16 bits", "max-pool.gradient.image-of-66000")
def winners_kept_in_16_bits(op, x):
    y, pullback = max_pool(op, x)

    def back(dy):
        (dx,) = pullback(dy)
        flat = dx.reshape(len(dx), -1).copy()
        flat[:, 65536:] = 0
        return (flat.reshape(dx.shape),)

    return y, back


# ------------------------------------------------------------------------------------------------------ average pooling


@broken_back(
    AvgPool2DOp,
    "The gradient of average pooling is divided by the window's size, padding counted",
    "v04.avg-pool.window-wise-divisor.gradient",
)
def average_gradient_counts_padding(at):
    size = at.op.pool_size[0] * at.op.pool_size[1]
    ones = np.ones_like(at.x)
    count = size * average_pool(replace(at.op, padding=((0, 0), (0, 0))), pad(ones, at.op.padding))[0]
    (at.dx,) = at.again(dy=at.dy * count / size)


@broken_back(
    AvgPool2DOp,
    "The gradient of average pooling is not divided",
    "avg-pool.gradient.channels.1",
    "avg-pool.gradient.square",
)
def average_gradient_not_divided(at):
    size = at.op.pool_size[0] * at.op.pool_size[1]
    at.dx = at.dx * size


@broken_back(
    AvgPool2DOp,
    "The gradient of average pooling goes to the first pixel of a window",
    "avg-pool.gradient.channels.1",
    "avg-pool.gradient.square",
)
def average_gradient_to_the_first_pixel(at):
    padded = pad(np.zeros_like(at.x), at.op.padding)
    padded[seen_by((0, 0), at.op)] += at.dy
    at.dx = crop(padded, at.op.padding, at.x.shape[1:3])


@broken_back(
    AvgPool2DOp,
    "Where windows overlap, average pooling overwrites the gradient instead of adding",
    "avg-pool.gradient.overlap",
    "avg-pool.gradient.overlap-3-2",
)
def average_gradient_overwritten(at):
    padded = pad(np.zeros_like(at.x), at.op.padding)
    size = at.op.pool_size[0] * at.op.pool_size[1]
    for tap in np.ndindex(*at.op.pool_size):
        padded[seen_by(tap, at.op)] = at.dy / size
    if at.op.padding == ((0, 0), (0, 0)):
        at.dx = padded


@broken_back(
    AvgPool2DOp,
    "The gradient of average pooling swaps the strides of height and width",
    "avg-pool.gradient.one-pixel-strides",
    "avg-pool.gradient.wide",
)
def average_gradient_swaps_strides(at):
    (at.dx,) = at.again(op=replace(roomy(at.op), strides=at.op.strides[::-1]))


# -------------------------------------------------------------------------------------------------- layers without windows


@broken_back(
    DenseOp,
    "The gradient of a square dense kernel is transposed",
    "dense.gradient.square",
    "dense.gradient.square-stack",
)
def dense_kernel_gradient_transposed(at):
    if at.d_parameters[0].shape[0] == at.d_parameters[0].shape[1]:
        at.d_parameters[0] = at.d_parameters[0].T


@broken_back(
    DenseOp,
    "The gradient passes through a square dense layer by the kernel, not by its transpose",
    "dense.gradient.square-stack",
)
def dense_input_gradient_not_transposed(at):
    if at.d_parameters[0].shape[0] == at.d_parameters[0].shape[1]:
        at.dx = at.dy @ at.parameters[0]


@broken_back(
    DenseOp,
    "The gradient of a dense layer's bias is the mean over the batch once more",
    "dense.gradient.one-feature",
    "dense.gradient.wide",
)
def dense_bias_gradient_is_a_mean(at):
    at.d_parameters[1:] = [gradient / len(at.x) for gradient in at.d_parameters[1:]]


@broken_back(
    DenseOp,
    "The gradient of a dense layer's bias is that of the first image",
    "dense.gradient.one-feature",
    "dense.gradient.wide",
)
def dense_bias_gradient_of_the_first_image(at):
    at.d_parameters[1:] = [at.dy[0] for _ in at.d_parameters[1:]]


@broken_back(DenseOp, "A dense layer without bias passes no gradient on", "dense.gradient.sandwich")
def dense_without_bias_passes_no_gradient_on(at):
    at.dx = at.dx * (at.op.bias is not None)


@broken_back(
    FlattenOp, "The gradient comes back from flatten as (channels, height, width)", "v13.flatten.order.gradient"
)
def flatten_gradient_by_channels(at):
    batch, height, width, channels = at.x.shape
    at.dx = at.dy.reshape(batch, channels, height, width).transpose(0, 2, 3, 1)


@broken_back(
    RescaleOp,
    "The gradient passes through a rescaling unscaled",
    "rescale.gradient.zero-scale",
    "rescale.gradient.features",
)
def rescale_gradient_unscaled(at):
    at.dx = at.dy


@broken_back(
    GrayscaleOp,
    "The gradient passes through grayscale to the first channel only",
    "grayscale.gradient.luma",
    "grayscale.gradient.mean.3",
)
def grayscale_gradient_to_the_first_channel(at):
    at.dx = at.dx * (np.arange(at.dx.shape[-1]) == 0)


@broken_back(
    GrayscaleOp,
    "The gradient passes through grayscale unweighted",
    "grayscale.gradient.luma",
    "grayscale.gradient.mean.3",
)
def grayscale_gradient_unweighted(at):
    at.dx = np.repeat(at.dy, at.dx.shape[-1], -1)
