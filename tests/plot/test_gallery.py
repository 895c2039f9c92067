"""Images and mistakes: the right image stands under the right words."""

import numpy as np
import pytest

from cnnkit import DataError, Dataset, OptionError
from cnnkit.mistakes import Mistakes
from cnnkit.plot import images, mistakes
from cnnkit.plot.grid import tiles_of


def numbered(labels, shape=(5, 5, 1), names=None):
    """Image `i` is all `i`, so that it can be told in a picture."""
    pixels = np.broadcast_to(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), (len(labels), *shape))
    return Dataset(pixels, np.array(labels, np.int64), names)


def shown(made):
    """`(row, column)` of each image in the picture, and which of `numbered` it is."""
    tiles = made.axes[0].images
    columns = sorted({round(tile.get_extent()[0], 3) for tile in tiles})
    rows = sorted({round(tile.get_extent()[3], 3) for tile in tiles})
    return {
        (rows.index(round(tile.get_extent()[3], 3)), columns.index(round(tile.get_extent()[0], 3))): round(
            tile.get_array()[0, 0, 0] * 255
        )
        for tile in tiles
    }


def above(made):
    """The words above each image, by the number of the image, from top to bottom."""
    found = {}
    for tile in made.axes[0].images:
        left, right, _, top = tile.get_extent()
        texts = [text for text in made.axes[0].texts if left < text.get_position()[0] < right]
        near = [text for text in texts if 0 < top - text.get_position()[1] < 0.4]
        near.sort(key=lambda text: text.get_position()[1])
        found[round(tile.get_array()[0, 0, 0] * 255)] = [text.get_text() for text in near]
    return found


# ------------------------------------------------------------------------------------------------------------ data sets


def test_every_class_has_a_row_of_its_first_images(legible):
    made = images(numbered([2, 0, 2, 0, 2, 0]), columns=2)
    # class 1 has no image: its row holds words instead, and the grid has rows for 0 and 2
    assert shown(made) == {(0, 0): 1, (0, 1): 3, (1, 0): 0, (1, 1): 2}
    assert legible(made) == ["0", "1", "2", "no images"]
    assert "4 of 6 images of a data set with 3 classes: 0 (2) and 2 (2)." in made.alt
    assert "There are no images of 1 class." in made.alt


def test_ten_images_of_a_class_are_shown_unless_told_otherwise():
    assert len(shown(images(numbered([0] * 15 + [1] * 3)))) == 13
    assert len(shown(images(numbered([0] * 15 + [1] * 3), columns=14))) == 17


def test_a_count_takes_images_of_every_class_in_turn(legible):
    made = images(numbered([0, 0, 0, 1, 1, 2], names=["a", "b", "c"]), count=5, columns=3)
    assert shown(made) == {(0, 0): 0, (0, 1): 3, (0, 2): 5, (1, 0): 1, (1, 1): 4}
    assert above(made) == {0: ["a"], 3: ["b"], 5: ["c"], 1: ["a"], 4: ["b"]}
    legible(made)


def test_more_images_than_there_are_is_all_of_them():
    assert len(shown(images(numbered([0, 1, 1]), count=50))) == 3


def test_of_13_classes_one_image_each_is_shown_with_its_class(legible):
    labels = [*range(12, -1, -1), *range(13)]
    made = images(numbered(labels, names=[f"name {label}" for label in range(13)]))
    assert above(made) == {12 - label: [f"name {label}"] for label in range(13)}
    assert len(shown(images(numbered(labels[:-1] * 2)))) == 13
    assert len(shown(images(numbered([label % 12 for label in labels])))) == 26  # 12 classes have rows
    legible(made)


def test_names_are_shown_as_they_are_and_long_ones_with_both_ends(legible):
    long = "the first of two names that are much too long to be shown, number 1"
    data = numbered([0, 1, 2, 3] * 4, names=["[b]", "$x$", long, "tab\tand\nline"])
    for made in (images(data), images(data, count=16)):
        texts = legible(made)
        assert {"[b]", "$x$"} <= set(texts)
        (cut,) = {text for text in texts if text.startswith("the")}
        assert "…" in cut
        assert cut.endswith("1")
    assert long in made.alt


@pytest.mark.parametrize("shape", [(4, 90, 3), (90, 4, 1), (1, 1, 1), (300, 200, 3), (6, 5, 2)])
@pytest.mark.parametrize("count", [None, 7])
def test_images_of_any_shape_keep_it(shape, count, legible):
    made = images(numbered([0, 1, 2] * 3, shape, ["a", "bb", "a longer name"]), count=count)
    texts = legible(made)
    assert "bb" in texts
    assert any(text.startswith("a lo") for text in texts)
    ((left, bottom), (right, top)) = made.axes[0].transData.transform(
        np.reshape(made.axes[0].images[0].get_extent(), (2, 2)).T
    )
    assert (top - bottom) / (right - left) == pytest.approx(shape[0] / shape[1], rel=1e-6)


def test_rows_of_features_are_no_images():
    with pytest.raises(OptionError, match="rows of 4 features, which are no images"):
        images(Dataset(np.zeros((3, 4), np.float32), np.arange(3)))


def test_no_images_are_refused():
    with pytest.raises(DataError, match="the data set has 0 images"):
        images(numbered([]))


@pytest.mark.parametrize("setting", ["count", "columns"])
def test_a_count_below_1_is_refused(setting):
    with pytest.raises(OptionError, match=f"{setting} is 0; expected a whole number of at least 1"):
        images(numbered([0, 1]), **{setting: 0})


# --------------------------------------------------------------------------------------------------------------- values


def test_bytes_are_shown_from_0_to_255_however_dark_they_are():
    tiles, words = tiles_of(np.array([0, 51], np.uint8).reshape(1, 1, 2, 1))
    np.testing.assert_allclose(tiles, np.array([0, 0.2]).reshape(1, 1, 2, 1).repeat(3, axis=-1))
    assert words == "values 0 to 255"


def test_floats_from_0_to_1_are_shown_as_they_are_and_others_are_stretched():
    tiles, words = tiles_of(np.array([0.25, 0.5], np.float32).reshape(1, 1, 2, 1))
    assert tiles[0, 0, :, 0].tolist() == [0.25, 0.5]
    assert words == "values 0 to 1"
    tiles, words = tiles_of(np.array([-3.0, 0, 1]).reshape(1, 1, 3, 1))
    assert tiles[0, 0, :, 2].tolist() == [0, 0.75, 1]
    assert words == "values -3 to 1 from black to white"


def test_an_image_of_one_value_beyond_1_is_shown():
    assert tiles_of(np.full((1, 2, 2, 1), 7.0))[0].tolist() == np.zeros((1, 2, 2, 3)).tolist()


def test_three_channels_are_colours_and_two_their_mean():
    colours = np.array([[0, 51, 255]], np.uint8).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(tiles_of(colours)[0], [[[[0, 0.2, 1]]]])
    tiles, words = tiles_of(colours[..., 1:])
    np.testing.assert_allclose(tiles, [[[[0.6, 0.6, 0.6]]]])
    assert words == "values 0 to 255, the mean of 2 channels"


def test_pixels_that_are_no_numbers_are_orange_and_told():
    pixels = np.array([0.0, np.nan, np.inf, 1.0]).reshape(1, 1, 4, 1)
    tiles, words = tiles_of(pixels)
    assert tiles[0, 0, [0, 3]].tolist() == [[0] * 3, [1] * 3]
    red, green, blue = tiles[0, 0, 1]
    assert red > green > blue
    assert tiles[0, 0, 2].tolist() == [red, green, blue]
    assert words == "values 0 to 1, 2 pixels not finite and orange"
    assert np.isfinite(tiles_of(np.full((1, 2, 2, 3), np.nan))[0]).all()


# ------------------------------------------------------------------------------------------------------------- mistakes


def some(count, names=None, **changes):
    data = numbered([place % 4 for place in range(count)])
    fields = {
        "images": data.images,
        "labels": data.labels,
        "predicted": (data.labels + 1) % 4,
        "probabilities": np.linspace(0.98, 0.5, count),
        "indices": np.arange(count),
        "class_names": names,
        "total": count,
        "judged": 1000,
    }
    return Mistakes(**{**fields, **changes})


def test_each_mistake_has_both_classes_and_the_probability(legible):
    made = mistakes(some(5))
    assert shown(made) == {(0, 0): 0, (0, 1): 1, (0, 2): 2, (0, 3): 3, (1, 0): 4}
    assert above(made)[0] == ["true 0, said 1, 98 %"]
    assert above(made)[3] == ["true 3, said 0, 62 %"]
    assert "5 mistakes on 1,000 images" in legible(made)
    assert made.alt.startswith("5 mistakes on 1,000 images: true 0, said 1, 98 %; true 1, said 2, 86 %;")


def test_long_names_take_three_lines(legible):
    names = ("[b] has quite a long name", "$x$ has quite a long name", "a dog", "c" * 50)
    made = mistakes(some(16, names))
    assert above(made)[2] == ["true a dog", f"said {'c' * 11}…{'c' * 7}", "92 %"]
    legible(made)
    assert "true [b] has quite a long name, said $x$ has quite a long name, 98 %" in made.alt


def test_where_not_all_are_shown_it_is_told(legible):
    made = mistakes(some(1, total=30))
    assert "30 mistakes on 1,000 images, the surest 1" in legible(made)


def test_no_mistakes_is_a_picture_too(legible):
    assert legible(mistakes(some(0))) == ["0 mistakes on 1,000 images."]
    assert mistakes(some(0, images=np.zeros((0, 4)))).alt == "0 mistakes on 1,000 images."


def test_nearly_sure_is_not_rounded_to_sure(legible):
    made = mistakes(some(3, probabilities=np.array([0.99996, 0.995, np.nan])))
    assert above(made) == {0: ["true 0, said 1, > 99.9 %"], 1: ["true 1, said 2, 99.5 %"], 2: ["true 2, said 3, ? %"]}
    legible(made)


def test_mistakes_among_rows_of_features_are_no_images():
    with pytest.raises(OptionError, match="rows of 4 features"):
        mistakes(some(3, images=np.zeros((3, 4))))


def test_words_hold_nothing_that_a_terminal_would_obey():
    made = images(numbered([0, 1], names=["\x1b[31mred", "a\u202eb"]))
    assert "[31mred (1) and ab (1)" in made.alt
