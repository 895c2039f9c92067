import dataclasses
import math
import pickle

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnkit.errors import ModelError
from cnnkit.model import (
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
from cnnkit.plan import (
    ActivationOp,
    AvgPool2DOp,
    Conv2DOp,
    DenseOp,
    DropoutOp,
    FlattenOp,
    GrayscaleOp,
    MaxPool2DOp,
    ParameterSpec,
    RescaleOp,
    SoftmaxOp,
)


def plan_of(*layers, shape=(8, 8, 3), **fields):
    return Model(input_shape=shape, layers=layers, **fields).plan()


def operation_of(layer, shape=(8, 8, 3)):
    return plan_of(layer, shape=shape).operations[0]


def problems_of(*layers, shape=(8, 8, 3), **fields):
    with pytest.raises(ModelError) as caught:
        plan_of(*layers, shape=shape, **fields)
    return [str(problem) for problem in caught.value.problems]


def conv(kernel_size, **fields):
    return Conv2D(filters=2, kernel_size=kernel_size, **fields)


# ------------------------------------------------------------------------------------------------- padding and sizes


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "padding", "output"),
    [
        # worked out by hand from the definition of SAME_UPPER: output = ceil(size / stride), the odd pixel after
        (4, 3, 1, 1, (1, 1), 4),
        (4, 3, 2, 1, (0, 1), 2),
        (5, 3, 2, 1, (1, 1), 3),
        (4, 2, 1, 1, (0, 1), 4),
        (4, 2, 2, 1, (0, 0), 2),
        (5, 2, 2, 1, (0, 1), 3),
        (5, 4, 3, 1, (1, 1), 2),
        (6, 4, 1, 1, (1, 2), 6),
        (7, 5, 3, 1, (2, 2), 3),
        (8, 5, 3, 1, (1, 2), 3),
        (5, 1, 2, 1, (0, 0), 3),
        (10, 1, 4, 1, (0, 0), 3),
        (10, 2, 4, 1, (0, 0), 3),
        (1, 3, 1, 1, (1, 1), 1),
        (1, 2, 5, 1, (0, 1), 1),
        (7, 3, 2, 2, (2, 2), 4),
        (5, 2, 1, 3, (1, 2), 5),
        (6, 3, 4, 3, (2, 3), 2),
    ],
)
def test_same_is_onnx_same_upper(size, kernel, stride, dilation, padding, output):
    tall = operation_of(conv((kernel, 1), strides=(stride, 1), padding="same", dilation=(dilation, 1)), (size, 3, 1))
    assert (tall.padding, tall.output_shape) == ((padding, (0, 0)), (output, 3, 2))
    wide = operation_of(conv((1, kernel), strides=(1, stride), padding="same", dilation=(1, dilation)), (3, size, 1))
    assert (wide.padding, wide.output_shape) == (((0, 0), padding), (3, output, 2))


@pytest.mark.parametrize("layer", [MaxPool2D, AvgPool2D])
def test_pools_pad_alike(layer):
    operation = operation_of(layer(pool_size=(3, 2), strides=(2, 1), padding="same"), (4, 4, 5))
    assert operation.padding == ((0, 1), (0, 1))
    assert operation.output_shape == (2, 4, 5)


def test_valid_pads_nothing_and_explicit_padding_is_kept():
    assert operation_of(conv(3)).padding == ((0, 0), (0, 0))
    assert operation_of(conv(3)).output_shape == (6, 6, 2)
    explicit = operation_of(conv(3, padding=((1, 2), (0, 4))))
    assert explicit.padding == ((1, 2), (0, 4))
    assert explicit.output_shape == (9, 10, 2)


@pytest.mark.parametrize(
    ("layer", "output"),
    [
        (conv(5, strides=2), (2, 2, 2)),  # floor((8 - 5) / 2) + 1
        (conv((1, 8), strides=(3, 9)), (3, 1, 2)),
        (conv(3, dilation=3), (2, 2, 2)),  # a window of 7
        (conv(8), (1, 1, 2)),
        (MaxPool2D(pool_size=3), (2, 2, 3)),
        (MaxPool2D(pool_size=3, strides=1), (6, 6, 3)),
        (AvgPool2D(pool_size=(2, 3), strides=(5, 2)), (2, 3, 3)),
        (MaxPool2D(pool_size=3, padding=((1, 1), (0, 2))), (3, 3, 3)),
    ],
)
def test_output_sizes_worked_out_by_hand(layer, output):
    assert operation_of(layer).output_shape == output


def windows_counted(size, before, after, kernel, stride, dilation):
    """Put the window down at every step and count how often all of it lies within the padded image."""
    reach = [dilation * tap for tap in range(kernel)]
    padded = range(-before, size + after)
    return sum(all(start + tap in padded for tap in reach) for start in range(-before, size + after, stride))


small = st.integers(1, 7)


@settings(deadline=None)
@given(st.integers(1, 12), small, small, st.integers(1, 4), st.integers(0, 4), st.integers(0, 4))
def test_the_output_size_is_the_number_of_window_positions(size, kernel, stride, dilation, before, after):
    expected = windows_counted(size, before, after, kernel, stride, dilation)
    layer = conv((kernel, 1), strides=(stride, 1), dilation=(dilation, 1), padding=((before, after), (0, 0)))
    if expected:
        assert operation_of(layer, (size, 1, 1)).output_shape[0] == expected
    else:
        assert problems_of(layer, shape=(size, 1, 1))[0].startswith("layers[0].kernel_size ")


@settings(deadline=None)
@given(st.integers(1, 12), small, small, st.integers(1, 4))
def test_same_gives_size_by_stride_windows_with_as_little_padding_as_can_be(size, kernel, stride, dilation):
    operation = operation_of(
        conv((kernel, 1), strides=(stride, 1), dilation=(dilation, 1), padding="same"), (size, 1, 1)
    )
    output, (before, after) = operation.output_shape[0], operation.padding[0]
    assert output == math.ceil(size / stride)
    assert windows_counted(size, before, after, kernel, stride, dilation) == output
    assert after - before in (0, 1)
    if before + after:  # with one pixel less there would be fewer windows
        assert windows_counted(size, before, after - 1, kernel, stride, dilation) < output


@settings(deadline=None)
@given(st.integers(1, 8), small, small, st.integers(0, 8), st.integers(0, 8), st.sampled_from([MaxPool2D, AvgPool2D]))
def test_pools_are_refused_where_and_only_where_a_window_holds_nothing_but_padding(
    size, pool, stride, before, after, layer
):
    assume(size + before + after >= pool)
    starts = range(-before, size + after - pool + 1, stride)
    hollow = any(start + pool <= 0 or start >= size for start in starts)
    made = layer(pool_size=(1, pool), strides=(1, stride), padding=((0, 0), (before, after)))
    if hollow:
        (problem,) = problems_of(made, shape=(1, size, 1))
        assert problem.startswith(
            f"layers[0].padding is ((0, 0), ({before}, {after})), so that some windows of 1 x {pool} "
        )
    else:
        assert operation_of(made, (1, size, 1)).output_shape == (1, len(starts), 1)


def test_the_advice_about_windows_of_padding_is_true():
    layer = MaxPool2D(pool_size=2, padding=((2, 0), (0, 0)))
    assert problems_of(layer) == [
        (
            "layers[0].padding is ((2, 0), (0, 0)), so that some windows of 2 x 2 hold nothing but padding. "
            "Use at most 1 pixels before and after."
        )
    ]
    assert operation_of(MaxPool2D(pool_size=2, padding=((1, 1), (1, 1)))).output_shape == (5, 5, 3)


def test_a_convolution_may_look_at_nothing_but_padding():
    assert operation_of(conv(1, padding=((2, 0), (0, 0)))).output_shape == (10, 8, 2)


# -------------------------------------------------------------------------------------------------------- operations


def test_every_layer_becomes_its_operation():
    plan = plan_of(
        Rescale(scale=0.5, offset=-1),
        Grayscale(),
        Conv2D(filters=4, kernel_size=(3, 2), strides=(1, 2), padding="same", dilation=2, activation="relu"),
        MaxPool2D(),
        AvgPool2D(pool_size=(2, 1)),
        Tanh(),
        Flatten(),
        Dropout(rate=0.25),
        Dense(units=5, activation="sigmoid", use_bias=False),
        ReLU(),
        Sigmoid(),
        Softmax(),
    )
    assert plan.operations == (
        RescaleOp(layer=0, input_shape=(8, 8, 3), output_shape=(8, 8, 3), scale=0.5, offset=-1.0),
        GrayscaleOp(layer=1, input_shape=(8, 8, 3), output_shape=(8, 8, 1), weights=(1 / 3, 1 / 3, 1 / 3)),
        Conv2DOp(
            layer=2,
            input_shape=(8, 8, 1),
            output_shape=(8, 4, 4),
            kernel="2.kernel",
            bias="2.bias",
            filters=4,
            kernel_size=(3, 2),
            strides=(1, 2),
            padding=((2, 2), (0, 1)),
            dilation=(2, 2),
        ),
        ActivationOp(layer=2, input_shape=(8, 4, 4), output_shape=(8, 4, 4), function="relu"),
        MaxPool2DOp(
            layer=3,
            input_shape=(8, 4, 4),
            output_shape=(4, 2, 4),
            pool_size=(2, 2),
            strides=(2, 2),
            padding=((0, 0), (0, 0)),
        ),
        AvgPool2DOp(
            layer=4,
            input_shape=(4, 2, 4),
            output_shape=(2, 2, 4),
            pool_size=(2, 1),
            strides=(2, 1),
            padding=((0, 0), (0, 0)),
        ),
        ActivationOp(layer=5, input_shape=(2, 2, 4), output_shape=(2, 2, 4), function="tanh"),
        FlattenOp(layer=6, input_shape=(2, 2, 4), output_shape=(16,)),
        DropoutOp(layer=7, input_shape=(16,), output_shape=(16,), rate=0.25),
        DenseOp(layer=8, input_shape=(16,), output_shape=(5,), kernel="8.kernel", bias=None, units=5),
        ActivationOp(layer=8, input_shape=(5,), output_shape=(5,), function="sigmoid"),
        ActivationOp(layer=9, input_shape=(5,), output_shape=(5,), function="relu"),
        ActivationOp(layer=10, input_shape=(5,), output_shape=(5,), function="sigmoid"),
        SoftmaxOp(layer=11, input_shape=(5,), output_shape=(5,)),
    )
    assert plan.layer_shapes == (
        (8, 8, 3),
        (8, 8, 1),
        (8, 4, 4),
        (4, 2, 4),
        (2, 2, 4),
        (2, 2, 4),
        (16,),
        (16,),
        (5,),
        (5,),
        (5,),
        (5,),
    )
    assert plan.parameters == (
        ParameterSpec("2.kernel", (3, 2, 1, 4), "glorot_uniform", 6, 24, 2),
        ParameterSpec("2.bias", (4,), "zeros", 6, 24, 2),
        ParameterSpec("8.kernel", (16, 5), "glorot_uniform", 16, 5, 8),
    )
    assert [spec.size for spec in plan.parameters] == [24, 4, 80]
    assert (plan.input_shape, plan.output_shape, plan.classes, plan.is_classifier) == ((8, 8, 3), (5,), 5, True)


def test_luma_weighs_the_three_colours_as_bt_601_does():
    assert operation_of(Grayscale(weights="luma")).weights == (0.299, 0.587, 0.114)
    assert operation_of(Grayscale(), (8, 8, 4)).weights == (0.25, 0.25, 0.25, 0.25)


def test_the_initialiser_of_a_kernel_is_the_one_written_and_every_bias_is_zero():
    plan = plan_of(Flatten(), Dense(units=3, kernel_initializer="he_normal"))
    assert [spec.initializer for spec in plan.parameters] == ["he_normal", "zeros"]


def test_a_plan_carries_its_model_and_can_be_pickled_and_not_changed():
    model = Model(input_shape=(4,), layers=[Dense(units=2)])
    plan = model.plan()
    assert plan.model is model
    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301 - our own bytes
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.operations[0].units = 3


def test_a_dense_model_takes_features():
    assert plan_of(Flatten(), Dense(units=4), shape=(7,)).layer_shapes == ((7,), (4,))


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("layers", "shape", "problem"),
    [
        (
            [Flatten(), conv(3)],
            (4, 4, 2),
            (
                "layers[1] is Conv2D, which takes (height, width, channels), but gets 32 features. "
                "Move Conv2D before Flatten, or give the model an input_shape of three numbers."
            ),
        ),
        (
            [MaxPool2D(pool_size=1)],
            (9,),
            (
                "layers[0] is MaxPool2D, which takes (height, width, channels), but gets 9 features. "
                "Move MaxPool2D before Flatten, or give the model an input_shape of three numbers."
            ),
        ),
        (
            [conv(3), Dense(units=2)],
            (4, 5, 1),
            (
                "layers[1] is Dense, which takes one row of features, but gets an image of 2 x 3 x 2. "
                "Put Flatten() before it, which makes 12 features."
            ),
        ),
        (
            [Grayscale(weights="luma")],
            (4, 4, 1),
            (
                "layers[0].weights is 'luma', which weighs red, green and blue, but the image has 1 channels. "
                'Use weights="mean".'
            ),
        ),
        (
            [conv((3, 5))],
            (9, 4, 1),
            (
                "layers[0].kernel_size is (3, 5), which does not fit the 9 x 4 input: output width = "
                "floor((4 + 0 + 0 - 5) / 1) + 1 is less than 1. "
                'Use kernel_size of at most 4 along the width, or padding="same".'
            ),
        ),
        (
            [conv(3, dilation=4, strides=2, padding=((1, 0), (9, 9)))],
            (7, 7, 1),
            (
                "layers[0].kernel_size is 3, which does not fit the 7 x 7 input: output height = "
                "floor((7 + 1 + 0 - (4 * (3 - 1) + 1)) / 2) + 1 is less than 1. "
                'Use kernel_size of at most 2 along the height, or padding="same".'
            ),
        ),
        (
            [AvgPool2D(pool_size=9, strides=1, padding=((1, 1), (0, 0)))],
            (8, 8, 1),
            (
                "layers[0].pool_size is 9, which does not fit the 8 x 8 input: output width = "
                "floor((8 + 0 + 0 - 9) / 1) + 1 is less than 1. "
                'Use pool_size of at most 8 along the width, or padding="same".'
            ),
        ),
        (
            [Flatten(), Softmax(), Dense(units=2)],
            (4, 4, 1),
            "layers[1] is Softmax, which stands only at the end of a model. Move it behind layers[2], or remove it.",
        ),
        (
            [Softmax()],
            (4, 4, 1),
            (
                "layers[0] is Softmax, which takes one score for each class, but gets an image of 4 x 4 x 1. "
                "Put Flatten() and Dense(units=<number of classes>) before it."
            ),
        ),
        ([], (4, 4, 1), "layers is empty; a model has at least one layer. Add for example Flatten()."),
    ],
)
def test_a_layer_that_does_not_fit_is_one_problem_with_its_formula_and_fix(layers, shape, problem):
    assert problems_of(*layers, shape=shape) == [problem]


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(2, 12), st.integers(1, 4), st.integers(0, 3), st.sampled_from([0, 1]))
def test_the_advised_kernel_size_fits_and_one_larger_does_not(size, kernel, dilation, pad, axis):
    def layer(height):
        pair = (height, 1) if axis == 0 else (1, height)
        return conv(pair, dilation=dilation, padding=((pad, 0), (pad, 0)))

    assume(dilation * (kernel - 1) + 1 > size + pad)
    (problem,) = problems_of(layer(kernel), shape=(size, size, 1))
    largest = int(problem.split("at most ")[1].split()[0])
    assert operation_of(layer(largest), (size, size, 1)).output_shape[axis] >= 1
    assert len(problems_of(layer(largest + 1), shape=(size, size, 1))) == 1


def test_both_sides_that_do_not_fit_are_told():
    assert [problem.split("output ")[1].split(" ")[0] for problem in problems_of(conv(9))] == ["height", "width"]


def test_a_window_that_does_not_fit_makes_no_problem_of_those_behind_it():
    behind = [MaxPool2D(pool_size=2), MaxPool2D(pool_size=2, padding=((1, 1), (1, 1))), Flatten(), Dense(units=2)]
    assert [problem.split(" is ")[0] for problem in problems_of(conv(9), *behind)] == ["layers[0].kernel_size"] * 2
    assert len(problems_of(conv(9), *behind, MaxPool2D(), shape=(4, 9, 1))) == 2  # the height, and what is no window


def test_everything_that_does_not_fit_comes_at_once_in_the_order_of_the_layers():
    with pytest.raises(ModelError, match=r"^model 'odd' has 6 problems:") as caught:
        plan_of(
            Grayscale(weights="luma"),
            conv(9),
            Softmax(),
            MaxPool2D(pool_size=1),
            Dense(units=3),
            shape=(9, 4, 2),
            name="odd",
            class_names=["a", "b"],
        )
    assert [problem.path for problem in caught.value.problems] == [
        "layers[0].weights",
        "layers[1].kernel_size",
        "layers[2]",  # not the last
        "layers[2]",  # of an image
        "layers[3]",  # features after Softmax
        "class_names",
    ]


def test_where_the_shape_cannot_be_known_nothing_is_said_about_it():
    layers = [
        Flatten(),
        conv(3),
        MaxPool2D(pool_size=9),
        Grayscale(weights="luma"),
        MaxPool2D(padding=((2, 2), (0, 0))),
    ]
    (problem,) = problems_of(*layers, class_names=["a"])
    assert problem.startswith("layers[1] is Conv2D, ")
    assert len(problems_of(*layers, Softmax())) == 1
    # what a Dense layer puts out is certain again
    known = problems_of(*layers, Dense(units=3), conv(1), class_names=["a"])
    assert [problem.split(" ")[0] for problem in known] == ["layers[1]", "layers[6]"]
    assert "gets 3 features" in known[1]
    named = problems_of(*layers, Dense(units=3), class_names=["a"])
    assert named[1].startswith("class_names has 1 names, but the model has 3 outputs")


def test_class_names_are_as_many_as_the_outputs():
    assert problems_of(Flatten(), Dense(units=3), Softmax(), class_names=["a", "b"]) == [
        "class_names has 2 names, but the model has 3 outputs. Give 3 names, or make the last Dense layer 2 units wide."
    ]
    assert plan_of(Flatten(), Dense(units=2), Softmax(), class_names=["a", "b"]).classes == 2


# ----------------------------------------------------------------------------------------------------------- training


def test_only_a_classifier_has_classes():
    plan = plan_of(Flatten(), Dense(units=2), name="half")
    assert not plan.is_classifier
    with pytest.raises(
        ModelError, match=r"^model 'half': layers\[1\] is Dense; a model that is trained or judged ends"
    ):
        _ = plan.classes
    with pytest.raises(ModelError, match=r"Add Softmax\(\) as the last layer"):
        plan.require_trainable()


def test_a_classifier_without_parameters_cannot_be_trained():
    plan = plan_of(Flatten(), Softmax(), shape=(1, 1, 3))
    assert plan.classes == 3
    with pytest.raises(ModelError, match=r"layers have no parameters, so there is nothing to train"):
        plan.require_trainable()
    plan_of(Flatten(), Dense(units=2), Softmax()).require_trainable()
