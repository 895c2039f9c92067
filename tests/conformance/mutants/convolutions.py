"""Convolutions that are broken on the way forward."""

from dataclasses import replace

import numpy as np

from cnnkit.plan import Conv2DOp
from mutants.breaking import broken_kernel, broken_plan, ended, fed, roomy, viewed
from mutants.right import convolve, crop, pad


def conv(broken, *meant, **options):
    return broken_kernel(Conv2DOp, broken, *meant, **options)


def conv_plan(broken, *meant):
    """The decorated function `(op, layer)` gives the convolution that is computed instead."""

    def note(change):
        def only_convolutions(op, plan):
            return change(op, plan.model.layers[op.layer]) if isinstance(op, Conv2DOp) else op

        only_convolutions.__name__, only_convolutions.__module__ = change.__name__, change.__module__
        return broken_plan(broken, *meant)(only_convolutions)

    return note


# ---------------------------------------------------------------------------------------------------------- the kernel


@conv(
    "The kernel is flipped along both axes, as in a true convolution",
    "v01.conv2d.not-flipped.forward",
    "v01.conv2d.not-flipped.gradient",
)
def kernel_flipped(*given):
    return viewed(lambda kernel: kernel[::-1, ::-1])(*given)


@conv("The kernel is flipped along the width only", "v01.conv2d.not-flipped.forward", "v01.conv2d.not-flipped.gradient")
def kernel_mirrored(*given):
    return viewed(lambda kernel: kernel[:, ::-1])(*given)


@conv(
    "A square kernel has its height and width transposed",
    "v12.conv2d.layout.all-3.forward",
    "v12.conv2d.layout.all-2.forward",
)
def kernel_height_and_width_transposed(*given):
    return viewed(lambda kernel: kernel.swapaxes(0, 1) if kernel.shape[0] == kernel.shape[1] else kernel)(*given)


@conv(
    "A kernel with as many filters as channels has the two transposed",
    "v12.conv2d.layout.1x1.forward",
    "v12.conv2d.layout.all-3.forward",
)
def kernel_channels_and_filters_transposed(*given):
    return viewed(lambda kernel: kernel.swapaxes(2, 3) if kernel.shape[2] == kernel.shape[3] else kernel)(*given)


@conv(
    "A kernel is read as (filters, in, height, width) where its shape allows both",
    "v12.conv2d.layout.all-3.forward",
    "v12.conv2d.layout.all-2.forward",
)
def kernel_layout_guessed_from_shape(*given):
    def view(kernel):
        turned = kernel.transpose(3, 2, 0, 1)
        return turned if turned.shape == kernel.shape else kernel

    def back(kernel):
        return kernel.transpose(2, 3, 1, 0) if view(kernel) is not kernel else kernel

    op, x, kernel, *bias = given
    y, pullback = convolve(op, x, view(kernel), *bias)

    def way_back(dy):
        dx, d_kernel, *d_bias = pullback(dy)
        return dx, back(d_kernel), *d_bias

    return y, way_back


def without_tap(*tap):
    def drop(op, x, kernel, *bias):
        kernel = kernel.copy()
        if kernel.shape[0] * kernel.shape[1] > 1:
            kernel[tap] = 0
        return op, x, kernel, *bias

    return fed(convolve, drop)


@conv("The last tap of the kernel is left out", "conv2d.forward.plain", "conv2d.forward.no-bias")
def last_tap_dropped(*given):
    return without_tap(-1, -1)(*given)


@conv("The first tap of the kernel is left out", "conv2d.forward.plain", "conv2d.forward.no-bias")
def first_tap_dropped(*given):
    return without_tap(0, 0)(*given)


@conv("Kernels larger than 3 x 3 are cut to 3 x 3", "conv2d.forward.kernel.4x1", "conv2d.forward.kernel.image-height")
def kernels_of_three_at_most(*given):
    def cut(op, x, kernel, *bias):
        kernel = kernel.copy()
        kernel[3:], kernel[:, 3:] = 0, 0
        return op, x, kernel, *bias

    return fed(convolve, cut)(*given)


# --------------------------------------------------------------------------------------------- bias, channels, filters


@conv("The bias is forgotten", "conv2d.forward.zeros", "conv2d.forward.plain")
def conv_bias_forgotten(op, x, kernel, bias=None):
    return convolve(op, x, kernel, None if bias is None else bias * 0)


@conv(
    "The bias is forgotten where there is one filter", "conv2d.forward.filters.1-channels.1", "conv2d.forward.filters.1"
)
def conv_bias_forgotten_for_one_filter(op, x, kernel, bias=None):
    return convolve(op, x, kernel, None if bias is None else bias * (op.filters > 1))


@conv("The bias is not added at windows that meet padding", "conv2d.forward.zeros", "conv2d.forward.one-hot")
def conv_bias_not_added_at_the_border(op, x, kernel, bias=None):
    y, pullback = convolve(op, x, kernel, bias)
    if bias is not None and op.padding != ((0, 0), (0, 0)):
        outside, _ = convolve(replace(op, filters=1), np.ones_like(x[:1]), np.ones((*kernel.shape[:3], 1), x.dtype))
        y = y - bias * (outside < kernel[..., 0].size)
    return y, pullback


@conv("Only the first channel is convolved", "conv2d.forward.channels.3", "conv2d.forward.channels.17")
def only_the_first_channel(*given):
    def first(op, x, kernel, *bias):
        kernel = kernel.copy()
        kernel[:, :, 1:] = 0
        return op, x, kernel, *bias

    return fed(convolve, first)(*given)


@conv(
    "Channels and filters are halved into two groups where both are even",
    "conv2d.forward.channels.4",
    "conv2d.forward.kernel.5x4",
)
def convolved_in_groups(*given):
    def grouped(op, x, kernel, *bias):
        kernel = kernel.copy()
        half_in, half_out = kernel.shape[2] // 2, kernel.shape[3] // 2
        if kernel.shape[2] % 2 == 0 and kernel.shape[3] % 2 == 0:
            kernel[:, :, half_in:, :half_out], kernel[:, :, :half_in, half_out:] = 0, 0
        return op, x, kernel, *bias

    return fed(convolve, grouped)(*given)


@conv("Channels beyond the sixteenth are ignored", "v49.large.64-channels", "v49.large.130-channels")
def channels_beyond_16_ignored(*given):
    def cut(op, x, kernel, *bias):
        kernel = kernel.copy()
        kernel[:, :, 16:] = 0
        return op, x, kernel, *bias

    return fed(convolve, cut)(*given)


@conv(
    "Filters come in eights: those of an unfinished eight, behind the first, are zero",
    "v49.large.1-to-130-filters",
    "v49.large.1-to-130-filters.gradient",
)
def filters_in_eights(*given):
    def cut(op, _x, y):
        whole = max(8, op.filters // 8 * 8)
        return np.where(np.arange(op.filters) < whole, y, 0)

    return ended(convolve, cut)(*given)


@conv(
    "Channels come in fours: those of an unfinished four, behind the first, are ignored",
    "v49.large.130-channels",
    "conv2d.forward.channels.17",
)
def channels_in_fours(*given):
    def cut(op, x, kernel, *bias):
        kernel = kernel.copy()
        kernel[:, :, max(4, kernel.shape[2] // 4 * 4) :] = 0
        return op, x, kernel, *bias

    return fed(convolve, cut)(*given)


@conv(
    "Columns come in eights: those of an unfinished eight, behind the first, are zero",
    "v49.strides-over-kernel",
    "v49.large.1x1100",
)
def columns_in_eights(*given):
    def cut(op, _x, y):
        width = op.output_shape[1]
        return np.where(np.arange(width)[:, None] < max(8, width // 8 * 8), y, 0)

    return ended(convolve, cut)(*given)


@conv(
    "Images go through in tiles of 16 rows; a window that reaches over the edge of a tile sees zeros there",
    "v49.large.130x9",
    "v49.large.1100x1",
)
def tiles_of_sixteen_rows(op, x, kernel, *bias):
    y, pullback = convolve(op, x, kernel, *bias)
    if op.strides == (1, 1) and op.dilation == (1, 1):
        for edge in range(16, y.shape[1], 16):
            upper = pad(x, op.padding)
            upper[:, edge:] = 0
            above = convolve(replace(op, padding=((0, 0), (0, 0))), upper, kernel, *bias)[0]
            y[:, edge - op.kernel_size[0] + 1 : edge] = above[:, edge - op.kernel_size[0] + 1 : edge]
    return y, pullback


@conv(
    "The bias goes along the width, where there are as many columns as filters",
    "v12.conv2d.layout.channels-are-height.forward",
    "conv2d.forward.kernel.1x4",
)
def conv_bias_along_the_width(op, x, kernel, *bias):
    y, pullback = convolve(op, x, kernel, *bias)
    if bias and op.output_shape[1] == op.filters:
        y = y - bias[0] + bias[0][:, None]
    return y, pullback


@conv("With strides the bias is added twice", "conv2d.forward.strides.over-image", "conv2d.forward.strides.1x1-kernel")
def conv_bias_twice_with_strides(op, x, kernel, bias=None):
    return convolve(op, x, kernel, bias if bias is None or op.strides == (1, 1) else 2 * bias)


@conv_plan(
    'Padding "same" is worked out without dilation', "conv2d.forward.dilation.same", "conv2d.gradient.dilation.same"
)
def same_ignores_dilation(op, layer):
    if layer.padding != "same" or op.dilation == (1, 1):
        return op
    total = [
        max((o - 1) * s + k - i, 0)
        for o, s, k, i in zip(op.output_shape, op.strides, op.kernel_size, op.input_shape, strict=False)
    ]
    return roomy(replace(op, padding=tuple((side // 2, side - side // 2) for side in total)))


# ----------------------------------------------------------------------------------------- strides, dilation, the plan


@conv_plan("The strides of height and width are swapped", "conv2d.forward.strides.3x1", "conv2d.forward.strides.1x2")
def conv_strides_swapped(op, _layer):
    return replace(roomy(op), strides=op.strides[::-1])


@conv_plan("Strides are ignored", "conv2d.forward.strides.1x1-kernel", "conv2d.forward.strides.2")
def conv_strides_ignored(op, _layer):
    return replace(op, strides=(1, 1))


@conv_plan(
    "A stride longer than the kernel is shortened to it",
    "conv2d.forward.strides.1x1-kernel",
    "conv2d.forward.strides.over-kernel",
)
def conv_strides_no_longer_than_the_kernel(op, _layer):
    return replace(op, strides=tuple(map(min, op.strides, op.kernel_size)))


@conv_plan(
    "Kernels of 1 x 1 take a short cut that forgets strides",
    "conv2d.forward.strides.1x1-kernel",
    "conv2d.gradient.strides.1x1-kernel",
)
def one_by_one_ignores_strides(op, _layer):
    return replace(op, strides=(1, 1)) if op.kernel_size == (1, 1) else op


@conv(
    "Kernels of 1 x 1 take a short cut that begins at the first pixel whatever the padding",
    "conv2d.forward.padding.1x1-kernel",
    "conv2d.gradient.padding.1x1-kernel",
)
def one_by_one_ignores_padding(op, x, kernel, *bias):
    if op.kernel_size != (1, 1):
        return convolve(op, x, kernel, *bias)
    return convolve(replace(op, padding=((0, 40), (0, 40))), x, kernel, *bias)


@conv_plan("Dilation is ignored", "conv2d.forward.dilation.2", "conv2d.forward.dilation.3x1")
def dilation_ignored(op, _layer):
    return replace(op, dilation=(1, 1))


@conv_plan(
    "The dilations of height and width are swapped", "conv2d.forward.dilation.3x1", "conv2d.forward.dilation.1x3"
)
def dilation_swapped(op, _layer):
    return replace(roomy(op), dilation=op.dilation[::-1])


@conv_plan("Dilation is ignored where strides are longer than 1", "v11.conv2d.strides-and-dilation.forward")
def dilation_ignored_with_strides(op, _layer):
    return replace(op, dilation=(1, 1)) if op.strides != (1, 1) else op


@conv_plan(
    "Dilation counts the pixels between the taps: one too many",
    "conv2d.forward.dilation.2",
    "conv2d.forward.dilation.3x1",
)
def dilation_one_too_many(op, _layer):
    return replace(roomy(op), dilation=tuple(d + 1 if d > 1 else d for d in op.dilation))


# ------------------------------------------------------------------------------------------------------------- padding


def swapped_sides(op):
    (top, bottom), (left, right) = op.padding
    return replace(op, padding=((bottom, top), (right, left)))


@conv_plan("Padding is put on the wrong side", "conv2d.forward.padding.right", "conv2d.forward.padding.bottom")
def conv_padding_on_the_wrong_side(op, _layer):
    return swapped_sides(op)


@conv_plan(
    'With padding "same" the odd pixel goes before',
    "v02.conv2d.same.4x4-k2.forward",
    "v02.conv2d.same.5x6-k4x3-s2x1.forward",
)
def same_puts_the_odd_pixel_before(op, layer):
    return swapped_sides(op) if layer.padding == "same" else op


@conv_plan(
    'With padding "same" and strides the padding is that of stride 1',
    "v02.conv2d.same.4x4-k3-s2.forward",
    "v02.conv2d.same.6x5-k3x2-s2x1.forward",
)
def same_as_if_there_were_no_strides(op, layer):
    if layer.padding != "same":
        return op
    windows = [d * (k - 1) for d, k in zip(op.dilation, op.kernel_size, strict=True)]
    return roomy(replace(op, padding=tuple((window // 2, window - window // 2) for window in windows)))


@conv_plan("Uneven padding is made even on both sides", "conv2d.forward.padding.right", "conv2d.forward.padding.bottom")
def conv_padding_made_even(op, _layer):
    return roomy(replace(op, padding=tuple(((a + b) // 2, (a + b + 1) // 2) for a, b in op.padding)))


@conv_plan(
    "The paddings of height and width are swapped", "conv2d.forward.padding.sides", "conv2d.forward.padding.1x1-kernel"
)
def conv_padding_of_height_and_width_swapped(op, _layer):
    return roomy(replace(op, padding=op.padding[::-1]))


@conv_plan("The padding of the height is used for the width too", "conv2d.forward.padding.sides")
def conv_padding_of_the_height_for_both(op, _layer):
    return roomy(replace(op, padding=(op.padding[0], op.padding[0])))


def padded_by(mode):
    def broken(op, x, kernel, *bias):
        whole = np.pad(x, ((0, 0), *op.padding, (0, 0)), mode)
        y, pullback = convolve(replace(op, padding=((0, 0), (0, 0))), whole, kernel, *bias)

        def back(dy):
            d_padded, *rest = pullback(dy)
            return crop(d_padded, op.padding, x.shape[1:3]), *rest

        return y, back

    return broken


@conv(
    "Convolutions pad with the nearest pixel instead of zero",
    "conv2d.forward.padding.even",
    "conv2d.forward.border-of-ones",
)
def conv_pads_with_the_edge(*given):
    return padded_by("edge")(*given)


@conv("Convolutions pad by reflection instead of zero", "conv2d.forward.padding.even", "conv2d.forward.border-of-ones")
def conv_pads_by_reflection(*given):
    return padded_by("reflect")(*given)


@conv(
    "Convolutions pad with the pixels of the other side", "conv2d.forward.padding.even", "conv2d.forward.border-of-ones"
)
def conv_pads_around(*given):
    return padded_by("wrap")(*given)


@conv(
    "Where there is padding on every side, the windows in the corners give the bias alone",
    "conv2d.forward.border-of-ones",
    "conv2d.forward.one-hot",
)
def corner_windows_left_out(op, x, kernel, *bias):
    y, pullback = convolve(op, x, kernel, *bias)
    if all(before and after for before, after in op.padding):
        y[:, [0, 0, -1, -1], [0, -1, 0, -1]] = bias[0] if bias else 0
    return y, pullback


# ------------------------------------------------------------------------------------------------- images and batches


@conv(
    "A kernel as large as the image is taken for a dense layer over (channels, height, width)",
    "conv2d.forward.kernel.image",
    "v49.kernel-is-image",
)
def full_size_kernel_flattened_by_channels(op, x, kernel, *bias):
    if op.kernel_size != op.input_shape[:2] or op.padding != ((0, 0), (0, 0)) or op.dilation != (1, 1):
        return convolve(op, x, kernel, *bias)
    moved = x.transpose(0, 3, 1, 2).reshape(x.shape)
    return convolve(op, moved, kernel, *bias)


@conv(
    "The padding of an image holds what the image before it in the batch left there",
    "conv2d.forward.border-of-ones",
    "conv2d.forward.padding.left",
)
def border_left_over_from_the_image_before(op, x, kernel, *bias):
    if op.padding == ((0, 0), (0, 0)):
        return convolve(op, x, kernel, *bias)
    padded = pad(x, op.padding)
    outside = pad(np.ones_like(x), op.padding) == 0
    left_over = np.concatenate([padded[:1] * 0, np.flip(padded[:-1], (1, 2))])
    y, pullback = convolve(replace(op, padding=((0, 0), (0, 0))), np.where(outside, left_over, padded), kernel, *bias)

    def back(dy):
        d_padded, *rest = pullback(dy)
        return crop(d_padded, op.padding, x.shape[1:3]), *rest

    return y, back
