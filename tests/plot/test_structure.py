"""The architecture of a model: every layer is there with its shape, and the words fit."""

from itertools import pairwise

import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle, Polygon, Rectangle

from cnnkit import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    MaxPool2D,
    Model,
    ModelError,
    OptionError,
    ReLU,
    Rescale,
    Softmax,
    load_preset,
    preset_names,
)
from cnnkit.plot import architecture


def patches(made, kind):
    return [patch for patch in made.axes[0].patches if type(patch) is kind]


def circles(made):
    """Columns of neurons, from left to right: the heights of each, from top to bottom."""
    columns = {}
    for circle in patches(made, Circle):
        if circle.radius > 0.05:
            columns.setdefault(round(circle.center[0], 3), []).append(circle.center[1])
    return [sorted(columns[x]) for x in sorted(columns)]


def assert_that_words_are_clear_of_boxes(made):
    """To be called when the picture has been drawn."""
    for text in made.axes[0].texts:
        for patch in [*patches(made, Rectangle), *patches(made, Polygon)]:
            over = text.get_window_extent().overlaps(patch.get_window_extent())
            assert not over or not text.get_text(), f"{text.get_text()!r} lies over a box"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_read(name, legible):
    made = architecture(load_preset(name).model)
    legible(made)
    assert_that_words_are_clear_of_boxes(made)


def test_every_layer_stands_there_with_shape_settings_and_parameters(legible):
    model = Model(
        name="my $net$ [b]",
        input_shape=(12, 20, 3),
        layers=[
            Rescale(scale=0.5, offset=-1),
            Grayscale(),
            Conv2D(
                filters=4, kernel_size=(3, 5), padding=((0, 1), (2, 3)), dilation=2, activation="tanh", use_bias=False
            ),
            MaxPool2D(pool_size=2),
            Flatten(),
            Dense(units=7, activation="relu"),
            Softmax(),
        ],
    )
    # By hand: rows 12 + 1 - 5 + 1, columns 20 + 5 - 9 + 1; halved, rounded down; 4 * 8 * 4 numbers into 7 units.
    shapes = ["12 x 20 x 3", "12 x 20 x 3", "12 x 20 x 1", "9 x 17 x 4", "4 x 8 x 4", "128", "7", "7"]
    texts = legible(architecture(model))
    assert [text for text in texts if text in shapes] == shapes
    kinds = ["input", "rescale", "grayscale", "conv2d", "max_pool2d", "flatten", "dense", "softmax"]
    assert [text for text in texts if text in kinds] == kinds
    assert {"scale=0.5", "offset=-1", "kernel_size=(3,5)", "padding=((0,1),(2,3))", "dilation=2", "activation=tanh"} < {
        *texts
    }
    assert {"60 parameters", "903 parameters", "my $net$ [b]: 963 parameters"} < set(texts)  # 3*5*4; 128*7 + 7


def test_the_words_go_through_the_layers():
    model = Model(input_shape=(6, 6, 1), layers=[AvgPool2D(pool_size=3), Flatten(), Dense(units=2), Softmax()])
    assert architecture(model).alt == (
        "Architecture of model: 10 parameters in 4 layers. Input 6 x 6 x 1; avg_pool2d (pool_size=3) to 2 x 2 x 1; "
        "flatten to 4; dense (units=2, 10 parameters) to 2; softmax to 2."
    )


def test_boxes_grow_with_their_sides_and_channels():
    model = Model(input_shape=(32, 16, 3), layers=[Conv2D(filters=64, kernel_size=1), MaxPool2D(pool_size=4)])
    made = architecture(model)
    first, second, third = patches(made, Rectangle)
    assert first.get_height() == second.get_height() > third.get_height()
    assert first.get_height() > first.get_width()
    tops = patches(made, Polygon)[::2]  # the upper faces, whose slant is the depth
    depths = [top.get_xy()[1][0] - top.get_xy()[0][0] for top in tops]
    assert 2 * depths[0] < depths[1]
    assert depths[1] == pytest.approx(depths[2])


def test_many_layers_wrap(legible):
    layers = [layer for _ in range(10) for layer in (Conv2D(filters=2, kernel_size=3, padding="same"), ReLU())]
    made = architecture(Model(input_shape=(8, 8, 1), layers=layers))
    texts = legible(made)
    assert texts.count("conv2d") == texts.count("relu") == 10
    assert made.get_figwidth() < 12
    assert len({round(text.get_position()[1], 2) for text in made.axes[0].texts if text.get_text() == "relu"}) == 3


def test_a_dense_model_is_neurons_and_edges(legible):
    model = Model(
        input_shape=(4,),
        layers=[Dense(units=5, activation="tanh"), Dropout(rate=0.5), Dense(units=3), Softmax()],
        class_names=["setosa", "$x$", "[b]"],
    )
    made = architecture(model)
    assert list(map(len, circles(made))) == [4, 5, 3]
    edges = [len(found.get_segments()) for found in made.axes[0].collections if isinstance(found, LineCollection)]
    assert edges == [4 * 5, 5 * 3]
    texts = legible(made)
    assert {"4 numbers", "5 units", "tanh", "25 parameters", "dropout", "3 units", "setosa", "$x$", "[b]"} < set(texts)
    named = {text.get_text(): text.get_position()[1] for text in made.axes[0].texts}
    assert [named[name] for name in model.class_names] == circles(made)[2]
    assert made.alt == (
        "Neurons and edges of model: 43 parameters. From left to right: input, 4 numbers; then dense, 5 units, tanh, "
        "25 parameters, dropout; then dense, 3 units, 18 parameters, softmax."
    )


def test_of_many_neurons_twelve_are_drawn_with_an_ellipsis(legible):
    names = [f"class {number}" for number in range(30)]
    layers = [Flatten(), Dense(units=12), Dense(units=13), Dense(units=30), Softmax()]
    made = architecture(Model(input_shape=(4, 5, 1), layers=layers, class_names=names))
    columns = circles(made)
    assert list(map(len, columns)) == [12, 12, 12, 12]
    gaps = [max(after - before for before, after in pairwise(column)) for column in columns]
    assert gaps[1] == pytest.approx(gaps[0] / 2)  # all twelve of twelve, without a hole
    assert gaps[2] == pytest.approx(gaps[0])
    dots = [circle for circle in patches(made, Circle) if circle.radius < 0.05]
    assert len(dots) == 3 * 3
    shown = [text for text in legible(made) if text.startswith("class ")]
    assert shown == [f"class {number}" for number in (*range(6), *range(24, 30))]


def test_images_that_are_flattened_first_are_neurons_too():
    texts = architecture(load_preset("mlp-1h").model).alt
    assert "input, 784 numbers, 28 x 28 x 1, rescale, flatten; then dense, 128 units, relu, 100,480 parameters" in texts


def test_a_dense_model_too_long_for_a_row_is_boxes(legible):
    deep = Model(input_shape=(4,), layers=[Dense(units=3)] * 9)
    made = architecture(deep)
    assert circles(made) == []
    assert legible(made).count("dense") == 9
    assert list(map(len, circles(architecture(Model(input_shape=(4,), layers=[Dense(units=3)] * 6))))) == [4] + [3] * 6


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5000, 1), (5000, 1, 4096)])
def test_extreme_shapes_are_drawn(shape, legible):
    made = architecture(
        Model(input_shape=shape, layers=[Conv2D(filters=9999, kernel_size=1), Flatten(), Dense(units=10**6)])
    )
    legible(made)
    assert_that_words_are_clear_of_boxes(made)
    for patch in patches(made, Rectangle):
        assert 0.05 <= patch.get_width() <= 1.2
        assert 0.05 <= patch.get_height() <= 1.2


def test_a_model_without_parameters_is_drawn(legible):
    assert "model: 0 parameters" in legible(architecture(Model(input_shape=(4,), layers=[Softmax()])))


def test_what_is_no_model_is_refused():
    with pytest.raises(OptionError, match=r"expected a cnnkit\.Model"):
        architecture(load_preset("mlp-1h"))
    with pytest.raises(ModelError, match=r"layers\[0\]"):
        architecture(Model(input_shape=(2, 2, 1), layers=[Conv2D(filters=1, kernel_size=3)]))
