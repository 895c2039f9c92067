"""What tests of pictures ask of every picture: that its words can be read."""

from itertools import combinations

import matplotlib as mpl
import pytest
from matplotlib.text import Annotation, Text

from cnnkit.plot.picture import STYLE

HAIR = 1.0  # of a 144th of an inch: what rounding may put over an edge


def shown_texts(picture):
    """Every text that is drawn. Axes keep labels of ticks outside their limits, which are not."""
    labels = [
        tick.label1 for axes in picture.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()
    ]
    of_ticks = {id(text) for axes in picture.axes for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)}
    axes_labels = [axis.label for axes in picture.axes for axis in (axes.xaxis, axes.yaxis)]
    others = [text for text in picture.findobj(Text) if id(text) not in of_ticks]
    hidden = {id(text) for axes in picture.axes if not axes.axison for text in [*labels, *axes_labels]}
    found = [text for text in [*labels, *axes_labels, *others] if id(text) not in hidden]
    return [text for text in found if text.get_visible() and text.get_text() and not isinstance(text, Annotation)]


@pytest.fixture
def legible():
    """A function that fails where words of a picture are cut off, lie over each other or are set as a formula."""

    def check(picture):
        with mpl.rc_context(STYLE):
            picture.set_dpi(144)
            picture.canvas.draw()
            texts = shown_texts(picture)
            boxes = {text: text.get_window_extent() for text in texts}
        assert texts
        whole = picture.bbox
        for text, box in boxes.items():
            inside = box.x0 > -HAIR and box.y0 > -HAIR and box.x1 < whole.x1 + HAIR and box.y1 < whole.y1 + HAIR
            assert inside, f"{text.get_text()!r} is cut off: {box} in {whole}"
        for one, other in combinations(texts, 2):
            a, b = boxes[one], boxes[other]
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert wide < HAIR or high < HAIR, f"{one.get_text()!r} lies over {other.get_text()!r}"
        assert [text.get_text() for text in texts if "$" in text.get_text() and text.get_parse_math()] == []
        return [text.get_text() for text in texts]

    return check
