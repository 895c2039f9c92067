"""A picture is a file with words in it, the same every time, and never half a file."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from cnnkit import CnnkitError, OptionError
from cnnkit.plot import Picture
from cnnkit.plot.picture import picture


@picture
def line(alt="A line from 1 & up to <3> \\1"):
    made = Picture(4, 3)
    made.subplots().plot([1, 2, 3])
    made.alt = alt
    return made


def test_a_png_has_its_words_as_description(tmp_path):
    path = line().save(tmp_path / "line.png")
    with Image.open(path) as image:
        assert image.size == (576, 432)  # 4 x 3 inches of 144 dots
        assert image.info["Description"] == "A line from 1 & up to <3> \\1"


def test_an_svg_has_its_words_as_title(tmp_path):
    text = line().save(tmp_path / "line.svg").read_text()
    assert '<svg role="img"' in text
    assert "<title>A line from 1 &amp; up to &lt;3&gt; \\1</title>" in text


def test_the_same_picture_is_the_same_file():
    assert line().svg() == line().svg()
    assert line().png() == line().png()


def test_the_settings_of_a_user_neither_change_a_picture_nor_are_changed():
    expected = line().png()
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):
        assert line().png() == expected
        assert mpl.rcParams["font.size"] == 30


def test_drawing_does_not_open_what_pyplot_manages():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    line()
    assert plt.get_fignums() == before


def test_a_notebook_shows_the_words():
    assert 'alt="A line from 1 &amp; up to &lt;3&gt; \\1"' in line()._repr_html_()


@pytest.mark.parametrize("name", ["line.jpeg", "line"])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(OptionError, match=r"expected \.png or \.svg"):
        line().save(tmp_path / name)


def test_a_place_that_is_not_there_is_our_error(tmp_path):
    with pytest.raises(CnnkitError, match="cannot be written: No such file"):
        line().save(tmp_path / "none" / "line.png")


def test_a_picture_without_words_is_a_fault_of_its_author():
    with pytest.raises(AssertionError, match="no words"):
        line(alt="")


def test_light_and_dark_tell_the_lines_apart_in_grey():
    from cnnkit.plot.picture import SERIES

    lightness = [np.dot(mpl.colors.to_rgb(colour), (0.299, 0.587, 0.114)) for colour in SERIES[:2]]
    assert abs(lightness[0] - lightness[1]) > 0.3
