"""Poolings that are broken on the way forward."""

from dataclasses import replace

import numpy as np

from cnnkit.plan import AvgPool2DOp, MaxPool2DOp
from mutants.breaking import broken_kernel, broken_plan, ended, roomy
from mutants.right import average_pool, max_pool, pad, seen_by


def windows(op, x, fill):
    """What each tap sees: (taps, batch, height, width, channels)."""
    padded = pad(x, op.padding, fill)
    return np.stack([padded[seen_by(tap, op)] for tap in np.ndindex(*op.pool_size)])


def pool_plan(kind, broken, *meant):
    """The decorated function gives the pooling that is computed instead."""

    def note(change):
        def only_poolings(op, _plan):
            return change(op) if isinstance(op, kind) else op

        only_poolings.__name__, only_poolings.__module__ = change.__name__, change.__module__
        return broken_plan(broken, *meant)(only_poolings)

    return note


# ---------------------------------------------------------------------------------------------------------- max pooling


@broken_kernel(
    MaxPool2DOp,
    "Max pooling pads with zero",
    "v05.max-pool.negative-under-same.forward",
    "v05.max-pool.negative-under-padding.forward",
)
def max_pool_pads_with_zero(op, x):
    return max_pool(replace(op, padding=((0, 0), (0, 0))), pad(x, op.padding))[0], max_pool(op, x)[1]


@broken_kernel(MaxPool2DOp, "Max pooling pads with the lowest finite number", "v36.max-pool.all-minus-inf")
def max_pool_pads_with_the_lowest_number(op, x):
    y = windows(op, x, np.finfo(x.dtype).min).max(0)
    return y, max_pool(op, x)[1]


@broken_kernel(
    MaxPool2DOp,
    "Max pooling starts from -1,000, not from minus infinity",
    "v36.max-pool.all-minus-inf",
    "v36.max-pool.lowest",
)
def max_pool_starts_from_minus_1000(op, x):
    return np.maximum(max_pool(op, x)[0], -1000), max_pool(op, x)[1]


@broken_kernel(MaxPool2DOp, "Max pooling swallows NaN", "v36.loss.max-pool.nan", "v36.max-pool.nan")
def max_pool_swallows_nan(op, x):
    return np.fmax.reduce(windows(op, x, -np.inf)), max_pool(op, x)[1]


@broken_kernel(
    MaxPool2DOp,
    "Max pooling keeps NaN only where it stands first in the window",
    "v36.max-pool.nan",
    "v36.max-pool.gaps.nan",
)
def max_pool_keeps_nan_at_the_first_place_only(op, x):
    first, *others = windows(op, x, -np.inf)
    y = first
    for other in others:
        y = np.where(other > y, other, y)
    return y, max_pool(op, x)[1]


@broken_kernel(
    MaxPool2DOp,
    "Max pooling forgets NaN when a number follows it in the window",
    "v36.max-pool.nan",
    "v36.max-pool.gaps.nan",
)
def max_pool_keeps_nan_at_the_last_place_only(op, x):
    first, *others = windows(op, x, -np.inf)
    y = first
    for other in others:
        y = np.where(y > other, y, other)
    return y, max_pool(op, x)[1]


@broken_kernel(
    MaxPool2DOp,
    "Max pooling takes the number of the largest magnitude",
    "max-pool.forward.channels.1",
    "max-pool.forward.plain",
)
def max_pool_of_magnitudes(op, x):
    seen = windows(op, x, 0)
    return np.take_along_axis(seen, np.abs(seen).argmax(0)[None], 0)[0], max_pool(op, x)[1]


@broken_kernel(MaxPool2DOp, "Max pooling takes the minimum", "max-pool.forward.channels.1", "max-pool.forward.plain")
def max_pool_takes_the_minimum(op, x):
    y, pullback = max_pool(op, -x)
    return -y, pullback


@broken_kernel(
    MaxPool2DOp,
    "Max pooling leaves out the last pixel of windows larger than 2 x 2",
    "max-pool.forward.overlap-3-2",
    "max-pool.forward.wide",
)
def max_pool_without_the_last_pixel(op, x):
    return windows(op, x, -np.inf)[: max(4, op.pool_size[0] * op.pool_size[1] - 1)].max(0), max_pool(op, x)[1]


@broken_kernel(
    MaxPool2DOp,
    "Max pooling looks for the maximum over all channels",
    "max-pool.forward.channels.64",
    "max-pool.forward.channels.17",
)
def max_pool_over_channels(*given):
    return ended(max_pool, lambda _op, _x, y: np.broadcast_to(y.max(-1, keepdims=True), y.shape))(*given)


@pool_plan(
    MaxPool2DOp,
    "The window of max pooling has height and width swapped",
    "max-pool.forward.image",
    "max-pool.forward.tall",
)
def max_pool_size_swapped(op):
    return replace(roomy(op), pool_size=op.pool_size[::-1])


@pool_plan(
    MaxPool2DOp,
    "The strides of max pooling are swapped",
    "max-pool.forward.one-pixel-strides",
    "max-pool.gradient.one-pixel-strides",
)
def max_pool_strides_swapped(op):
    return replace(roomy(op), strides=op.strides[::-1])


@pool_plan(
    MaxPool2DOp,
    "Max pooling moves by its window, whatever the strides",
    "max-pool.forward.one-pixel-strides",
    "max-pool.forward.same-strides",
)
def max_pool_strides_ignored(op):
    return replace(roomy(op), strides=op.pool_size)


@pool_plan(
    MaxPool2DOp, "Max pooling pads on the wrong side", "max-pool.forward.padding-right", "max-pool.forward.padding-top"
)
def max_pool_pads_on_the_wrong_side(op):
    return replace(op, padding=tuple(side[::-1] for side in op.padding))


@pool_plan(
    MaxPool2DOp,
    "Max pooling puts all padding after the image",
    "max-pool.forward.padding-top",
    "max-pool.forward.large-numbers",
)
def max_pool_pads_after(op):
    return replace(op, padding=tuple((0, before + after) for before, after in op.padding))


# ------------------------------------------------------------------------------------------------------ average pooling


def average_with(count):
    """Average pooling that divides the sum of a window by `count(op, x)`."""

    def broken(op, x):
        return (windows(op, x, 0).sum(0) / count(op, x)).astype(x.dtype), average_pool(op, x)[1]

    return broken


@broken_kernel(
    AvgPool2DOp,
    "Average pooling counts padding",
    "v04.avg-pool.padding-not-counted.forward",
    "v04.avg-pool.window-wise-divisor.forward",
)
def padding_counted_in_averages(*given):
    return average_with(lambda op, _: op.pool_size[0] * op.pool_size[1])(*given)


@broken_kernel(
    AvgPool2DOp,
    "Average pooling counts padding, there and back",
    "v04.avg-pool.padding-not-counted.forward",
    "v04.avg-pool.window-wise-divisor.gradient",
)
def padding_counted_in_averages_and_gradients(op, x):
    whole = replace(op, padding=((0, 0), (0, 0)))
    y, pullback = average_pool(whole, pad(x, op.padding))
    (top, _), (left, _) = op.padding
    height, width = x.shape[1:3]
    return y, lambda dy: (pullback(dy)[0][:, top : top + height, left : left + width],)


@broken_kernel(
    AvgPool2DOp,
    "Average pooling counts the padding above and to the left, not that below and to the right",
    "v04.avg-pool.padding-not-counted.forward",
    "v04.avg-pool.window-wise-divisor.forward",
)
def padding_before_counted_in_averages(*given):
    def count(op, x):
        (top, bottom), (left, right) = op.padding
        height, width = x.shape[1:3]
        ones = np.ones((1, top + height, left + width, 1))
        return windows(replace(op, padding=((0, bottom), (0, right))), ones, 0).sum(0)

    return average_with(count)(*given)


@broken_kernel(
    AvgPool2DOp,
    "Average pooling divides by the number of pixels of the first window",
    "v04.avg-pool.padding-not-counted.forward",
    "v04.avg-pool.window-wise-divisor.forward",
)
def average_divided_by_the_first_count(*given):
    def count(op, x):
        return windows(op, np.ones_like(x[:1, :, :, :1]), 0).sum(0)[:, :1, :1]

    return average_with(count)(*given)


@broken_kernel(AvgPool2DOp, "Average pooling gives the sum", "avg-pool.forward.channels.1", "avg-pool.forward.wide")
def sum_instead_of_mean(op, x):
    y, pullback = average_pool(op, x)
    size = op.pool_size[0] * op.pool_size[1]
    return y * size, lambda dy: (pullback(dy)[0] * size,)


@broken_kernel(AvgPool2DOp, "Average pooling counts only pixels that are not zero", "avg-pool.forward.uint8")
def zeros_not_counted_in_averages(*given):
    return average_with(lambda op, x: np.maximum((windows(op, x, 0) != 0).sum(0), 1))(*given)


@broken_kernel(AvgPool2DOp, "Average pooling leaves NaN out of the mean", "v36.loss.avg-pool.nan", "v36.avg-pool.nan")
def average_pool_swallows_nan(op, x):
    return average_pool(op, np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf))[0], average_pool(op, x)[1]


@broken_kernel(
    AvgPool2DOp, "Average pooling adds up in float16", "avg-pool.forward.channels.1", "avg-pool.forward.wide"
)
def averages_in_float16(*given):
    def rough(op, x, _y):
        return windows(op, x, 0).astype(np.float16).sum(0) / windows(op, np.ones_like(x), 0).sum(0)

    return ended(average_pool, rough)(*given)


@pool_plan(
    AvgPool2DOp,
    "The window of average pooling has height and width swapped",
    "v08.avg-pool.floor.forward",
    "v36.avg-pool.gaps.nan",
)
def average_pool_size_swapped(op):
    return replace(op, pool_size=op.pool_size[::-1]) if op.padding == ((0, 0), (0, 0)) and _fits(op) else op


def _fits(op):
    return all(
        (places - 1) * stride + size <= room
        for places, stride, size, room in zip(
            op.output_shape, op.strides, op.pool_size[::-1], op.input_shape, strict=False
        )
    )


@pool_plan(
    AvgPool2DOp,
    "Average pooling moves by its window, whatever the strides",
    "avg-pool.forward.one-pixel-strides",
    "avg-pool.forward.same-strides",
)
def average_pool_strides_ignored(op):
    return replace(roomy(op), strides=op.pool_size)


@pool_plan(
    AvgPool2DOp,
    "Average pooling pads on the wrong side",
    "avg-pool.forward.padding-top",
    "avg-pool.forward.padding-right",
)
def average_pool_pads_on_the_wrong_side(op):
    return replace(op, padding=tuple(side[::-1] for side in op.padding))
