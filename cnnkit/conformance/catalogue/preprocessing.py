"""Cases of `Rescale` and `Grayscale`: uint8 and float images, the order of channels, and the way back through them."""

from __future__ import annotations

import numpy as np

from cnnkit.conformance.case import Case, drawn_case, question_case
from cnnkit.conformance.catalogue.probes import drawn_gradient_case, predict_case, predict_question, probe_case, uniform
from cnnkit.conformance.question import Question, draw
from cnnkit.conformance.subject import Subject
from cnnkit.features import features_of
from cnnkit.model import AvgPool2D, Conv2D, Dense, Flatten, Grayscale, Layer, Model, Rescale, Softmax

BYTES = np.arange(256, dtype=np.uint8)
WHITE = np.full((2, 3, 4, 3), 255, np.uint8)
PRIMARIES = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [1, 2, 4], [10, 20, 30]], np.uint8)


def _float32_images(precision: str) -> Question:
    """Images of float32 are exact in float64; what is computed on them is not rounded to float32."""
    layers: list[Layer] = [
        Rescale(scale=1 / 3, offset=0.1),
        Conv2D(filters=2, kernel_size=2),
        Flatten(),
        Dense(units=3),
    ]
    return draw(layers, (4, 5, 2), precision=precision, images=uniform((2, 4, 5, 2)).astype(np.float32))


def _float_as_uint8(subject: Subject) -> None:
    """The same pixels as uint8 and as floating-point numbers are the same images."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    layers: list[Layer] = [Rescale(scale=1 / 255, offset=-0.5), Grayscale(weights="luma")]
    for images in (pixels, pixels.astype(subject.dtype)):
        subject.ask(predict_question(layers, images, subject.precision))


CASES: list[Case] = [
    predict_case(
        "rescale.forward.bytes",
        "Rescaling by 1 / 255 takes every uint8 to x / 255",
        [Rescale(scale=1 / 255)],
        BYTES.reshape(2, 16, 8, 1),
    ),
    predict_case(
        "rescale.forward.offset",
        "The offset is added after the scale: x * scale + offset",
        [Rescale(scale=2 / 255, offset=-1.0)],
        BYTES.reshape(2, 8, 16, 1),
    ),
    predict_case(
        "rescale.forward.float",
        "Floating-point images are rescaled as uint8 images are",
        [Rescale(scale=0.7, offset=0.3)],
        uniform((2, 4, 5, 3)) * 10,
    ),
    predict_case(
        "rescale.forward.features",
        "Rows of features are rescaled too",
        [Rescale(scale=-1.5, offset=4.0)],
        uniform((3, 7)),
    ),
    predict_case(
        "rescale.forward.negative-scale",
        "A negative scale turns uint8 images over, below 0 as well",
        [Rescale(scale=-1.0, offset=100.0)],
        BYTES.reshape(2, 8, 16, 1),
    ),
    predict_case(
        "rescale.forward.zero-scale",
        "A scale of 0 leaves the offset alone",
        [Rescale(scale=0.0, offset=0.75)],
        BYTES.reshape(2, 8, 16, 1),
    ),
    predict_case(
        "rescale.forward.twice",
        "Two rescalings one behind the other are done in their order",
        [Rescale(scale=0.5, offset=3.0), Rescale(scale=-2.0, offset=1.0)],
        BYTES.reshape(2, 8, 16, 1),
    ),
    predict_case(
        "v39.rescale.uint8",
        "A scale of 2 takes 255 to 510: nothing is computed in 8 bits",
        [Rescale(scale=2.0)],
        WHITE,
    ),
    predict_case(
        "v39.rescale.uint8.offset",
        "An offset of -200 takes 0 to -200, and one half is not rounded away",
        [Rescale(scale=0.5, offset=-200.0)],
        np.array([0, 1, 2, 3, 254, 255], np.uint8).reshape(1, 2, 1, 3),
    ),
    predict_case(
        "v39.grayscale.mean.uint8",
        "The mean of three channels of 255 is 255: their sum does not overflow 8 bits",
        [Grayscale()],
        WHITE,
    ),
    predict_case(
        "v39.grayscale.luma.uint8",
        "Luma of white is 255: nothing is rounded or computed in 8 bits",
        [Grayscale(weights="luma")],
        WHITE,
    ),
    predict_case(
        "v39.avg-pool.uint8",
        "The mean over windows of 255 is 255: sums do not overflow 8 bits",
        [AvgPool2D(pool_size=(3, 2))],
        WHITE,
    ),
    predict_case(
        "v39.flatten.uint8",
        "Flattened uint8 images are floating-point numbers",
        [Flatten()],
        PRIMARIES.reshape(2, 1, 3, 3),
    ),
    drawn_case(
        "v39.dense.uint8",
        "A dense layer takes uint8 features for the numbers that they are",
        [Dense(units=4)],
        (7,),
        images="uint8",
        batch=3,
    ),
    question_case(
        "v39.float32-images",
        "Images of float32 are taken in every precision, and what is computed on them is computed in that",
        _float32_images,
    ),
    Case(
        "v39.float-as-uint8",
        "Whole numbers from 0 to 255 mean the same as uint8 and as floating-point numbers",
        "inference",
        features_of(Model(input_shape=(5, 4, 3), layers=[Rescale(scale=1 / 255), Grayscale()]).plan()),
        _float_as_uint8,
    ),
    *(
        predict_case(
            f"v41.grayscale.mean.{channels}",
            f"Grayscale by mean of {channels} channels is their mean",
            [Grayscale()],
            uniform((2, 4, 5, channels)),
        )
        for channels in (1, 2, 3, 4, 17)
    ),
    predict_case(
        "v41.grayscale.luma.float",
        "Luma of floating-point images is 0.299 R + 0.587 G + 0.114 B",
        [Grayscale(weights="luma")],
        uniform((2, 4, 5, 3)),
    ),
    predict_case(
        "v41.grayscale.luma.primaries",
        "Luma of pure red, green and blue are 0.299, 0.587 and 0.114 times 255",
        [Grayscale(weights="luma")],
        PRIMARIES.reshape(2, 3, 1, 3),
    ),
    predict_case(
        "v41.grayscale.mean.primaries",
        "The mean of pure red, green and blue is 85 for each",
        [Grayscale(weights="mean")],
        PRIMARIES.reshape(2, 1, 3, 3),
    ),
    predict_case(
        "v41.channel-order",
        "The first channel stays the first: red reaches the weights of red",
        [Rescale(scale=1 / 255), Conv2D(filters=3, kernel_size=1)],
        PRIMARIES.reshape(2, 3, 1, 3),
        kernel_1=[[[[1.0, 0.0, 3.0], [0.0, 2.0, -1.0], [0.5, 0.0, 0.25]]]],
        bias_1=[0.0, 0.0, 0.125],
    ),
    drawn_case(
        "preprocessing.forward.in-front",
        "Grayscale and Rescale in front of a network make of uint8 images what they say",
        [
            Grayscale(weights="luma"),
            Rescale(scale=1 / 255, offset=-0.5),
            Conv2D(filters=3, kernel_size=(3, 2)),
            Flatten(),
            Dense(units=4),
        ],
        (5, 6, 3),
        images="uint8",
    ),
    drawn_case(
        "preprocessing.forward.in-the-middle",
        "Rescale and Grayscale may stand between layers that learn",
        [
            Conv2D(filters=4, kernel_size=(2, 3)),
            Rescale(scale=-0.7, offset=0.3),
            Grayscale(),
            Conv2D(filters=2, kernel_size=2),
        ],
        (5, 6, 2),
    ),
    probe_case(
        "rescale.gradient.images",
        "The gradient through Rescale is multiplied by the scale, and the offset does not matter",
        [Rescale(scale=-0.7, offset=5.0)],
        uniform((2, 4, 5, 2)),
    ),
    probe_case(
        "rescale.gradient.features",
        "The gradient through Rescale on features is multiplied by the scale",
        [Rescale(scale=3.5, offset=-1.0)],
        uniform((4, 7)),
    ),
    probe_case(
        "rescale.gradient.zero-scale",
        "No gradient passes a scale of 0",
        [Rescale(scale=0.0, offset=1.0)],
        uniform((2, 3, 4, 2)),
    ),
    *(
        probe_case(
            f"grayscale.gradient.mean.{channels}",
            f"Each of {channels} channels gets its part of the gradient of their mean",
            [Grayscale()],
            uniform((2, 3, 4, channels)),
        )
        for channels in (1, 2, 3, 17)
    ),
    probe_case(
        "grayscale.gradient.luma",
        "Red, green and blue get 0.299, 0.587 and 0.114 of the gradient of luma",
        [Grayscale(weights="luma")],
        uniform((2, 3, 4, 3)),
    ),
    drawn_gradient_case(
        "preprocessing.gradient.in-front",
        "Behind Grayscale and Rescale of uint8 images the first layer that learns gets its gradient",
        [
            Grayscale(),
            Rescale(scale=2 / 255, offset=-1.0),
            Conv2D(filters=3, kernel_size=(3, 2)),
            Flatten(),
            Dense(units=3),
            Softmax(),
        ],
        (5, 6, 3),
        images="uint8",
    ),
    drawn_gradient_case(
        "preprocessing.gradient.in-the-middle",
        "The gradient passes Rescale and Grayscale between layers that learn",
        [
            Conv2D(filters=4, kernel_size=(2, 3)),
            Rescale(scale=-0.7, offset=0.3),
            Grayscale(),
            Conv2D(filters=2, kernel_size=2),
            Flatten(),
            Dense(units=3),
            Softmax(),
        ],
        (5, 6, 2),
    ),
]
