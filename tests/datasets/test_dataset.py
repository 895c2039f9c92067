"""What a Dataset accepts, and how it is cut in two."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.datasets import Dataset
from cnnkit.errors import DataError, OptionError


def images(count, dtype=np.uint8):
    return np.zeros((count, 2, 3, 1), dtype=dtype)


def numbered(labels):
    """A data set whose every image is its own number, so that one sees where it went."""
    return Dataset(np.arange(len(labels), dtype=np.float64)[:, np.newaxis], labels)


def ids(data):
    return data.images[:, 0].astype(int).tolist()


# ------------------------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_images_are_kept_as_they_are(dtype):
    given_images = images(2, dtype)
    data = Dataset(given_images, [0, 1])
    assert data.images is given_images
    assert data.images.dtype == dtype


def test_nan_and_infinity_in_images_go_through():
    data = Dataset(np.array([[np.nan, np.inf]], dtype=np.float32), [0])
    assert np.isnan(data.images[0, 0])
    assert np.isinf(data.images[0, 1])


def test_a_dataset_knows_its_length_shape_and_classes():
    data = Dataset(images(3), [0, 4, 1])
    assert (len(data), data.image_shape, data.classes) == (3, (2, 3, 1), 5)
    assert Dataset(images(3), [0, 1, 1], ["a", "b", "c"]).classes == 3
    assert Dataset(images(0), np.zeros(0, int)).classes == 1
    assert repr(data) == "Dataset(3 images (2, 3, 1), uint8, 5 classes)"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 3, 4), np.uint8), r"shape \(2, 3, 4\).*Add the channel axis: images\[\.\.\., numpy\.newaxis\]"),
        (np.zeros(2, np.uint8), r"shape \(2,\); expected \(n, height, width, channels\) or \(n, features\)"),
        (np.zeros((2, 0, 4, 1), np.uint8), r"shape \(2, 0, 4, 1\): there is nothing in an image"),
        (np.zeros((2, 3), np.int64), r'images are int64; .*astype\("uint8"\) if they are 0 to 255'),
        (np.zeros((2, 3), bool), r"images are bool; expected uint8, float32 or float64"),
        (np.zeros((2, 3), np.float16), r'images are float16; .*images\.astype\("float32"\)'),
        (np.zeros((2, 3), ">f4"), r'images are >f4; .*images\.astype\("float32"\)'),
        (np.zeros((2, 3), complex), r"images are complex128; expected uint8"),
        ([["a"], ["b"]], r"images are <U1; expected uint8"),
        (np.array([[None], [1]], object), r"images are an array of Python objects.*numpy\.stack"),
        ([[1, 2], [3]], r"images do not make one NumPy array"),
    ],
)
def test_images_of_another_kind_are_refused_with_the_cure(wrong, message):
    with pytest.raises(DataError, match=message):
        Dataset(wrong, [0, 1])


# ------------------------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64, np.int64])
def test_labels_of_every_whole_number_type_become_int64(dtype):
    data = Dataset(images(3), np.array([2, 0, 1], dtype=dtype))
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, bool])
def test_one_hot_labels_equal_the_numbers_of_their_classes(dtype):
    one_hot = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=dtype)
    data = Dataset(images(3), one_hot, ["a", "b", "c"])
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([0, 1, 1], r"there are 2 images but 3 labels"),
        ([[0, 1]], r"there are 2 images but 1 labels"),
        ([0, -1], r"labels\[1\] is -1; expected whole numbers from 0\. Correct the label"),
        (np.array([0, 2**63], np.uint64), r"labels\[1\] is 9223372036854775808; expected whole numbers"),
        ([0, np.nan], r"labels\[1\] is nan; expected a whole number"),
        ([np.inf, 0], r"labels\[0\] is inf; expected a whole number"),
        ([0.0, 1.0], r'labels are float64; expected whole numbers\. Convert them first: labels\.astype\("int64"\)'),
        ([0.0, 1.5], r"labels\[1\] is 1\.5; expected the number of a class"),
        ([False, True], r'labels are bool; expected whole numbers.*labels\.astype\("int64"\)'),
        (["cat", "dog"], r"labels are <U3; expected whole numbers"),
        ([0j, 1j], r"labels are complex128; expected whole numbers"),
        (np.array([0, None], object), r"labels are an array of Python objects"),
        ([[[0]], [[1]]], r"labels have shape \(2, 1, 1\); expected \(n,\) or one-hot"),
        ([[0], [1]], r"labels have shape \(2, 1\).*give labels\[:, 0\]"),
        ([[1, 0], [0, 0]], r"labels\[1\] is \[0, 0\]; expected a one-hot row"),
        ([[1, 0], [1, 1]], r"labels\[1\] is \[1, 1\]; expected a one-hot row"),
        ([[1, 0], [0.3, 0.7]], r"labels\[1\] is \[0\.3, 0\.7\]; expected a one-hot row.*soft or several"),
        ([[0.5, 1], [0, 1]], r"labels\[0\] is \[0\.5, 1\. \]; expected a one-hot row"),
        ([[2, 0], [0, 1]], r"labels\[0\] is \[2, 0\]; expected a one-hot row"),
        ([[1, 2], [0, 1]], r"labels\[0\] is \[1, 2\]; expected a one-hot row"),
        ([[1, 0], [np.nan, 1]], r"labels\[1\] is \[nan,  ?1\.?\]; expected a one-hot row"),
    ],
)
def test_labels_of_another_kind_are_refused_with_the_place(wrong, message):
    with pytest.raises(DataError, match=message):
        Dataset(images(2), wrong)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [0, 2],
            r"labels\[1\] is 2; expected whole numbers from 0 to 1, as class_names has 2 names\. .*name its class",
        ),
        ([-3, 1], r"labels\[0\] is -3; expected whole numbers from 0 to 1"),
        ([[1, 0, 0], [0, 1, 0]], r"one-hot labels have 3 columns, but class_names has 2 names"),
    ],
)
def test_labels_beyond_the_class_names_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        Dataset(images(2), labels, ["cat", "dog"])


# ------------------------------------------------------------------------------------------------------- class names


def test_class_names_become_a_tuple_of_strings():
    names = Dataset(images(1), [0], np.array(["cat", "dog"])).class_names
    assert names == ("cat", "dog")
    assert [type(name) for name in names] == [str, str]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("cat", r"class_names is 'cat'; expected a list of names"),
        ([], r"class_names is \[\]; expected a list of names"),
        (["cat", 1], r"class_names is \['cat', 1\]; expected a list of names"),
        (["cat", ""], r"class_names is \['cat', ''\]; expected a list of names"),
        (["cat", "dog", "cat"], r"class_names has 'cat' 2 times"),
    ],
)
def test_class_names_of_another_kind_are_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        Dataset(images(1), [0], wrong)


# ------------------------------------------------------------------------------------------------------ take, limit


def test_take_gives_the_images_in_the_order_asked_for_as_a_copy():
    data = Dataset(np.array([[10.0], [11.0], [12.0]]), [0, 1, 2], ["a", "b", "c"])
    taken = data.take([2, 0, 2])
    assert taken.images[:, 0].tolist() == [12, 10, 12]
    assert taken.labels.tolist() == [2, 0, 2]
    assert taken.class_names == ("a", "b", "c")
    taken.images[0] = -1
    assert data.images[2, 0] == 12
    assert len(data.take([])) == 0


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 3], r"indices\[1\] is 3, but there are 3 images"),
        ([-1], r"indices\[0\] is -1"),
        ([True, False, True], r"indices are bool .*numpy\.flatnonzero\(mask\)"),
        ([0.0], r"indices are float64"),
        ([[0]], r"indices are int64 of shape \(1, 1\)"),
    ],
)
def test_take_refuses_other_indices(indices, message):
    with pytest.raises(OptionError, match=message):
        numbered([0, 1, 2]).take(indices)


def test_limit_gives_the_first_images_or_all():
    data = Dataset(np.arange(4.0)[:, np.newaxis], [0, 0, 1, 1], ["a", "b"])
    assert ids(data.limit(3)) == [0, 1, 2]
    assert data.limit(3).class_names == ("a", "b")
    assert ids(data.limit(9)) == [0, 1, 2, 3]
    assert np.shares_memory(data.limit(3).images, data.images)


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "3"])
def test_limit_refuses_what_is_no_count(count):
    with pytest.raises(OptionError, match=r"limit is .*; expected a whole number of at least 1"):
        numbered([0, 1]).limit(count)


# ------------------------------------------------------------------------------------------------------------- split

some_labels = st.lists(st.integers(0, 5), min_size=2, max_size=60)
some_fraction = st.floats(0.01, 0.99)


@given(some_labels, some_fraction, st.integers(0, 3))
@settings(deadline=None)
def test_split_loses_nothing_doubles_nothing_and_keeps_the_order(labels, fraction, seed):
    data = numbered(labels)
    rest, part = data.split(fraction, seed)
    assert sorted(ids(rest) + ids(part)) == list(range(len(labels)))
    for side in (rest, part):
        assert ids(side) == sorted(ids(side))
        assert side.labels.tolist() == [labels[place] for place in ids(side)]
        assert len(side) > 0


@given(some_labels, some_fraction)
@settings(deadline=None)
def test_split_gives_every_class_its_share_within_one_image_and_both_sides_some(labels, fraction):
    rest, part = numbered(labels).split(fraction)
    for label in set(labels):
        size, there, here = (side.count(label) for side in (labels, rest.labels.tolist(), part.labels.tolist()))
        assert abs(here - size * fraction) < 1
        assert size < 2 or (there > 0 and here > 0)


@given(st.lists(st.integers(8, 30), min_size=1, max_size=6), st.floats(0.2, 0.8))
@settings(deadline=None)
def test_split_is_as_near_to_the_fraction_as_whole_images_can_be(sizes, fraction):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    _, part = numbered(labels).split(fraction)
    assert abs(len(part) - fraction * len(labels)) <= 0.5 + 1e-9


def test_split_rounds_by_largest_remainder():
    # Shares of 1/4: 2.5, 2.75 and 3.25, together 8.5, which rounds to 8; the one left over goes to the 0.75.
    labels = np.repeat([0, 1, 2], [10, 11, 13])
    _, part = numbered(labels).split(0.25)
    assert np.bincount(part.labels).tolist() == [2, 3, 3]


def test_split_of_sorted_data_has_every_class_on_both_sides():
    # The last fifth, unshuffled, would be class 4 alone.
    rest, part = numbered(np.repeat(np.arange(5), 20)).split(0.2)
    assert np.bincount(rest.labels).tolist() == [16] * 5
    assert np.bincount(part.labels).tolist() == [4] * 5


def test_the_seed_decides_the_split():
    data = numbered(np.arange(100) % 4)
    once, again, other = (ids(data.split(0.3, seed)[1]) for seed in (7, 7, 8))
    assert once == again
    assert once != other


def test_split_draws_at_random_within_a_class():
    drawn = [ids(numbered([0] * 20).split(0.25, seed)[1]) for seed in range(200)]
    often = np.bincount(np.concatenate(drawn), minlength=20)
    assert often.min() > 25  # expected 50 each, standard deviation 6
    assert often.max() < 75


def test_split_keeps_the_class_names():
    rest, part = Dataset(images(4), [0, 0, 1, 1], ["a", "b"]).split(0.5)
    assert rest.class_names == part.class_names == ("a", "b")


@pytest.mark.parametrize("fraction", [0, 1, 0.0, 1.0, -0.1, 1.5, float("nan"), True, "0.2", None])
def test_split_refuses_what_is_no_fraction(fraction):
    with pytest.raises(OptionError, match=r"fraction is .*; expected a number between 0 and 1"):
        numbered([0, 1]).split(fraction)


@pytest.mark.parametrize("count", [0, 1])
def test_split_refuses_data_that_cannot_be_cut_in_two(count):
    with pytest.raises(DataError, match=rf"the data set has {count} image\(s\)\. Give at least 2"):
        Dataset(images(count), np.zeros(count, int)).split(0.5)


def test_split_refuses_a_seed_that_is_none():
    with pytest.raises(OptionError, match=r"seed is -1"):
        numbered([0, 1]).split(0.5, seed=-1)
