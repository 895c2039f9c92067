import numpy as np
import pytest

from cnnkit.arrays import check_images, check_labels, check_order, dtype_of, times
from cnnkit.errors import DataError, OptionError

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
SHAPE = (4, 5, 3)


def test_shapes_are_written_as_people_write_them():
    assert times((28, 28, 1)) == "28 x 28 x 1"
    assert times((7,)) == "7"


def test_precisions_name_numpy_types():
    assert dtype_of("float32") == FLOAT32
    assert dtype_of("float64") == FLOAT64


@pytest.mark.parametrize("name", ["float16", "double", "", None])
def test_other_precisions_are_refused(name):
    with pytest.raises(OptionError, match=f"precision is {name!r}; expected 'float32' or 'float64'"):
        dtype_of(name)


# -------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [("uint8", FLOAT32), ("float32", FLOAT32), ("uint8", FLOAT64), ("float32", FLOAT64), ("float64", FLOAT64)],
)
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_good_images_are_handed_on_as_they_are(dtype, precision, batch):
    images = np.zeros((batch, *SHAPE), dtype)
    assert check_images(images, SHAPE, precision) is images


def test_strange_strides_and_read_only_images_are_good_images():
    images = np.zeros((3, *SHAPE), np.float32, order="F")[::-1, ::-1]
    images.flags.writeable = False
    assert check_images(images, SHAPE, FLOAT32) is images


def test_dense_inputs_are_rows_of_features():
    rows = np.zeros((2, 7), np.float32)
    assert check_images(rows, (7,), FLOAT32) is rows


@pytest.mark.parametrize(
    ("shape", "wanted", "message"),
    [
        ((2, 5, 4, 3), (4, 5, 3), r"shape \(2, 5, 4, 3\), but the model takes 4 x 5 x 3 .* shape \(batch, 4, 5, 3\)"),
        ((4, 5, 3), (4, 5, 3), r"Add the batch axis: images\[numpy.newaxis\]"),
        ((2, 4, 5), (4, 5, 1), r"Add the channel axis: images\[..., numpy.newaxis\]"),
        ((4, 5), (4, 5, 1), r"Give an array of shape \(batch, 4, 5, 1\)"),
        ((), (4, 5, 1), r"images have shape \(\), but"),
        ((7,), (7,), r"Add the batch axis"),
        ((2, 8), (7,), r"the model takes 7 for each image. Give an array of shape \(batch, 7\)"),
    ],
)
def test_images_of_another_shape_are_refused_with_what_would_help(shape, wanted, message):
    with pytest.raises(DataError, match=message):
        check_images(np.zeros(shape, np.float32), wanted, FLOAT32)


def test_the_hint_about_an_axis_is_true():
    """What the messages say to do, done."""
    check_images(np.zeros((2, 4, 5), np.float32)[..., np.newaxis], (4, 5, 1), FLOAT32)
    check_images(np.zeros((4, 5, 3), np.float32)[np.newaxis], (4, 5, 3), FLOAT32)


@pytest.mark.parametrize(
    ("dtype", "precision", "message"),
    [
        (
            "float64",
            FLOAT32,
            r'images are float64, but a program in float32 precision takes .*images.astype\("float32"\)',
        ),
        ("float16", FLOAT64, r'takes uint8 or float32 or float64. Convert them first: images.astype\("float64"\)'),
        ("int64", FLOAT32, r'images are int64, .*images.astype\("uint8"\)'),
        ("bool", FLOAT32, r'images are bool, .*images.astype\("uint8"\)'),
        ("complex64", FLOAT32, "images are complex64"),
        ("object", FLOAT32, "images are object"),
    ],
)
def test_images_of_another_type_are_refused_and_not_converted(dtype, precision, message):
    with pytest.raises(DataError, match=message):
        check_images(np.zeros((2, *SHAPE), dtype), SHAPE, precision)


# -------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_good_labels_are_handed_on_as_they_are(dtype):
    labels = np.array([0, 2, 1], dtype)
    assert check_labels(labels, 3, 3) is labels


def test_a_list_of_labels_becomes_an_array_and_no_labels_are_good_for_no_images():
    assert check_labels([0, 1], 2, 2).tolist() == [0, 1]
    assert check_labels(np.zeros(0, int), 0, 2).shape == (0,)


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        (
            np.array([0, 1]),
            3,
            r"labels have shape \(2,\), but there are 3 images. Give one whole number for each image",
        ),
        (np.array([[0, 1]]), 1, r"labels have shape \(1, 2\), but there are 1 images"),
        (np.array(1), 1, r"labels have shape \(\)"),
        (np.array([0.0, 1.0]), 2, r"labels are float64; expected whole numbers. Convert .*astype\('int64'\)"),
        (np.array([True, False]), 2, "labels are bool; expected whole numbers"),
        (np.array(["a", "b"]), 2, "labels are str.*; expected whole numbers"),
        (
            np.array([0, 5, 9, 9]),
            4,
            r"labels\[2\] is 9, but the model has 4 classes, numbered 0 to 3. .* layer 10 units",
        ),
        (np.array([0, 4]), 2, r"labels\[1\] is 4, but .* give the model's last Dense layer 5 units"),
        (np.array([0, 1, -1]), 3, r"labels\[2\] is -1, but labels are numbered 0 to 3"),
        (np.array([9, -2, 0]), 3, r"labels\[1\] is -2, but labels are numbered 0 to 3. Correct the label"),
        (np.array([2**64 - 1], np.uint64), 1, rf"labels\[0\] is {2**64 - 1}, but"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, count, message):
    with pytest.raises(DataError, match=message):
        check_labels(labels, count, 4)


# --------------------------------------------------------------------------------------------------------------- orders


def test_an_order_of_places_that_are_there_comes_back():
    assert check_order(np.array([2, 0, 2]), 3, 2).tolist() == [2, 0, 2]
    assert check_order([], 3, 2).tolist() == []


@pytest.mark.parametrize("order", [[0, 3], [-1, 2]])
def test_a_place_out_of_range_is_refused(order):
    with pytest.raises(DataError, match=r"order goes from .* but the 3 images are 0 to 2"):
        check_order(np.array(order), 3, 2)


@pytest.mark.parametrize("order", [np.array([0.0, 1.0]), np.array([[0, 1]])])
def test_an_order_is_a_row_of_whole_numbers(order):
    with pytest.raises(DataError, match=r"expected whole numbers of shape \(n,\)"):
        check_order(order, 3, 2)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, None])
def test_a_batch_has_at_least_one_image(batch_size):
    with pytest.raises(OptionError, match=r"batch_size is .* expected a whole number of at least 1"):
        check_order(np.array([0]), 3, batch_size)
