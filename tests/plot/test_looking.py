"""Pictures that look inside a model show the very numbers, and their words can be read."""

import io

import numpy as np
import pytest
from matplotlib.colors import Normalize
from PIL import Image

from cnnkit import (
    AvgPool2D,
    Conv2D,
    DataError,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Model,
    OptionError,
    Rescale,
    Softmax,
    initial_parameters,
    predict,
)
from cnnkit.patches import find_patches
from cnnkit.plot import convolution, exciting_patches, feature_maps, kernels, max_pooling
from cnnkit.plot.mosaic import as_seen, balanced, map_limits, signed_limits

GREY = Model(
    name="grey",
    input_shape=(8, 7, 1),
    layers=[
        Rescale(scale=1 / 255),
        Conv2D(filters=5, kernel_size=(2, 3), padding="same", activation="relu"),
        MaxPool2D(pool_size=2, padding="same"),
        Dropout(rate=0.2),
        Conv2D(filters=3, kernel_size=2, activation="tanh"),
        Flatten(),
        Dense(units=3),
        Softmax(),
    ],
    class_names=["$cat$", "dog", "a class with a long name indeed"],
)
COLOUR = Model(
    input_shape=(9, 12, 3),
    layers=[
        Conv2D(filters=4, kernel_size=3, strides=(2, 1), padding=((2, 1), (0, 2)), activation="tanh"),
        AvgPool2D(pool_size=2),
        Conv2D(filters=40, kernel_size=(3, 1), dilation=(1, 2), padding="same", use_bias=False),
        MaxPool2D(pool_size=(3, 2), strides=1, padding="same"),
        Flatten(),
        Dense(units=2),
        Softmax(),
    ],
)


def images(model, count=12):
    return np.random.default_rng(2).integers(0, 256, (count, *model.input_shape), dtype=np.uint8)


def data(model):
    return Dataset(images(model), np.arange(12) % 2)


def trained(model):
    return {name: array + 0.02 for name, array in initial_parameters(model, 1).items()}


def tiles(axes):
    return [np.asarray(image.get_array()) for image in axes.images]


def scale(image):
    return image.norm.vmin, image.norm.vmax


PICTURES = {
    "kernels": lambda: kernels(GREY, trained(GREY)),
    "kernels before and after": lambda: kernels(GREY, trained(GREY), before=initial_parameters(GREY, 1)),
    "kernels of many channels": lambda: kernels(COLOUR, trained(COLOUR), layer=2),
    "kernels in colour": lambda: kernels(COLOUR, trained(COLOUR), before=initial_parameters(COLOUR)),
    "maps": lambda: feature_maps(GREY, trained(GREY), images(GREY)[0]),
    "maps in colour": lambda: feature_maps(COLOUR, trained(COLOUR), images(COLOUR)[0], count=7),
    "maps of a layer": lambda: feature_maps(COLOUR, trained(COLOUR), images(COLOUR)[0], layer=2),
    "probabilities": lambda: feature_maps(GREY, trained(GREY), images(GREY)[0], layer=7),
    "patches": lambda: exciting_patches(GREY, trained(GREY), data(GREY)),
    "patches further up": lambda: exciting_patches(COLOUR, trained(COLOUR), data(COLOUR), layer=2, count=2),
    "convolution": lambda: convolution(GREY, trained(GREY), images(GREY)[0], filter=2),
    "convolution in colour": lambda: convolution(COLOUR, trained(COLOUR), images(COLOUR)[0], at=(0, 9)),
    "dilated convolution": lambda: convolution(
        COLOUR, trained(COLOUR), images(COLOUR)[0], layer=2, filter=39, at=(0, 0)
    ),
    "pooling": lambda: max_pooling(GREY, trained(GREY), images(GREY)[0], channel=1),
    "overlapping pooling": lambda: max_pooling(COLOUR, trained(COLOUR), images(COLOUR)[0], channel=30),
}


@pytest.mark.parametrize("name", PICTURES)
def test_all_words_can_be_read(name, legible):
    legible(PICTURES[name]())


# ------------------------------------------------------------------------------------------------------------- kernels


def test_kernels_before_and_after_have_one_scale_with_grey_at_zero():
    after, before = trained(GREY), initial_parameters(GREY, 1)
    after["1.kernel"][0, 0, 0, 4] = -3
    made = kernels(GREY, after, before=before)
    first, second, bar = made.axes
    assert (first.get_title(), second.get_title()) == ("before training", "after training")
    assert {scale(image) for image in [*first.images, *second.images]} == {(-3, 3)}
    assert scale(bar._colorbar.mappable) == (-3, 3)
    for axes, kernel in ((first, before["1.kernel"]), (second, after["1.kernel"])):
        np.testing.assert_array_equal(tiles(axes), kernel[:, :, 0].transpose(2, 0, 1))
    assert "Kernel 4 changed most" in made.alt
    assert "Grey is 0, black -3, white 3." in made.alt


def test_a_tile_stands_upright():
    model = Model(input_shape=(4, 4, 1), layers=[Conv2D(filters=1, kernel_size=2, use_bias=False)])
    made = kernels(model, {"0.kernel": np.array([[1, -1], [-1, -1]], np.float32).reshape(2, 2, 1, 1)})
    with Image.open(io.BytesIO(made.png())) as image:
        greys = np.asarray(image.convert("L"))
    made.set_dpi(144)
    made.canvas.draw()
    axes = made.axes[0]
    left, top = axes.images[0].get_extent()[0], min(axes.images[0].get_extent()[2:])
    found = []
    for down, across in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        x, y = axes.transData.transform((left + across, top + down))
        found.append(int(greys[round(len(greys) - y), round(x)]))
    assert found == [255, 0, 0, 0]


def test_channels_stand_under_each_other_filter_by_filter():
    kernel = trained(COLOUR)["0.kernel"]
    made = kernels(COLOUR, trained(COLOUR))
    found = tiles(made.axes[0])
    expected = [kernel[:, :, channel, number] for number in range(4) for channel in range(3)]
    np.testing.assert_array_equal(found, expected)
    lefts = [image.get_extent()[0] for image in made.axes[0].images]
    tops = [image.get_extent()[3] for image in made.axes[0].images]
    assert lefts[0] == lefts[1] == lefts[2] < lefts[3]
    assert tops[0] < tops[1] < tops[2]
    assert made._suptitle.get_text() == "layers[0] Conv2D: 4 kernels, the 3 input channels from top to bottom"


def test_of_very_many_kernels_some_are_drawn_and_the_title_says_which():
    many = Model(input_shape=(4, 4, 1), layers=[Conv2D(filters=40, kernel_size=2), Conv2D(filters=64, kernel_size=2)])
    made = kernels(many, trained(many))
    assert len(made.axes[0].images) == 32
    assert made._suptitle.get_text() == "layers[0] Conv2D: kernels 0 to 31 of 40"
    made = kernels(many, trained(many), layer=1)
    assert len(made.axes[0].images) == 96
    assert made._suptitle.get_text() == (
        "layers[1] Conv2D: kernels 0 to 11 of 64, input channels 0 to 7 of 40, from top to bottom"
    )


@pytest.mark.parametrize(("channels", "filters"), [(1, 32), (3, 32), (3, 8), (4, 6), (8, 12)])
def test_the_title_of_the_kernels_stands_clear_of_the_names_of_the_panels(channels, filters):
    model = Model(input_shape=(9, 9, channels), layers=[Conv2D(filters=filters, kernel_size=3)])
    made = kernels(model, trained(model), before=initial_parameters(model, 1))
    made.png()
    title = made._suptitle.get_window_extent()
    assert all(axes.title.get_window_extent().y1 < title.y0 for axes in made.axes[:2])


def test_weights_that_are_no_numbers_are_counted_in_words():
    given = trained(GREY)
    given["1.kernel"][0, 0, 0, :2] = np.nan, np.inf
    assert "2 weights are NaN or infinite" in kernels(GREY, given).alt


def test_kernels_that_are_not_there_are_refused():
    with pytest.raises(OptionError, match="has no Conv2D layer"):
        kernels(Model(input_shape=(2,), layers=[Dense(units=2)]), {})
    with pytest.raises(OptionError, match="layer is 2, which is MaxPool2D; expected a Conv2D layer"):
        kernels(GREY, trained(GREY), layer=2)
    with pytest.raises(DataError, match=r"parameter '1\.kernel' is missing"):
        kernels(GREY, {})
    with pytest.raises(DataError, match=r"parameter '0\.kernel' is of shape \(1,\)"):
        kernels(COLOUR, {"0.kernel": np.zeros(1)})


# ---------------------------------------------------------------------------------------------------------------- maps


def test_a_row_for_every_layer_that_changes_something_shows_what_predict_returns():
    given, image = trained(GREY), images(GREY)[3]
    made = feature_maps(GREY, given, image, "numpy-batched", count=3)
    rows = [(made.axes[2 * row].texts[0].get_text().splitlines(), made.axes[2 * row + 1]) for row in range(7)]
    assert [words[0] for words, _ in rows] == [
        "image", "layers[0] Rescale", "layers[1] Conv2D relu", "layers[2] MaxPool2D", "layers[4] Conv2D tanh",
        "layers[6] Dense", "layers[7] Softmax",
    ]  # fmt: skip
    assert rows[2][0][1:] == [
        "8 x 7 x 5",
        f"black 0, white {predict(GREY.prefix(1), given, image[np.newaxis])[0].max():.3g}",
        "the first 3 of 5 maps",
    ]
    np.testing.assert_allclose(tiles(rows[0][1]), [image[..., 0] / 255])
    for row, layer in ((1, 0), (2, 1), (3, 2), (4, 4)):
        maps = predict(GREY.prefix(layer), given, image[np.newaxis])[0]
        np.testing.assert_allclose(tiles(rows[row][1]), maps.transpose(2, 0, 1)[:3], rtol=1e-4, atol=1e-6)
    probabilities = predict(GREY, given, image[np.newaxis])[0]
    bars = rows[6][1].patches
    np.testing.assert_allclose([bar.get_height() for bar in bars], probabilities, rtol=1e-4)
    assert [label.get_text() for label in rows[6][1].get_xticklabels()][:2] == ["$cat$", "dog"]


def test_all_maps_of_a_layer_share_a_scale_that_the_bar_shows():
    given, image = trained(GREY), images(GREY)[3]
    made = feature_maps(GREY, given, image, layer=4)
    maps = predict(GREY.prefix(4), given, image[np.newaxis])[0]
    axes, bar = made.axes
    np.testing.assert_allclose(tiles(axes), maps.transpose(2, 0, 1), rtol=1e-5)
    most = float(np.abs(maps).max())
    assert len({scale(one) for one in axes.images}) == 1
    assert scale(axes.images[0]) == pytest.approx((-most, most))
    assert scale(bar._colorbar.mappable) == scale(axes.images[0])


def test_maps_that_are_zero_everywhere_are_counted():
    given = trained(GREY)
    given["1.kernel"][..., 1:3] = -1
    made = feature_maps(GREY, given, images(GREY)[0], layer=1)
    maps = predict(GREY.prefix(1), given, images(GREY)[:1])[0]
    assert sum(not maps[..., channel].any() for channel in range(5)) == 2
    assert "2 maps of 5 are 0 everywhere." in made.alt


def test_a_model_of_features_has_bars_in_every_row():
    model = Model(input_shape=(4,), layers=[Dense(units=30), Dense(units=2), Softmax()])
    made = feature_maps(model, trained(model), np.arange(4, dtype=np.float32))
    assert [len(axes.patches) for axes in made.axes[1::2]] == [4, 30, 2, 2]


def test_a_layer_or_an_image_that_is_not_there_is_refused():
    with pytest.raises(OptionError, match="layer is 8; model 'grey' has layers 0 to 7"):
        feature_maps(GREY, trained(GREY), images(GREY)[0], layer=8)
    with pytest.raises(DataError, match=r"the image has shape \(12, 8, 7, 1\)"):
        feature_maps(GREY, trained(GREY), images(GREY))


# ------------------------------------------------------------------------------------------------------------- patches


def test_every_row_has_the_kernel_and_the_patches_with_their_values():
    given, some = trained(GREY), data(GREY)
    made = exciting_patches(GREY, given, some, filters=[4, 0], count=3)
    found = find_patches(GREY, given, some, filters=[4, 0], count=3)
    shown = iter(made.axes[0].images)
    for number, patches in found.items():
        np.testing.assert_array_equal(next(shown).get_array(), given["1.kernel"][:, :, 0, number])
        for patch in patches:
            drawn = np.asarray(next(shown).get_array())
            if patch.inside.all():
                np.testing.assert_allclose(drawn, patch.pixels[..., 0] / 255)
            else:  # red, green, blue, and where the hatching shines through
                np.testing.assert_allclose(drawn[..., 0][patch.inside], patch.pixels[..., 0][patch.inside] / 255)
                np.testing.assert_array_equal(drawn[..., 3], patch.inside)
    assert next(shown, None) is None
    words = [text.get_text() for text in made.axes[0].texts]
    assert words[:2] == ["filter 4", f"{found[4][0].value:.3g}"]
    assert f"Filter 0: {found[0][0].value:.3g} to {found[0][2].value:.3g}, in images of class" in made.alt


def test_what_lies_over_padding_is_hatched():
    given, some = trained(GREY), data(GREY)
    made = exciting_patches(GREY, given, some, count=12)
    patches = [patch for row in find_patches(GREY, given, some, count=12).values() for patch in row]
    over = [patch for patch in patches if not patch.inside.all()]
    assert 0 < len(over) < 60
    assert sum(patch.get_hatch() is not None for patch in made.axes[0].patches) == len(over)


def test_kernels_that_do_not_multiply_pixels_are_not_shown_beside_patches():
    model = Model(input_shape=(8, 7, 1), layers=[Conv2D(filters=2, kernel_size=2), Conv2D(filters=3, kernel_size=2)])
    assert len(exciting_patches(model, trained(model), data(model), filters=[0, 1], count=4).axes[0].images) == 10
    assert (
        len(exciting_patches(model, trained(model), data(model), layer=1, filters=[0, 1], count=4).axes[0].images) == 8
    )


# ----------------------------------------------------------------------------------------------------- convolution


def cells(axes):
    return [text.get_text() for text in axes.texts]


def test_a_convolution_shows_patch_kernel_and_products_with_their_numbers():
    model = Model(input_shape=(3, 3, 1), layers=[Conv2D(filters=1, kernel_size=2, padding="same", activation="relu")])
    given = {
        "0.kernel": np.array([[1, -2], [3, 0.5]], np.float32).reshape(2, 2, 1, 1),
        "0.bias": np.ones(1, np.float32),
    }
    image = np.arange(1, 10, dtype=np.uint8).reshape(3, 3, 1)
    made = convolution(model, given, image, at=(1, 2))
    by_title = {axes.get_title(): axes for axes in made.axes}
    assert cells(by_title["patch"]) == ["6.00", "0", "9.00", "0"]
    assert cells(by_title["kernel"]) == ["1.00", "-2.00", "3.00", "0.50"]
    assert cells(by_title["products"]) == ["6.0", "0", "27.0", "0"]
    assert sum(patch.get_hatch() is not None for patch in by_title["patch"].patches) == 2
    feet = [text.get_text() for axes in made.axes for text in axes.texts if "bias" in text.get_text()]
    assert feet == [
        "33.00 + 1.00 (bias) = 34.00      relu(34.00) = 34.00\nThe backend computed 34.000 before the activation."
    ]
    frames = [patch.get_bbox().bounds for patch in by_title["input"].patches if patch.get_linewidth() > 1]
    assert set(frames) == {(1.5, 0.5, 2, 2)}
    frames = [
        patch.get_bbox().bounds for patch in by_title["feature map before relu"].patches if patch.get_linewidth() > 1
    ]
    assert set(frames) == {(1.5, 0.5, 1, 1)}
    assert by_title["input"].get_xlim()[1] > 3.4  # room for what of the frame lies over padding


def test_a_dilated_kernel_is_framed_pixel_by_pixel():
    made = convolution(COLOUR, trained(COLOUR), images(COLOUR)[0], layer=2, at=(1, 3))
    (source,) = [axes for axes in made.axes if axes.get_title().startswith("input")]
    frames = {patch.get_bbox().bounds for patch in source.patches if patch.get_linewidth() > 1}
    assert frames == {(2.5, row - 0.5, 1, 1) for row in (0, 1, 2)}


# ------------------------------------------------------------------------------------------------------------- pooling


def test_pooling_frames_the_chosen_cells_and_shows_both_maps():
    model = Model(input_shape=(4, 4, 1), layers=[MaxPool2D(pool_size=2)])
    image = np.array([[1, 5, 2, 2], [5, 0, 2, 3], [7, 7, 0, 0], [7, 7, 0, 0]], np.float32)[..., np.newaxis]
    made = max_pooling(model, {}, image)
    before, after = made.axes[:2]
    np.testing.assert_array_equal(tiles(before)[0], image[..., 0])
    np.testing.assert_array_equal(tiles(after)[0], [[5, 3], [7, 0]])
    assert cells(after) == ["5.00", "3.00", "7.00", "0.00"]
    frames = {tuple(np.round(patch.get_center(), 6)) for patch in before.patches if patch.get_width() < 1}
    assert frames == {(1, 0), (3, 1), (0, 2), (2, 2)}  # (column, row)
    assert scale(before.images[0]) == scale(after.images[0]) == (0, 7)
    assert "The highest of all is 7, at row 2, column 0 of the map before." in made.alt


def test_frames_are_where_the_cells_are_behind_padding():
    model = Model(input_shape=(3, 3, 1), layers=[MaxPool2D(pool_size=2, padding=((1, 0), (1, 0)))])
    image = np.arange(9, dtype=np.float32).reshape(3, 3, 1)
    before = max_pooling(model, {}, image).axes[0]
    frames = {tuple(np.round(patch.get_center(), 6)) for patch in before.patches if patch.get_width() < 1}
    assert frames == {(1, 1), (3, 1), (1, 3), (3, 3)}


def test_in_large_maps_the_chosen_cells_have_a_dot():
    model = Model(input_shape=(30, 30, 1), layers=[MaxPool2D(pool_size=3, strides=2, padding="same")])
    image = np.random.default_rng(0).normal(size=(30, 30, 1)).astype(np.float32)
    made = max_pooling(model, {}, image)
    (dots,) = made.axes[0].collections
    padded = np.pad(image[..., 0], (0, 1), constant_values=-np.inf)
    expected = set()
    for row in range(15):
        for column in range(15):
            window = padded[2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            down, across = np.unravel_index(window.argmax(), window.shape)
            expected.add((2 * column + int(across), 2 * row + int(down)))
    assert {tuple(map(int, place)) for place in dots.get_offsets()} == expected
    assert sum(patch.get_hatch() is not None for patch in made.axes[0].patches) == 61


# -------------------------------------------------------------------------------------------------------- small things


def test_limits_hold_every_finite_value():
    values = np.array([-0.5, np.nan, 3, np.inf])
    assert signed_limits(values, np.array([-4.0])) == (-4, 4)
    assert map_limits(values) == (-3, 3)
    assert map_limits(np.array([0, 2.0])) == (0, 2)
    assert signed_limits(np.zeros(2)) == (-1, 1)
    assert map_limits(np.array([np.nan])) == (0, 1)


def test_images_are_seen_as_grey_or_colour():
    uint8 = np.array([[[0], [51]]], np.uint8)
    assert as_seen(uint8).tolist() == [[0, 0.2]]
    assert as_seen(np.array([[[-1.0], [1.0], [0.0]]])).tolist() == [[0, 1, 0.5]]
    assert as_seen(np.zeros((2, 2, 3), np.uint8)).shape == (2, 2, 3)
    assert as_seen(np.array([[[0.0, 2.0]]])).tolist() == [[0.5]]
    assert isinstance(Normalize(0, 1)(as_seen(np.full((1, 1, 1), np.nan))), np.ma.MaskedArray)


def test_columns_leave_few_holes():
    assert [balanced(count, 8) for count in (1, 8, 9, 12, 32)] == [1, 8, 5, 6, 8]
