"""Models, numbers and short ways to a result that several tests of backends share."""

import numpy as np
from hypothesis import strategies as st

from cnnkit import (
    SGD,
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
    fresh_state,
)
from cnnkit_numpy.backend import NumpyBackend


def classifier(*middle, input_shape=(5, 4, 2)):
    """`middle` between a convolution and a dense layer: a fault in its gradient shows in the first kernel."""
    first = Conv2D(filters=3, kernel_size=(2, 1), activation="tanh")
    return Model(input_shape=input_shape, layers=[first, *middle, Flatten(), Dense(units=3), Softmax()])


CLASSIFIERS = {
    "conv": classifier(Conv2D(filters=2, kernel_size=(3, 2))),
    "conv strides": classifier(Conv2D(filters=2, kernel_size=(1, 2), strides=(2, 3))),
    "conv dilation": classifier(Conv2D(filters=2, kernel_size=(2, 3), dilation=(2, 1))),
    "conv same": classifier(Conv2D(filters=2, kernel_size=(2, 3), padding="same", strides=(2, 1))),
    "conv padding": classifier(Conv2D(filters=2, kernel_size=3, padding=((2, 0), (1, 3)), dilation=(1, 2))),
    "conv without bias": classifier(Conv2D(filters=2, kernel_size=2, use_bias=False)),
    "conv many filters": classifier(Conv2D(filters=7, kernel_size=1)),
    "max pool": classifier(MaxPool2D(pool_size=2)),
    "max pool overlapping": classifier(MaxPool2D(pool_size=(3, 2), strides=1)),
    "max pool padded": classifier(MaxPool2D(pool_size=3, strides=2, padding=((1, 1), (2, 0)))),
    "max pool same": classifier(MaxPool2D(pool_size=(3, 2), padding="same")),
    "max pool gaps": classifier(MaxPool2D(pool_size=(1, 2), strides=(3, 2))),
    "average pool": classifier(AvgPool2D(pool_size=2)),
    "average pool overlapping": classifier(AvgPool2D(pool_size=(3, 2), strides=(1, 2))),
    "average pool padded": classifier(AvgPool2D(pool_size=3, strides=2, padding=((1, 1), (2, 0)))),
    "average pool gaps": classifier(AvgPool2D(pool_size=(1, 2), strides=(3, 2))),
    "rescale": classifier(Rescale(scale=-1.5, offset=0.25)),
    "grayscale mean": classifier(Grayscale()),
    "grayscale luma": classifier(Grayscale(weights="luma")),
    "relu": classifier(ReLU()),
    "tanh": classifier(Tanh()),
    "sigmoid": classifier(Sigmoid()),
    "dropout": classifier(Dropout(rate=0.4)),
    "dropout first": Model(input_shape=(6,), layers=[Dropout(rate=0.3), Dense(units=3), Softmax()]),
    "hidden dense": classifier(Flatten(), Dense(units=5, activation="sigmoid"), Dense(units=4, use_bias=False)),
    "preprocessing": Model(
        input_shape=(3, 4, 3),
        layers=[Rescale(scale=0.5, offset=-1), Grayscale(), AvgPool2D(), Flatten(), Dense(units=3), Softmax()],
    ),
    "dense only": Model(input_shape=(6,), layers=[Dense(units=4, activation="relu"), Dense(units=2), Softmax()]),
    "deep": classifier(
        Conv2D(filters=4, kernel_size=2, padding="same", activation="relu"),
        MaxPool2D(pool_size=2, strides=1),
        Dropout(rate=0.25),
        Conv2D(filters=2, kernel_size=2, activation="sigmoid"),
    ),
}


def numbers(shape, seed=0, dtype=np.float64):
    """Normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def random_parameters(plan, seed=0, dtype=np.float64):
    """Normal numbers for every parameter, biases included."""
    generator = np.random.default_rng([seed, 1])
    return {spec.name: generator.normal(scale=0.5, size=spec.shape).astype(dtype) for spec in plan.parameters}


def batch(model, count, seed=0, dtype=np.float64):
    """Images and labels for a classifier."""
    labels = np.random.default_rng([seed, 2]).integers(0, model.plan().classes, count)
    return numbers((count, *model.input_shape), seed, dtype), labels


def trainer(model, optimizer=None, *, precision="float64", threads=1, seed=0):
    """A training program with random parameters, biases included, at step 0."""
    plan, optimizer = model.plan(), optimizer or SGD(learning_rate=0.1)
    state = fresh_state(random_parameters(plan, seed, np.dtype(precision)), optimizer, seed)
    return NumpyBackend(precision, threads).compile_training(plan, state, optimizer)


def predictor(model, parameters, *, precision="float64", threads=1):
    """A program that predicts."""
    return NumpyBackend(precision, threads).compile(model.plan(), parameters)


def output(layers, image, parameters=None, precision="float64"):
    """What `layers` make of one image."""
    model = Model(input_shape=np.shape(image), layers=layers)
    return predictor(model, parameters or {}, precision=precision).predict(np.asarray(image)[np.newaxis])[0]


def input_gradient(layers, image, dy, parameters=None):
    """The gradient of sum(dy * y) with respect to `image`, y being what `layers` make of it, through the contract alone.

    The contract gives gradients of parameters, so the image becomes one: over a single pixel that is 1, the output of a
    convolution with enough padding is its own kernel turned by half a circle. Behind the layers stands a dense layer
    with weights `dy` for one class and 0 for the other; the gradient of its bias is the factor that comes on top.
    """
    height, width, channels = np.shape(image)
    probe = Conv2D(
        filters=channels, kernel_size=(height, width), padding=((height - 1, height - 1), (width - 1, width - 1))
    )
    model = Model(input_shape=(1, 1, 1), layers=[probe, *layers, Flatten(), Dense(units=2), Softmax()])
    last = len(layers) + 2
    y = output(layers, np.asarray(image, np.float64), parameters)
    weights = np.stack([np.ravel(dy), np.zeros(y.size)], axis=1)
    every = {
        "0.kernel": np.asarray(image, np.float64)[::-1, ::-1, np.newaxis, :],
        "0.bias": np.zeros(channels),
        **{_shifted(name): array for name, array in (parameters or {}).items()},
        f"{last}.kernel": weights,
        f"{last}.bias": np.array([-np.vdot(dy, y), 0.0]),  # both scores 0: a factor of a half
    }
    optimizer = SGD(learning_rate=0.0)
    program = NumpyBackend("float64").compile_training(model.plan(), fresh_state(every, optimizer), optimizer)
    _, gradient = program.gradients(np.ones((1, 1, 1, 1)), np.array([1]))
    return gradient["0.kernel"][::-1, ::-1, 0, :] / gradient[f"{last}.bias"][0]


def _shifted(name):
    index, _, kind = name.partition(".")
    return f"{int(index) + 1}.{kind}"


# ------------------------------------------------------------------------------------------------------- strategies

_CHANNELS = st.sampled_from([1, 2, 3, 17])


@st.composite
def convolutions(draw):
    """A model of one convolution that fits its image."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pad = st.tuples(st.integers(0, 3), st.integers(0, 3))
    padding = draw(st.one_of(st.just("valid"), st.just("same"), st.tuples(pad, pad)))
    layer = Conv2D(
        filters=draw(st.integers(1, 4)),
        kernel_size=kernel,
        strides=draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        padding=padding,
        dilation=dilation,
        use_bias=draw(st.booleans()),
    )
    return Model(input_shape=_image_shape(draw, kernel, dilation, padding), layers=[layer])


@st.composite
def poolings(draw, kinds=(MaxPool2D, AvgPool2D)):
    """A model of one pooling layer that fits its image."""
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = draw(st.one_of(st.none(), st.tuples(st.integers(1, 5), st.integers(1, 5))))
    pad = st.tuples(
        st.tuples(st.integers(0, size[0] - 1), st.integers(0, size[0] - 1)),
        st.tuples(st.integers(0, size[1] - 1), st.integers(0, size[1] - 1)),
    )
    padding = draw(st.one_of(st.just("valid"), st.just("same"), pad))
    layer = draw(st.sampled_from(kinds))(pool_size=size, strides=strides, padding=padding)
    return Model(input_shape=_image_shape(draw, size, (1, 1), padding), layers=[layer])


def _image_shape(draw, size, dilation, padding):
    shape = []
    for axis in (0, 1):
        reach = dilation[axis] * (size[axis] - 1) + 1
        border = reach - 1 if padding == "same" else 0 if padding == "valid" else sum(padding[axis])
        shape.append(max(1, reach - border) + draw(st.integers(0, 5)))
    return (*shape, draw(_CHANNELS))
