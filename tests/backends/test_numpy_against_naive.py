"""The NumPy backend against plain loops over pixels: forward by the same formula, gradients by differences of the loss."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CLASSIFIERS, batch, convolutions, numbers, poolings, predictor, random_parameters, trainer

from cnnkit import Conv2D, Dense, Flatten, MaxPool2D, Model, Softmax, dropout_mask
from cnnkit.plan import DropoutOp

# The same examples every time: a difference taken across the kink of a ReLU, rare as it is, is no fault of the code.
FIXED = settings(derandomize=True, deadline=None, max_examples=120)
FEWER = settings(derandomize=True, deadline=None, max_examples=40)

UNITS = 5
"""Correct float32 dot products differ from the true ones by less than 5 u sum|w||x|, u = 2 ** -24."""


def magnitude(plan, parameters, images):
    """sum|w||x| for every output of a model that is one layer with parameters."""
    return naive.predict(plan, {name: abs(array) for name, array in parameters.items()}, abs(images))


@FIXED
@given(convolutions(), st.integers(0, 9))
def test_convolutions_agree_with_loops_over_pixels(model, seed):
    plan = model.plan()
    parameters = random_parameters(plan, seed, np.float32)
    images = numbers((2, *model.input_shape), seed, np.float32)
    expected, size = naive.predict(plan, parameters, images), magnitude(plan, parameters, images)
    for precision, unit in (("float32", 2.0**-24), ("float64", 2.0**-53)):
        made = predictor(model, parameters, precision=precision).predict(images)
        assert made.dtype == precision
        assert (abs(made - expected) <= UNITS * unit * size).all()


@FIXED
@given(poolings(), st.integers(0, 9))
def test_poolings_agree_with_loops_over_pixels(model, seed):
    images = numbers((2, *model.input_shape), seed, np.float32)
    expected = naive.predict(model.plan(), {}, images)
    for precision, unit in (("float32", 2.0**-24), ("float64", 2.0**-53)):
        made = predictor(model, {}, precision=precision).predict(images)
        if isinstance(model.layers[0], MaxPool2D):
            np.testing.assert_array_equal(made, expected)
        else:
            assert (abs(made - expected) <= UNITS * unit * naive.predict(model.plan(), {}, abs(images))).all()


@FEWER
@given(st.integers(1, 40), st.integers(1, 5), st.booleans(), st.integers(0, 9))
def test_dense_layers_agree_with_loops(features, units, use_bias, seed):
    model = Model(input_shape=(features,), layers=[Dense(units=units, use_bias=use_bias)])
    plan = model.plan()
    parameters = random_parameters(plan, seed, np.float32)
    images = numbers((3, features), seed, np.float32)
    expected, size = naive.predict(plan, parameters, images), magnitude(plan, parameters, images)
    for precision, unit in (("float32", 2.0**-24), ("float64", 2.0**-53)):
        made = predictor(model, parameters, precision=precision).predict(images)
        assert (abs(made - expected) <= UNITS * unit * size).all()


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 3e-6), ("float64", 1e-14)])
def test_whole_networks_agree_with_loops(name, precision, tolerance):
    model = CLASSIFIERS[name]
    parameters = random_parameters(model.plan(), 3, np.float32)
    images, _ = batch(model, 3, dtype=np.float32)
    expected = naive.predict(model.plan(), parameters, images)
    made = predictor(model, parameters, precision=precision).predict(images)
    np.testing.assert_allclose(made, expected, rtol=0, atol=tolerance)


# ---------------------------------------------------------------------------------------------------------- gradients

STEP = 1e-5


def masks_of(plan, count, seed=0, step=0):
    """The masks of the step that would come next."""
    return {
        op.layer: dropout_mask(seed, step, op.layer, (count, *op.output_shape), op.rate, np.float64)
        for op in plan.operations
        if isinstance(op, DropoutOp)
    }


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_gradient_is_the_slope_of_the_loss(name):
    """Central differences: (loss(p + h) - loss(p - h)) / 2h, one parameter at a time."""
    model = CLASSIFIERS[name]
    plan = model.plan()
    program = trainer(model)
    parameters = program.state().parameters
    images, labels = batch(model, 2)
    masks = masks_of(plan, 2)
    loss, gradients = program.gradients(images, labels)
    assert loss == pytest.approx(naive.loss(plan, parameters, images, labels, masks), rel=1e-13)
    assert gradients.keys() == parameters.keys()
    for key, array in parameters.items():
        slopes = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            middle = array[place]
            array[place] = middle + STEP
            above = naive.loss(plan, parameters, images, labels, masks)
            array[place] = middle - STEP
            below = naive.loss(plan, parameters, images, labels, masks)
            array[place] = middle
            slopes[place] = (above - below) / (2 * STEP)
        assert abs(slopes).max() > 1e-4, f"{key} has no slope to compare with"
        np.testing.assert_allclose(gradients[key], slopes, rtol=1e-6, atol=1e-9, err_msg=key)


def sandwich(inner):
    """The layers of `inner` between two with parameters."""
    channels = inner.input_shape[2]
    first = Conv2D(filters=channels, kernel_size=1, activation="tanh")
    return Model(input_shape=inner.input_shape, layers=[first, *inner.layers, Flatten(), Dense(units=3), Softmax()])


@FEWER
@given(st.one_of(convolutions(), poolings()), st.integers(0, 9))
def test_gradients_of_random_layers_are_slopes_in_random_directions(inner, seed):
    model = sandwich(inner)
    plan = model.plan()
    program = trainer(model, seed=seed)
    parameters = program.state().parameters
    images, labels = batch(model, 2, seed)
    _, gradients = program.gradients(images, labels)
    direction = random_parameters(plan, seed + 100)
    above = {name: array + STEP * direction[name] for name, array in parameters.items()}
    below = {name: array - STEP * direction[name] for name, array in parameters.items()}
    slope = (naive.loss(plan, above, images, labels) - naive.loss(plan, below, images, labels)) / (2 * STEP)
    expected = sum(np.vdot(gradients[name], direction[name]) for name in parameters)
    scale = sum(np.vdot(abs(gradients[name]), abs(direction[name])) for name in parameters)
    assert abs(slope - expected) <= 1e-7 * scale + 1e-10


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_gradients_in_float32_are_those_in_float64_rounded(name):
    model = CLASSIFIERS[name]
    images, labels = batch(model, 9, dtype=np.float32)
    exact_loss, exact = trainer(model, precision="float64").gradients(images, labels)
    loss, gradients = trainer(model, precision="float32").gradients(images, labels)
    assert loss == pytest.approx(exact_loss, rel=1e-5)
    for key, gradient in gradients.items():
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, exact[key], rtol=0, atol=1e-5 * abs(exact[key]).max(), err_msg=key)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 20])
def test_the_gradient_of_a_batch_is_the_mean_over_its_images(count):
    model = CLASSIFIERS["max pool"]
    program = trainer(model)
    images, labels = batch(model, count)
    loss, gradients = program.gradients(images, labels)
    single = [program.gradients(images[i : i + 1], labels[i : i + 1]) for i in range(count)]
    assert loss == pytest.approx(np.mean([each[0] for each in single]), rel=1e-13)
    for name, gradient in gradients.items():
        mean = np.mean([each[1][name] for each in single], axis=0)
        np.testing.assert_allclose(gradient, mean, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["dropout", "dropout first", "deep"])
def test_every_image_of_a_batch_has_a_dropout_mask_of_its_own(name, threads):
    model = CLASSIFIERS[name]
    images, labels = batch(model, 11)
    images[:] = images[0]
    labels[:] = labels[0]
    program = trainer(model, threads=threads, seed=4)
    masks = masks_of(model.plan(), 11, seed=4)
    expected = naive.loss(model.plan(), program.state().parameters, images, labels, masks)
    assert program.gradients(images, labels)[0] == pytest.approx(expected, rel=1e-13)
