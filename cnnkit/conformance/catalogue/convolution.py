"""Cases of convolutions: every padding, stride, dilation and kernel shape, forward and backward.

Images are rarely square and kernels rarely symmetric, for both hide what is turned over or exchanged. The backward
cases put a convolution of one pixel before the one that is asked about (see `probes.probe_question`), so that they see
the gradient of each input pixel besides those of kernel and bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnkit.conformance.case import Case, drawn_case
from cnnkit.conformance.catalogue.probes import drawn_gradient_case, predict_case, predict_question, probe_case, uniform
from cnnkit.conformance.question import draw
from cnnkit.conformance.subject import Subject
from cnnkit.model import Conv2D, Dense, Flatten, Softmax


@dataclass(frozen=True)
class Setup:
    """A convolution and the images that it is tried on."""

    what: str
    layer: Conv2D
    shape: tuple[int, int, int] = (7, 6, 2)
    batch: int = 2


def _conv(filters: int, kernel_size: int | tuple[int, int], **fields: Any) -> Conv2D:
    return Conv2D(filters=filters, kernel_size=kernel_size, **fields)


SETUPS = {
    "plain": Setup("a 3 x 2 kernel", _conv(3, (3, 2))),
    "square": Setup("a 3 x 3 kernel on square images", _conv(3, 3), (6, 6, 2)),
    "no-bias": Setup("no bias", _conv(3, (2, 3), use_bias=False)),
    # kernel shapes
    "kernel.1x1": Setup("a 1 x 1 kernel", _conv(4, 1), (5, 6, 3)),
    "kernel.1x4": Setup("a 1 x 4 kernel", _conv(3, (1, 4))),
    "kernel.4x1": Setup("a 4 x 1 kernel", _conv(3, (4, 1))),
    "kernel.2x2": Setup("an even kernel", _conv(3, 2)),
    "kernel.5x4": Setup("a 5 x 4 kernel", _conv(2, (5, 4))),
    "kernel.5x5": Setup("a 5 x 5 kernel", _conv(2, 5), (7, 8, 2)),
    "kernel.7x7": Setup("a 7 x 7 kernel", _conv(2, 7, padding="same"), (6, 8, 2)),
    "kernel.11x11": Setup("an 11 x 11 kernel", _conv(2, 11, strides=4, padding=((2, 2), (2, 2))), (11, 14, 2), 1),
    "kernel.image": Setup("a kernel as large as the image", _conv(3, (5, 4)), (5, 4, 2)),
    "kernel.image-height": Setup("a kernel as high as the image", _conv(3, (5, 2)), (5, 6, 2)),
    # channels and filters
    "channels.1": Setup("1 channel", _conv(3, (2, 3)), (5, 6, 1)),
    "channels.3": Setup("3 channels", _conv(2, (2, 3)), (5, 6, 3)),
    "channels.4": Setup("4 channels", _conv(8, (3, 2)), (5, 6, 4)),
    "channels.17": Setup("17 channels", _conv(5, (2, 3)), (4, 5, 17)),
    "channels.64": Setup("64 channels", _conv(3, (3, 2)), (4, 5, 64)),
    "filters.1": Setup("1 filter", _conv(1, (3, 2))),
    "filters.1-channels.1": Setup("1 channel and 1 filter", _conv(1, (3, 2)), (5, 6, 1)),
    "filters.17": Setup("17 filters", _conv(17, (3, 2)), (5, 4, 2)),
    "filters.65": Setup("65 filters", _conv(65, (2, 3)), (4, 5, 3)),
    # strides
    "strides.2": Setup("stride 2", _conv(3, 3, strides=2), (7, 9, 2)),
    "strides.1x2": Setup("strides 1 and 2", _conv(3, (3, 2), strides=(1, 2))),
    "strides.3x1": Setup("strides 3 and 1", _conv(3, (3, 2), strides=(3, 1)), (9, 5, 2)),
    "strides.over-kernel": Setup("strides over the kernel", _conv(3, (2, 1), strides=(3, 4)), (8, 9, 2)),
    "strides.1x1-kernel": Setup("stride 2 and a 1 x 1 kernel", _conv(3, 1, strides=2), (5, 6, 3)),
    "strides.over-image": Setup("strides over the image", _conv(3, (2, 3), strides=(9, 8)), (5, 6, 2)),
    # dilation
    "dilation.2": Setup("dilation 2", _conv(3, (2, 3), dilation=2)),
    "dilation.1x1-kernel": Setup("dilation and a 1 x 1 kernel", _conv(3, 1, dilation=(2, 3)), (4, 5, 2)),
    "dilation.1x3": Setup("dilation 1 and 3", _conv(3, (3, 2), dilation=(1, 3))),
    "dilation.3x1": Setup("dilation 3 and 1", _conv(3, (2, 3), dilation=(3, 1))),
    "dilation.same": Setup("dilation 2 and same padding", _conv(3, (3, 2), dilation=(2, 3), padding="same")),
    "dilation.padded": Setup(
        "dilation and uneven padding", _conv(2, (2, 3), dilation=(3, 2), padding=((2, 1), (0, 3))), (5, 6, 2)
    ),
    # padding
    "padding.even": Setup("1 pixel of padding all round", _conv(3, 3, padding=((1, 1), (1, 1))), (5, 6, 2)),
    "padding.sides": Setup("1 row and 2 columns of padding", _conv(3, (3, 2), padding=((1, 1), (2, 2))), (5, 6, 2)),
    "padding.top": Setup("padding above only", _conv(3, (3, 2), padding=((2, 0), (0, 0))), (5, 6, 2)),
    "padding.bottom": Setup("padding below only", _conv(3, (3, 2), padding=((0, 2), (0, 0))), (5, 6, 2)),
    "padding.left": Setup("padding on the left only", _conv(3, (2, 3), padding=((0, 0), (2, 0))), (5, 6, 2)),
    "padding.right": Setup("padding on the right only", _conv(3, (2, 3), padding=((0, 0), (0, 2))), (5, 6, 2)),
    "padding.uneven": Setup("padding unlike on every side", _conv(3, (3, 2), padding=((2, 1), (0, 3))), (5, 6, 2)),
    "padding.over-kernel": Setup("more padding than kernel", _conv(2, (2, 1), padding=((3, 2), (1, 4))), (4, 3, 2)),
    "padding.1x1-kernel": Setup("padding and a 1 x 1 kernel", _conv(2, 1, padding=((1, 0), (2, 1))), (4, 3, 2)),
    "padding.strides": Setup(
        "uneven padding and strides", _conv(3, (3, 4), padding=((0, 2), (3, 1)), strides=(2, 3)), (6, 7, 2)
    ),
    "same.odd": Setup("same padding and an odd kernel", _conv(3, (3, 5), padding="same"), (5, 6, 2)),
    "same.1x1-image": Setup("same padding on an image of one pixel", _conv(3, 3, padding="same"), (1, 1, 2)),
}

# Each id names the trap, docs/reference/divergences.md tells about it.
TRAPS = {
    "v01.conv2d.not-flipped": Setup("an asymmetric kernel, not flipped,", _conv(1, (2, 3)), (4, 5, 1)),
    "v02.conv2d.same.4x4-k3-s2": Setup(
        "same padding, a 4 x 4 image, kernel 3 and stride 2", _conv(2, 3, strides=2, padding="same"), (4, 4, 2)
    ),
    "v02.conv2d.same.4x4-k2": Setup("same padding, a 4 x 4 image and kernel 2", _conv(2, 2, padding="same"), (4, 4, 2)),
    "v02.conv2d.same.5x5-k4-s3": Setup(
        "same padding, a 5 x 5 image, kernel 4 and stride 3", _conv(2, 4, strides=3, padding="same"), (5, 5, 2)
    ),
    "v02.conv2d.same.5x6-k4x3-s2x1": Setup(
        "same padding, uneven in height alone", _conv(2, (4, 3), strides=(1, 1), padding="same"), (5, 6, 2)
    ),
    "v02.conv2d.same.6x5-k3x2-s2x1": Setup(
        "same padding, uneven on both axes", _conv(2, (3, 2), strides=(2, 1), padding="same"), (6, 5, 2)
    ),
    "v09.conv2d.unused-border.strides": Setup(
        "strides that leave rows and columns unused", _conv(2, 3, strides=(3, 2)), (8, 6, 2)
    ),
    "v09.conv2d.unused-border.dilation": Setup(
        "strides and dilation that leave pixels unused", _conv(2, (3, 2), strides=(2, 3), dilation=(2, 3)), (8, 9, 2)
    ),
    "v09.conv2d.unused-border.padded": Setup(
        "strides that leave padding unused", _conv(2, 2, strides=3, padding=((1, 1), (0, 2))), (5, 5, 2)
    ),
    "v11.conv2d.strides-and-dilation": Setup(
        "strides and dilation at once", _conv(3, (3, 2), strides=(2, 3), dilation=(2, 1)), (9, 8, 3)
    ),
    "v12.conv2d.layout.all-3": Setup("kernel, channels and filters all 3", _conv(3, 3), (5, 6, 3)),
    "v12.conv2d.layout.channels-are-height": Setup("as many channels as kernel rows", _conv(4, (2, 3)), (5, 6, 2)),
    "v12.conv2d.layout.filters-are-width": Setup("as many filters as kernel columns", _conv(3, (2, 3)), (5, 6, 4)),
    "v12.conv2d.layout.1x1": Setup("kernel 1 and as many filters as channels", _conv(3, 1), (4, 5, 3)),
    "v12.conv2d.layout.all-1": Setup("one channel, one filter, a kernel of one number", _conv(1, 1), (4, 5, 1)),
    "v12.conv2d.layout.all-2": Setup("kernel, channels, filters and batch all 2", _conv(2, 2), (3, 4, 2)),
}


def _forward(id: str, setup: Setup) -> Case:  # noqa: A002 - as in Case
    claim = f"A convolution with {setup.what} gives the sums of kernel times image"
    return drawn_case(id, claim, [setup.layer], setup.shape, batch=setup.batch)


def _backward(id: str, setup: Setup) -> Case:  # noqa: A002 - as in Case
    claim = f"A convolution with {setup.what} passes the gradient to its input, kernel and bias"
    return probe_case(id, claim, [setup.layer], uniform((setup.batch, *setup.shape)))


def _same_is_its_padding(subject: Subject) -> None:
    """`same` and the numbers that it stands for are one model, whatever route an engine takes for either."""
    for kernel, strides, shape in (((3, 2), (2, 3), (6, 8, 2)), ((4, 3), (3, 2), (7, 5, 2))):
        named = draw([_conv(2, kernel, strides=strides, padding="same")], shape, precision=subject.precision)
        (op,) = named.plan.operations
        explicit = _conv(2, kernel, strides=strides, padding=op.padding)  # type: ignore[attr-defined] # a convolution's
        subject.ask(named)
        parameters = {f"{name.partition('.')[2]}_0": array for name, array in named.parameters.items()}
        subject.ask(predict_question([explicit], named.images, subject.precision, **parameters))


def _whole(shape: tuple[int, ...], seed: int) -> Any:
    return np.random.default_rng(seed).integers(-9, 10, shape)


CASES: list[Case] = [
    *(_forward(f"conv2d.forward.{name}", setup) for name, setup in SETUPS.items()),
    *(_forward(f"{name}.forward", setup) for name, setup in TRAPS.items()),
    Case(
        "v03.conv2d.same-is-its-padding",
        "Same padding with strides gives what the explicit padding gives that it stands for",
        "inference",
        draw([_conv(2, (3, 2), strides=(2, 3), padding="same")], (6, 8, 2), precision="float32").features,
        _same_is_its_padding,
    ),
    drawn_case(
        "conv2d.forward.stack",
        "Convolutions one behind the other each use their own kernel and bias",
        [_conv(2, (2, 3)), _conv(2, (2, 3), padding="same"), _conv(2, (2, 3), strides=(1, 2))],
        (6, 9, 2),
    ),
    drawn_case(
        "conv2d.forward.uint8",
        "A convolution takes uint8 images for the numbers that they are",
        [_conv(3, (3, 2), padding="same")],
        (5, 6, 3),
        images="uint8",
    ),
    predict_case(
        "conv2d.forward.one-hot",
        "A single 1 in an image finds every number of the kernel at its place",
        [_conv(3, (3, 2), padding=((2, 2), (1, 1)))],
        np.eye(2).reshape(2, 1, 1, 2),
        kernel_0=_whole((3, 2, 2, 3), 0),
        bias_0=[0.5, -0.25, 2.0],
    ),
    predict_case(
        "conv2d.forward.zeros",
        "Over an image of zeros a convolution is its bias, padded or not",
        [_conv(3, (3, 2), padding="same")],
        np.zeros((2, 4, 5, 2)),
        kernel_0=_whole((3, 2, 2, 3), 1),
        bias_0=[0.5, -0.25, 2.0],
    ),
    predict_case(
        "conv2d.forward.border-of-ones",
        "Padding is zeros, not the pixels at the edge repeated or mirrored",
        [_conv(1, 3, padding=((1, 2), (2, 1)))],
        np.ones((2, 3, 4, 1)),
        kernel_0=np.arange(1, 10).reshape(3, 3, 1, 1),
        bias_0=[0.0],
    ),
    predict_case(
        "v33.conv2d.identity",
        "A convolution with the identity keeps 1024.5 and its neighbours: nothing rounds the image to 10 bits",
        [_conv(2, 3, padding="same")],
        [[[[1024.5, -1025.5], [2049.25, 4095.125]], [[0.10000001, 3.0000002], [-1.0009766, 65537.0]]]] * 2,
        kernel_0=np.pad(np.eye(2).reshape(1, 1, 2, 2), ((1, 1), (1, 1), (0, 0), (0, 0))),
        bias_0=[0.0, 0.0],
    ),
    predict_case(
        "v33.conv2d.identity-image",
        "A single 1 in an image shows a kernel of 1024.5 and its neighbours: nothing rounds the kernel to 10 bits",
        [_conv(2, (2, 1), padding=((1, 1), (0, 0)))],
        np.ones((2, 1, 1, 1)),
        kernel_0=[[[[1024.5, -1025.5]]], [[[0.10000001, 65537.0]]]],
        bias_0=[0.0, 0.0],
    ),
    predict_case(
        "v33.conv2d.accumulation",
        "A sum of 4,608 ones is 4,608: it is not accumulated in 11 bits, in which it would stop at 2,048",
        [_conv(2, 3)],
        np.ones((1, 3, 4, 512)),
        kernel_0=np.ones((3, 3, 512, 2)) * [1.0, -0.5],
        bias_0=[0.0, 1.0],
    ),
    drawn_case(
        "v33.conv2d.long-sum",
        "Sums of 2,304 products carry no more error than the precision makes",
        [_conv(4, 3)],
        (4, 5, 256),
    ),
    *(_backward(f"conv2d.gradient.{name}", setup) for name, setup in SETUPS.items()),
    *(_backward(f"{name}.gradient", setup) for name, setup in TRAPS.items()),
    drawn_gradient_case(
        "conv2d.gradient.first-layer",
        "A convolution that sees the images gets its gradients summed over batch and places",
        [_conv(4, (3, 2)), Flatten(), Dense(units=3), Softmax()],
        (6, 7, 2),
        batch=5,
    ),
    drawn_gradient_case(
        "conv2d.gradient.first-layer.uint8",
        "A convolution that sees uint8 images gets the gradients of their numbers",
        [_conv(2, (3, 2)), Flatten(), Dense(units=3), Softmax()],
        (4, 5, 3),
        batch=4,
        images="uint8",
    ),
    drawn_gradient_case(
        "conv2d.gradient.first-layer.strided",
        "A convolution with strides, dilation and padding that sees the images gets its gradients",
        [
            _conv(4, (3, 2), strides=(2, 1), dilation=(1, 2), padding=((1, 0), (0, 2))),
            Flatten(),
            Dense(units=3),
            Softmax(),
        ],
        (6, 7, 3),
        batch=4,
    ),
    drawn_gradient_case(
        "conv2d.gradient.stack",
        "The gradient passes backward through convolutions one behind the other",
        [
            _conv(3, (2, 3)),
            _conv(3, (3, 2), padding="same"),
            _conv(2, 2, strides=(2, 1)),
            Flatten(),
            Dense(units=3),
            Softmax(),
        ],
        (6, 7, 2),
        batch=4,
    ),
    drawn_gradient_case(
        "conv2d.gradient.stack.no-bias",
        "The gradient passes backward through convolutions without bias",
        [_conv(3, (2, 3), use_bias=False), _conv(4, (3, 2), use_bias=False), Flatten(), Dense(units=3), Softmax()],
        (5, 7, 2),
        batch=4,
    ),
    drawn_gradient_case(
        "conv2d.gradient.many-images",
        "The gradients of 33 images add up, none left out",
        [_conv(3, (3, 2)), Flatten(), Dense(units=4), Softmax()],
        (5, 4, 2),
        batch=34,
    ),
]
