"""A confusion matrix shows its counts and names as they are, from one class to many."""

import matplotlib as mpl
import numpy as np
import pytest

from cnnkit import Metrics
from cnnkit.plot import confusion_matrix

COUNTS = np.array([[8, 1, 1], [0, 0, 0], [3, 2, 5]])


def written(made):
    """The numbers in the cells, by (row, column)."""
    return {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in made.axes[0].texts
    }


def test_rows_are_true_and_columns_said(legible):
    made = confusion_matrix(Metrics(COUNTS))
    found = written(made)
    assert found[0, 1] == "1"
    assert found[2, 0] == "3"
    assert found[2, 2] == "5"
    assert made.axes[0].get_ylabel() == "true class"
    assert made.axes[0].yaxis_inverted()  # the first class is in the first row, as people read
    legible(made)


def test_the_shade_is_the_share_of_the_row_and_an_absent_class_has_none():
    shares = confusion_matrix(Metrics(COUNTS)).axes[0].images[0].get_array()
    np.testing.assert_allclose(shares[0], [0.8, 0.1, 0.1])
    np.testing.assert_allclose(shares[2], [0.3, 0.2, 0.5])
    assert shares.mask.tolist() == [[False] * 3, [True] * 3, [False] * 3]


def test_an_absent_class_says_so_in_its_row_and_in_the_words(legible):
    made = confusion_matrix(Metrics(COUNTS, class_names=["cat", "dog", "cow"]))
    assert written(made)[1, 1] == "no images"
    assert "No images of dog." in made.alt
    legible(made)


def test_the_words_tell_the_worst_confusions():
    alt = confusion_matrix(Metrics(COUNTS, class_names=["cat", "dog", "cow"])).alt
    assert "13 of 20 images right" in alt
    assert (
        "Most often wrong: cow taken for cat (3 images), cow taken for dog (2 images), cat taken for dog (1 image)."
        in alt
    )
    assert "found least is cow, with 50 % of its images" in alt


def test_a_matrix_without_mistakes_says_so():
    alt = confusion_matrix(Metrics(np.diag([3, 4]))).alt
    assert (
        alt
        == "Confusion matrix of 2 classes, rows true, columns said: 7 of 7 images right. No image is taken for another class."
    )


def test_names_are_shown_as_they_are(legible):
    names = ["[b]", "$x$", "two\nlines", "a name that is too long for any axis of any picture", "a_b^c"]
    made = confusion_matrix(Metrics(np.eye(5, dtype=int), class_names=names))
    shown = legible(made)
    assert {"[b]", "$x$", "two lines", "a_b^c"} <= set(shown)
    assert any(text.startswith("a name that") and text.endswith("picture") and len(text) <= 24 for text in shown)


@pytest.mark.parametrize("classes", [1, 2, 10, 20])
def test_up_to_20_classes_the_counts_are_inside_their_cells(classes, legible):
    counts = np.full((classes, classes), 7)
    np.fill_diagonal(counts, 60_000)
    made = confusion_matrix(Metrics(counts, class_names=[f"class number {number}" for number in range(classes)]))
    legible(made)
    axes = made.axes[0]
    ((left, _), (right, _)) = axes.transData.transform([(-0.5, 0), (0.5, 0)])
    widths = [text.get_window_extent().width for text in axes.texts]
    assert len(widths) == classes**2
    assert max(widths) <= right - left


def test_more_classes_have_no_numbers_but_their_shades(legible):
    made = confusion_matrix(Metrics(np.eye(21, dtype=int)))
    assert len(made.axes[0].texts) == 0
    assert made.axes[0].images[0].get_array()[20, 20] == 1
    legible(made)
    legible(confusion_matrix(Metrics(np.eye(100, dtype=int))))


def test_up_to_60_classes_are_named(legible):
    for classes, named in ((60, True), (61, False)):
        names = [f"name {number}" for number in range(classes)]
        texts = legible(confusion_matrix(Metrics(np.eye(classes, dtype=int), class_names=names)))
        assert ("name 59" in texts) == named


def test_numbers_can_be_told_from_their_shade():
    counts = np.array([[row, 100 - row] for row in range(0, 101, 10)])
    made = confusion_matrix(Metrics(np.pad(counts, ((0, 0), (0, 9)))))
    shares, shade = made.axes[0].images[0].get_array(), mpl.colormaps["Blues"]

    def luminance(colour):  # WCAG 2, "relative luminance"
        parts = np.array(mpl.colors.to_rgb(colour))
        return np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    for text in made.axes[0].texts:
        column, row = map(round, text.get_position())
        light, dark = sorted([luminance(text.get_color()), luminance(shade(shares[row, column]))], reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.5


def test_no_images_at_all_is_drawn(legible):
    made = confusion_matrix(Metrics(np.zeros((3, 3), int)))
    assert legible(made).count("no images") == 4
    assert "0 of 0 images right. No images of 0, 1 and 2." in made.alt
