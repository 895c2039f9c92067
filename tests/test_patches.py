"""What a value of a feature map looks at, and the patches that excite a filter most, held to a search by hand."""

import numpy as np
import pytest

from cnnkit import (
    AvgPool2D,
    Conv2D,
    DataError,
    Dataset,
    Dense,
    Flatten,
    MaxPool2D,
    Model,
    OptionError,
    Softmax,
    get_backend,
    predict,
)
from cnnkit import initial_parameters as initial
from cnnkit import patches as module
from cnnkit.patches import cut, find_patches, sight_of

CONVOLUTIONS = {
    "plain": (Conv2D(filters=3, kernel_size=(2, 3)),),
    "padded and strided": (Conv2D(filters=3, kernel_size=3, strides=(2, 1), padding=((2, 0), (1, 3))),),
    "dilated": (Conv2D(filters=3, kernel_size=(3, 2), dilation=(2, 3), padding="same"),),
    "behind a pool": (AvgPool2D(pool_size=(2, 3), strides=(1, 2)), Conv2D(filters=3, kernel_size=2, padding="same")),
    "third": (
        Conv2D(filters=2, kernel_size=(3, 2), strides=(1, 2), padding="same"),
        AvgPool2D(pool_size=2, padding="same"),
        Conv2D(filters=3, kernel_size=(2, 3), padding=((1, 1), (2, 0))),
    ),
}


def net(layers):
    return Model(input_shape=(9, 12, 2), layers=layers)


def noise(count=7, seed=0):
    images = np.random.default_rng(seed).normal(size=(count, 9, 12, 2)).astype(np.float32)
    return Dataset(images, np.arange(count) % 3)


@pytest.mark.parametrize("layers", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_the_highest_values_are_those_that_a_search_through_all_maps_finds(layers):
    model, data = net(layers), noise()
    parameters = initial(model, 3)
    found = find_patches(model, parameters, data, "numpy", layer=len(layers) - 1, count=4)
    maps = predict(model, parameters, data.images, "numpy")
    assert list(found) == [0, 1, 2]
    for number, patches in found.items():
        best = []
        for image in range(len(data)):
            places = [
                (maps[image, row, column, number], -row, -column)
                for row in range(maps.shape[1])
                for column in range(maps.shape[2])
            ]
            value, row, column = max(places)
            best.append((value, -image, (-row, -column)))
        best.sort(key=lambda one: (-one[0], -one[1]))
        assert [(one.value, -one.image, one.at) for one in patches] == best[:4]
        assert [one.label for one in patches] == [data.labels[one.image] for one in patches]


@pytest.mark.parametrize("layers", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_patch_is_all_that_its_value_depends_on_and_no_more(layers):
    model, data = net(layers), noise()
    parameters = initial(model, 3)
    engine = get_backend("numpy")
    for number, patches in find_patches(model, parameters, data, engine, layer=len(layers) - 1, count=3).items():
        for one in patches:
            (top, left), (height, width) = one.top_left, one.inside.shape
            image = data.images[one.image]

            def value(changed, one=one, number=number):
                return predict(model, parameters, changed[np.newaxis], engine)[(0, *one.at, number)]

            rows, columns = np.arange(9)[:, np.newaxis], np.arange(12)
            inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
            assert value(np.where(inside[..., np.newaxis], image, 1e3)) == pytest.approx(one.value, abs=1e-5)
            assert inside.sum() == one.inside.sum()
            np.testing.assert_array_equal(one.pixels[one.inside], image[inside])
            assert not one.pixels[~one.inside].any()
            for edge in (rows == top, rows == top + height - 1, columns == left, columns == left + width - 1):
                if (edge & inside).any():
                    assert value(image + 50 * (edge & inside)[..., np.newaxis]) != pytest.approx(one.value, abs=1e-3)


def test_sight_is_worked_out_from_padding_strides_and_dilation():
    layers = [
        Conv2D(filters=1, kernel_size=3, strides=2, padding=((1, 1), (2, 2))),
        MaxPool2D(pool_size=2),
        Conv2D(filters=1, kernel_size=(3, 2), dilation=(2, 1), padding="same"),
    ]
    plan = Model(input_shape=(16, 20, 1), layers=layers).plan()
    # the second layer sees 5 pixels, 4 apart; the third (3 - 1) * 2 * 4 more along the height and 4 along the width
    assert [sight_of(plan, layer) for layer in range(3)] == [
        module.Sight((-1, -2), (2, 2), (3, 3)),
        module.Sight((-1, -2), (4, 4), (5, 5)),
        module.Sight((-9, -2), (4, 4), (21, 9)),
    ]
    assert sight_of(plan, 2).top_left(1, 2) == (-5, 6)


def test_what_is_cut_out_over_the_edge_is_zero_and_said_to_be_outside():
    image = np.arange(1, 13, dtype=np.uint8).reshape(3, 4, 1)
    pixels, inside = cut(image, (-1, 2), (3, 3))
    assert pixels[..., 0].tolist() == [[0, 0, 0], [3, 4, 0], [7, 8, 0]]
    assert inside.tolist() == [[False] * 3, [True, True, False], [True, True, False]]
    assert pixels.dtype == np.uint8
    assert cut(image, (0, 0), (2, 2), step=(2, 3))[0][..., 0].tolist() == [[1, 4], [9, 12]]


def summed():
    """A model whose only feature map is the sum of 2 x 2 pixels."""
    return Model(input_shape=(4, 4, 1), layers=[Conv2D(filters=1, kernel_size=2)]), {
        "0.kernel": np.ones((2, 2, 1, 1), np.float32),
        "0.bias": np.zeros(1, np.float32),
    }


def test_of_equal_values_the_first_image_and_the_first_place_come_first():
    model, parameters = summed()
    found = find_patches(model, parameters, Dataset(np.ones((5, 4, 4, 1), np.float32), np.zeros(5, int)), count=3)
    assert [(one.image, one.at, one.value) for one in found[0]] == [(0, (0, 0), 4), (1, (0, 0), 4), (2, (0, 0), 4)]


def test_nan_is_lower_than_any_number():
    model, parameters = summed()
    images = np.zeros((3, 4, 4, 1), np.float32)
    images[0] = np.nan
    images[1, 0, 0] = np.nan
    images[1] -= 2
    found = find_patches(model, parameters, Dataset(images, np.zeros(3, int)))
    assert [(one.image, one.value) for one in found[0]] == [(2, 0), (1, -8), (0, -np.inf)]


def test_batches_change_nothing(monkeypatch):
    model, data = net(CONVOLUTIONS["third"]), noise(11)
    parameters = initial(model, 3)

    def figures():
        found = find_patches(model, parameters, data, layer=2, count=5)
        return {number: [(one.image, one.at, one.value) for one in patches] for number, patches in found.items()}

    whole = figures()
    sizes = []
    monkeypatch.setattr(module, "MAPS_AT_ONCE", 4 * 3 * np.prod(model.plan().output_shape))
    monkeypatch.setattr(module, "as_precision", lambda images, _: sizes.append(len(images)) or images)
    assert figures() == whole
    assert sizes[1:] == [3, 3, 3, 2]  # the first call looks at the shape of one image


def test_filters_are_those_that_are_named_and_fewer_images_give_fewer_patches():
    model, data = net(CONVOLUTIONS["plain"]), noise(2)
    found = find_patches(model, initial(model), data, filters=[2, 0, 2], count=8)
    assert {number: len(patches) for number, patches in found.items()} == {2: 2, 0: 2}
    assert list(found) == [2, 0]
    every = find_patches(model, initial(model), data, count=8)
    for number in (0, 2):
        assert [one.value for one in found[number]] == [one.value for one in every[number]]


def test_integers_go_in_as_they_are():
    model, parameters = summed()
    images = np.full((1, 4, 4, 1), 200, np.uint8)
    (one,) = find_patches(model, parameters, Dataset(images, [0]))[0]
    assert (one.value, one.pixels.dtype) == (800, np.uint8)


def test_what_cannot_be_is_refused_in_a_sentence():
    model, data = net([*CONVOLUTIONS["plain"], Flatten(), Dense(units=3), Softmax()]), noise(2)
    parameters = initial(model)
    with pytest.raises(OptionError, match=r"layer is 2, which is Dense; expected a Conv2D layer\. Model has 0\."):
        find_patches(model, parameters, data, layer=2)
    with pytest.raises(OptionError, match=r"layer is 9; expected a Conv2D layer"):
        find_patches(model, parameters, data, layer=9)
    with pytest.raises(OptionError, match=r"filter is 3; layers\[0\] has filters 0 to 2"):
        find_patches(model, parameters, data, filters=[3])
    with pytest.raises(OptionError, match=r"no filter is chosen"):
        find_patches(model, parameters, data, filters=[])
    with pytest.raises(OptionError, match=r"count is 0"):
        find_patches(model, parameters, data, count=0)
    with pytest.raises(DataError, match=r"images have shape \(2, 3, 3, 2\)|images have shape \(1, 3, 3, 2\)"):
        find_patches(model, parameters, Dataset(np.zeros((2, 3, 3, 2), np.uint8), [0, 1]))
    flat = Model(input_shape=(3,), layers=[Dense(units=2), Softmax()])
    with pytest.raises(OptionError, match=r"model has no Conv2D layer\. Give a model that has one"):
        find_patches(flat, initial(flat), data)
