"""Models to exchange: one for each thing that can be said in a layer, and random ones of many layers."""

import numpy as np

from cnnkit import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    MaxPool2D,
    Model,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)
from cnnkit.conformance.question import draw_parameters

SHAPE = (7, 6, 3)


def classifier(*layers, input_shape=SHAPE, **names):
    """`layers`, and behind them what makes three probabilities of anything."""
    return Model(input_shape=input_shape, layers=[*layers, Flatten(), Dense(units=3), Softmax()], **names)


LAYERS = {
    "rescale": [Rescale(scale=-1 / 255, offset=0.3)],
    "grayscale mean": [Grayscale()],
    "grayscale luma": [Grayscale(weights="luma")],
    "conv": [Conv2D(filters=4, kernel_size=3)],
    "conv of a row, without bias": [Conv2D(filters=2, kernel_size=(1, 2), use_bias=False)],
    "conv that looks like a grayscale": [Conv2D(filters=1, kernel_size=1, use_bias=False)],
    "conv relu": [Conv2D(filters=4, kernel_size=(3, 2), activation="relu", kernel_initializer="he_normal")],
    "conv tanh": [Conv2D(filters=2, kernel_size=2, activation="tanh", kernel_initializer="he_uniform")],
    "conv sigmoid": [Conv2D(filters=2, kernel_size=2, activation="sigmoid", kernel_initializer="glorot_normal")],
    "conv strides": [Conv2D(filters=2, kernel_size=(2, 3), strides=(3, 2))],
    "conv same": [Conv2D(filters=2, kernel_size=(3, 2), padding="same")],
    "conv same, even kernel and strides": [Conv2D(filters=2, kernel_size=(4, 2), padding="same", strides=(2, 3))],
    "conv same, strides wider than the kernel": [Conv2D(filters=2, kernel_size=1, padding="same", strides=(3, 2))],
    "conv dilation": [Conv2D(filters=2, kernel_size=(2, 3), dilation=(3, 2))],
    "conv dilation same": [Conv2D(filters=2, kernel_size=(2, 3), dilation=(1, 2), padding="same")],
    "conv padding": [Conv2D(filters=2, kernel_size=3, padding=((2, 0), (1, 3)), strides=2)],
    "conv padding by its numbers": [Conv2D(filters=2, kernel_size=3, padding=((1, 1), (1, 1)))],
    "conv padding of nothing": [Conv2D(filters=2, kernel_size=3, padding=((0, 0), (0, 0)))],
    "conv padding and dilation": [Conv2D(filters=2, kernel_size=2, padding=((0, 3), (2, 0)), dilation=(2, 3))],
    "two convs with padding": [Conv2D(filters=n, kernel_size=2, padding=((n, 0), (0, n))) for n in (1, 2)],
    "max pool": [MaxPool2D(pool_size=2)],
    "max pool overlapping": [MaxPool2D(pool_size=(3, 2), strides=1)],
    "max pool same": [MaxPool2D(pool_size=(2, 3), strides=(3, 2), padding="same")],
    "max pool same by its numbers": [MaxPool2D(pool_size=2, strides=1, padding=((0, 1), (0, 1)))],
    "average pool": [AvgPool2D(pool_size=(2, 3))],
    "average pool gaps": [AvgPool2D(pool_size=(1, 2), strides=(3, 2))],
    "average pool same": [AvgPool2D(pool_size=3, strides=2, padding="same")],
    "relu": [Rescale(scale=1.0, offset=-0.5), ReLU()],
    "tanh": [Tanh()],
    "sigmoid": [Sigmoid()],
    "dropout": [Dropout(rate=0.4)],
    "hidden dense": [
        Flatten(),
        Dense(units=5, activation="sigmoid"),
        Dense(units=4, activation="tanh", use_bias=False),
    ],
}

MODELS = {name: classifier(*layers) for name, layers in LAYERS.items()} | {
    "dense only": Model(input_shape=(6,), layers=[Dense(units=4, activation="relu"), Dense(units=2), Softmax()]),
    "no classifier": Model(input_shape=SHAPE, layers=[Conv2D(filters=2, kernel_size=3)]),
    "nothing to learn": Model(input_shape=SHAPE, layers=[Grayscale(), AvgPool2D(pool_size=2, strides=1)]),
    "names": classifier(ReLU(), name="a model/with: [names]", class_names=("cat", "döner", "[b]")),
    "one channel": classifier(Grayscale(), Conv2D(filters=1, kernel_size=1), input_shape=(4, 5, 1)),
}


def random_model(seed):
    """Up to six layers that Keras can say, on an image that is not square."""
    rng = np.random.default_rng(seed)

    def pair(low, high):
        return int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))

    def layer():
        padding = ["valid", "same"][rng.integers(2)]
        activation = [None, "relu", "tanh", "sigmoid"][rng.integers(4)]
        match rng.integers(8):
            case 0 | 1:
                many = {"strides": pair(1, 3)} if rng.integers(2) else {"dilation": pair(1, 2)}
                around = padding if rng.integers(2) else (pair(0, 2), pair(0, 2))
                return Conv2D(
                    filters=int(rng.integers(1, 6)),
                    kernel_size=pair(1, 4),
                    padding=around,
                    activation=activation,
                    use_bias=bool(rng.integers(2)),
                    **many,
                )
            case 2:
                return MaxPool2D(pool_size=pair(1, 3), strides=pair(1, 3), padding=padding)
            case 3:
                return AvgPool2D(pool_size=pair(1, 3), strides=[None, *pair(1, 3)][rng.integers(3)], padding=padding)
            case 4:
                return [Grayscale(), Rescale(scale=rng.normal(), offset=rng.normal())][rng.integers(2)]
            case 5:
                return [ReLU(), Tanh(), Sigmoid()][rng.integers(3)]
            case 6:
                return Dropout(rate=0.2)
            case _:
                return Flatten()

    layers, shape = [], (*pair(9, 14), int(rng.integers(1, 4)))
    while len(layers) < 6:
        try:
            classifier(*layers, tried := layer(), input_shape=shape).plan()
        except ValueError:  # it does not fit behind the others
            continue
        layers.append(tried)
    return classifier(*layers, input_shape=shape)


def parameters_of(model, seed=0, precision="float32"):
    """Random parameters, biases included."""
    return draw_parameters(model, np.random.default_rng(seed), precision)
