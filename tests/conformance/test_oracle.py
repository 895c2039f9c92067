"""The oracle is itself on trial: finite differences, another library's correlation, definitions written as loops."""

import numpy as np
import pytest
from scipy.signal import correlate2d

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
from cnnkit.conformance.measure import Numbers
from cnnkit.conformance.oracle import Drawing, forward, gradients
from cnnkit.conformance.question import draw, expected_answer
from cnnkit.optimizers import SGD, Adam, AdamW, CosineDecay, StepDecay


def numbers(arrays):
    return {name: Numbers.exact(array) for name, array in arrays.items()}


MIDDLES = {
    "conv": [Conv2D(filters=2, kernel_size=(3, 2))],
    "conv strides": [Conv2D(filters=2, kernel_size=(2, 1), strides=(2, 3))],
    "conv dilation": [Conv2D(filters=2, kernel_size=(2, 3), dilation=(3, 2))],
    "conv same": [Conv2D(filters=2, kernel_size=(2, 3), padding="same", strides=(2, 1))],
    "conv padding": [Conv2D(filters=2, kernel_size=3, padding=((2, 0), (1, 3)), dilation=(1, 2))],
    "conv no bias": [Conv2D(filters=2, kernel_size=2, use_bias=False)],
    "max pool": [MaxPool2D(pool_size=2)],
    "max pool overlap": [MaxPool2D(pool_size=(3, 2), strides=1, padding=((1, 2), (0, 1)))],
    "avg pool": [AvgPool2D(pool_size=(2, 3))],
    "avg pool overlap": [AvgPool2D(pool_size=3, strides=(1, 2), padding=((2, 1), (0, 2)))],
    "relu": [ReLU()],
    "tanh": [Tanh()],
    "sigmoid": [Sigmoid()],
    "rescale": [Rescale(scale=-0.7, offset=0.3)],
    "gray": [Grayscale()],
    "luma": [Grayscale(weights="luma")],
    "dropout": [Dropout(rate=0.4)],
    "dense": [Flatten(), Dense(units=3, activation="sigmoid")],
}


@pytest.mark.parametrize("middle", MIDDLES.values(), ids=MIDDLES.keys())
def test_gradients_are_the_finite_differences_of_the_loss(middle):
    tail = [] if isinstance(middle[0], Flatten) else [Flatten()]
    layers = [Conv2D(filters=3, kernel_size=(2, 1)), *middle, *tail, Dense(units=3), Softmax()]
    question = draw(layers, (6, 5, 2), precision="float64", ask="gradients", batch=3)
    drawing = Drawing(0, 0)

    def loss(parameters):
        return float(
            gradients(question.plan, numbers(parameters), Numbers.exact(question.images), question.labels, drawing)[
                0
            ].value
        )

    found = gradients(
        question.plan, numbers(question.parameters), Numbers.exact(question.images), question.labels, drawing
    )[1]
    step = 1e-6
    for name, array in question.parameters.items():
        for place in list(np.ndindex(array.shape))[:: max(1, array.size // 12)]:
            up, down = array.copy(), array.copy()
            up[place] += step
            down[place] -= step
            slope = (loss(question.parameters | {name: up}) - loss(question.parameters | {name: down})) / (2 * step)
            assert found[name].value[place] == pytest.approx(slope, rel=1e-5, abs=1e-9), (name, place)


def test_the_gradient_at_every_layer_is_the_way_to_the_parameters():
    layers = [Dense(units=4, activation="tanh"), Dense(units=3), Softmax()]
    question = draw(layers, (5,), precision="float64", ask="gradients", batch=2)
    _, found, trace = gradients(
        question.plan, numbers(question.parameters), Numbers.exact(question.images), question.labels, None
    )
    assert len(trace.gradients) == len(question.plan.operations) - 1
    of_first, of_scores = trace.gradients[0].value, trace.gradients[-1].value
    assert of_first.T @ question.images == pytest.approx(found["0.kernel"].value.T)
    assert of_scores.sum(0) == pytest.approx(found["1.bias"].value)


@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((2, 1), (0, 3))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
def test_a_convolution_is_the_correlation_of_signal_processing(padding, strides, dilation):
    rng = np.random.default_rng(0)
    image, kernel = rng.normal(size=(9, 8, 2)), rng.normal(size=(3, 2, 2, 2))
    layer = Conv2D(filters=2, kernel_size=(3, 2), padding=padding, strides=strides, dilation=dilation, use_bias=False)
    plan = Model(input_shape=(9, 8, 2), layers=[layer]).plan()
    answer = forward(plan, numbers({"0.kernel": kernel}), Numbers.exact(image[None])).outputs[-1].value[0]
    padded = np.pad(image, (*padding, (0, 0)))
    holed = np.zeros((2 * dilation[0] + 1, dilation[1] + 1, 2, 2))
    holed[:: dilation[0], :: dilation[1]] = kernel
    for filter_ in range(2):
        right = sum(correlate2d(padded[..., c], holed[..., c, filter_], mode="valid") for c in range(2))
        assert answer[..., filter_] == pytest.approx(right[:: strides[0], :: strides[1]])


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        (MaxPool2D(pool_size=(2, 3), strides=(1, 2), padding=((1, 0), (2, 1))), np.max),
        (AvgPool2D(pool_size=(2, 3), strides=(1, 2), padding=((1, 0), (2, 1))), np.mean),
    ],
)
def test_pooling_is_its_rule_over_the_pixels_that_a_window_holds(layer, rule):
    image = np.random.default_rng(0).normal(size=(1, 5, 6, 2)) - 3
    answer = forward(Model(input_shape=(5, 6, 2), layers=[layer]).plan(), {}, Numbers.exact(image)).outputs[-1].value
    for row, column in np.ndindex(5, 4):
        rows = slice(max(row - 1, 0), row - 1 + 2)
        columns = slice(max(2 * column - 2, 0), max(2 * column - 2 + 3, 0))
        assert answer[0, row, column] == pytest.approx(rule(image[0, rows, columns], axis=(0, 1)))


def test_the_scale_of_a_dot_product_is_the_sum_of_absolute_products():
    model = Model(input_shape=(3,), layers=[Dense(units=1)])
    kernel, bias = np.array([[2.0], [-5.0], [0.5]]), np.array([-4.0])
    trace = forward(model.plan(), numbers({"0.kernel": kernel, "0.bias": bias}), Numbers.exact([[3.0, 1.0, -8.0]]))
    assert trace.outputs[-1].value.item() == 6 - 5 - 4 - 4
    assert trace.outputs[-1].scale.item() == 6 + 5 + 4 + 4


def test_an_infinite_loser_does_not_blur_the_winner_of_a_window():
    model = Model(input_shape=(2, 2, 1), layers=[Rescale(scale=0.5), MaxPool2D(pool_size=2)])
    image = np.array([-np.inf, 2, 1, 1]).reshape(1, 2, 2, 1)
    output = forward(model.plan(), {}, Numbers.exact(image)).outputs[-1]
    assert output.value.item() == 1
    assert np.isfinite(output.scale).all()


@pytest.mark.parametrize("decider", [ReLU(), MaxPool2D()], ids=["relu", "max pool"])
def test_a_drawn_question_keeps_the_decisions_far_from_falling_otherwise(decider):
    layers = [Conv2D(filters=3, kernel_size=3), decider, Flatten(), Dense(units=3), Softmax()]
    question = draw(layers, (8, 8, 1), precision="float32", ask="gradients")
    assert 4 * 128 * 2**-24 < expected_answer(question).margin < 0.1


OPTIMIZERS = {
    "sgd": SGD(learning_rate=0.1),
    "momentum": SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.05),
    "nesterov": SGD(learning_rate=StepDecay(0.1, every=2), momentum=0.9, nesterov=True),
    "adam": Adam(learning_rate=0.01, epsilon=1e-3),
    "adamw": AdamW(learning_rate=CosineDecay(0.1, steps=3), weight_decay=0.2),
    "clip": SGD(learning_rate=0.1, clip_global_norm=0.05),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_steps_follow_the_optimizers_that_backends_may_use(optimizer):
    """Two writings of each formula, the oracle's and the core's, must agree; neither knows the other."""
    layers = [Dense(units=4, activation="tanh"), Dense(units=3), Softmax()]
    question = draw(
        layers, (5,), precision="float64", ask="steps", batch=8, optimizer=optimizer, batch_size=3, epochs=2
    )
    expected = expected_answer(question).numbers
    parameters = {name: array.copy() for name, array in question.parameters.items()}
    slots = {name: tuple(np.zeros_like(array) for _ in optimizer.slot_names) for name, array in parameters.items()}
    for step, rows in enumerate(question.batches()):
        images = Numbers.exact(question.images[rows])
        found = gradients(question.plan, numbers(parameters), images, question.labels[rows], None)[1]
        factor = optimizer.clip_factor(sum(float((g.value**2).sum()) for g in found.values()))
        for name, g in found.items():
            parameters[name], slots[name] = optimizer.update(parameters[name], factor * g.value, slots[name], step)
    for name, array in parameters.items():
        assert expected[f"parameter {name}"].value == pytest.approx(array, rel=1e-12)
        for place, slot in enumerate(optimizer.slot_names):
            assert expected[f"slot {slot} of {name}"].value == pytest.approx(slots[name][place], rel=1e-12)


def test_a_run_and_the_same_steps_end_in_the_same_numbers():
    layers = [Dense(units=4, activation="tanh"), Dense(units=3), Softmax()]
    common = {"precision": "float64", "batch": 8, "optimizer": Adam(learning_rate=0.01), "batch_size": 4, "epochs": 2}
    steps = expected_answer(draw(layers, (5,), ask="steps", **common)).numbers
    run = expected_answer(draw(layers, (5,), ask="run", **common)).numbers
    assert steps.keys() == run.keys()
    for what, array in steps.items():
        assert run[what].value == pytest.approx(array.value, rel=1e-13)
        assert (run[what].scale > 0).all()
