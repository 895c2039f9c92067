import html.parser
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Softmax,
)

NET = Model(
    name="a <b>net</b>",
    input_shape=(20, 16, 3),
    layers=[
        Rescale(scale=1 / 255),
        Conv2D(filters=4, kernel_size=(3, 5), strides=(2, 1), padding="same", activation="relu"),
        Conv2D(filters=2, kernel_size=3, dilation=(1, 2), use_bias=False),
        MaxPool2D(pool_size=(2, 3)),
        AvgPool2D(pool_size=2, strides=1),
        Dropout(rate=0.5),
        Flatten(),
        Dense(units=10),
        Softmax(),
    ],
)

BY_HAND = [
    # kind, output shape, parameters, multiply-adds, receptive field
    ("rescale", (20, 16, 3), 0, 0, (1, 1)),
    ("conv2d", (10, 16, 4), 3 * 5 * 3 * 4 + 4, 3 * 5 * 3 * 10 * 16 * 4, (3, 5)),
    ("conv2d", (8, 12, 2), 3 * 3 * 4 * 2, 3 * 3 * 4 * 8 * 12 * 2, (3 + 2 * 2, 5 + 4)),  # rows are 2 apart
    ("max_pool2d", (4, 4, 2), 0, 0, (7 + 1 * 2, 9 + 2)),
    ("avg_pool2d", (3, 3, 2), 0, 0, (9 + 1 * 4, 11 + 1 * 3)),  # rows are 2 * 2 apart, columns 3
    ("dropout", (3, 3, 2), 0, 0, (13, 14)),
    ("flatten", (18,), 0, 0, (13, 14)),
    ("dense", (10,), 18 * 10 + 10, 18 * 10, (20, 16)),
    ("softmax", (10,), 0, 0, (20, 16)),
]


def test_every_number_of_a_small_net_worked_out_by_hand():
    found = [
        (row.kind, row.output_shape, row.parameters, row.multiply_adds, row.receptive_field)
        for row in NET.summary().layers
    ]
    assert found == BY_HAND
    assert [row.index for row in NET.summary().layers] == list(range(9))


def test_activations_take_four_bytes_a_value():
    values = [960, 640, 192, 32, 18, 18, 18, 10, 10]
    assert [row.activation_bytes for row in NET.summary().layers] == [4 * count for count in values]


def test_the_totals_are_those_of_all_layers():
    summary = NET.summary()
    assert summary.parameters == 184 + 72 + 190
    assert summary.multiply_adds == 28_800 + 6_912 + 180
    assert summary.activation_bytes == 4 * 1898


def test_a_dense_model_has_no_receptive_field():
    rows = Model(input_shape=(4,), layers=[Dense(units=3), ReLU()]).summary().layers
    assert [(row.parameters, row.multiply_adds, row.receptive_field) for row in rows] == [(15, 12, None), (0, 0, None)]


def test_colours_made_grey_cost_no_parameters_and_look_at_one_pixel():
    (row,) = Model(input_shape=(4, 4, 3), layers=[Grayscale()]).summary().layers
    assert (row.output_shape, row.parameters, row.receptive_field) == ((4, 4, 1), 0, (1, 1))


steps = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None)
@given(st.lists(steps, min_size=1, max_size=3), st.booleans())
def test_the_receptive_field_reaches_from_the_first_to_the_last_pixel_that_counts(chain, upright):
    """Follow one output value back through the layers, pixel by pixel."""
    seen = {0}
    for kernel, stride, dilation in reversed(chain):
        seen = {at * stride + tap * dilation for at in seen for tap in range(kernel)}
    size = max(seen) + 1

    def pair(number):
        return (number, 1) if upright else (1, number)

    layers = [
        Conv2D(filters=1, kernel_size=pair(kernel), strides=pair(stride), dilation=pair(dilation))
        for kernel, stride, dilation in chain
    ]
    model = Model(input_shape=(*pair(size), 1), layers=layers)
    assert model.summary().layers[-1].receptive_field == pair(size)


def test_the_printed_table_shows_every_layer_and_the_totals():
    lines = str(NET.summary()).splitlines()
    assert lines[0] == "a <b>net</b> (one image, float32)"
    assert lines[2].split() == [
        "layer",
        "settings",
        "output",
        "parameters",
        "multiply-adds",
        "activations",
        "receptive",
        "field",
    ]
    assert lines[4].split() == ["input", "20", "x", "16", "x", "3"]
    assert [line.split()[:2] for line in lines[5:14]] == [[str(at), kind] for at, (kind, *_) in enumerate(BY_HAND)]
    assert "filters=4 kernel_size=(3,5) strides=(2,1) padding=same activation=relu  10 x 16 x 4" in lines[6]
    assert lines[6].split()[-7:] == ["184", "28,800", "2.5", "KiB", "3", "x", "5"]
    assert "filters=2 kernel_size=3 dilation=(1,2) use_bias=False" in lines[7]
    assert "pool_size=2 strides=1" in lines[9]
    assert "scale=0.003922" in lines[5]
    assert lines[-1].split() == ["total", "446", "35,892", "7.4", "KiB"]
    assert repr(NET.summary()) == str(NET.summary())


def test_columns_of_the_printed_table_stand_below_one_another():
    lines = str(NET.summary()).splitlines()
    starts = {lines[4].index("20 x 16"), lines[6].index("10 x 16"), lines[8].index("4 x 4")}
    assert starts == {lines[2].index("output")}
    ends = {lines[6].index("184") + 3, lines[7].index(" 72 ") + 3, lines[-1].index("446") + 3}
    assert ends == {lines[2].index("parameters") + len("parameters")}


def test_a_pool_shows_its_size_though_it_is_the_default():
    row = Model(input_shape=(4, 4, 1), layers=[MaxPool2D()]).summary().layers[0]
    assert row.settings == "pool_size=2"


def test_json_holds_the_same_numbers():
    data = json.loads(NET.summary().to_json())
    assert data["name"] == "a <b>net</b>"
    assert data["input_shape"] == [20, 16, 3]
    assert (data["parameters"], data["multiply_adds"], data["activation_bytes"]) == (446, 35_892, 7592)
    assert [
        (
            row["kind"],
            tuple(row["output_shape"]),
            row["parameters"],
            row["multiply_adds"],
            tuple(row["receptive_field"]),
        )
        for row in data["layers"]
    ] == BY_HAND


class Tags(html.parser.HTMLParser):
    """Reads the table back."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.cells, self.caption = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, _attributes):
        self.seen.append(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_data(self, data):
        if self.seen[-1] in ("th", "td"):
            self.cells[-1] += data
        else:
            self.caption += data


def test_a_notebook_shows_the_same_table_and_a_name_is_never_markup():
    read = Tags(NET.summary()._repr_html_())
    assert read.caption == "a <b>net</b> (one image, float32)"
    assert set(read.seen) == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert len(read.cells) == 8 * (1 + 1 + 9 + 1)
    assert read.cells[16 + 8 : 16 + 16] == [
        "1",
        "conv2d",
        "filters=4 kernel_size=(3,5) strides=(2,1) padding=same activation=relu",
        "10 x 16 x 4",
        "184",
        "28,800",
        "2.5 KiB",
        "3 x 5",
    ]
    assert read.cells[-8:] == ["", "total", "", "", "446", "35,892", "7.4 KiB", ""]


@pytest.mark.parametrize(("features", "text"), [(255, "1,020 B"), (256, "1.0 KiB"), (300_000, "1,171.9 KiB")])
def test_memory_is_written_in_bytes_and_kibibytes(features, text):
    assert f"  {text}" in str(Model(input_shape=(features,), layers=[ReLU()]).summary())


def test_a_model_without_a_name_is_called_model():
    summary = Model(input_shape=(4,), layers=[ReLU()]).summary()
    assert str(summary).startswith("model (one image, float32)\n")
    assert "<caption>model (one image" in summary._repr_html_()


def test_where_the_table_is_too_wide_the_settings_stand_below_their_layer_and_nothing_is_lost():
    summary = NET.summary()
    full, narrow = str(summary), summary.text(80)
    assert summary.text(1000) == full
    assert max(map(len, full.splitlines())) > 80 >= max(map(len, narrow.splitlines()))
    renamed = full.replace("receptive field", "field").replace("settings", "").replace("─", "")
    assert sorted(narrow.replace("─", "").split()) == sorted(renamed.split())
    lines = [line.strip() for line in narrow.splitlines()]
    conv = next(number for number, line in enumerate(lines) if line.startswith("1  conv2d"))
    assert lines[conv + 1] == "filters=4 kernel_size=(3,5) strides=(2,1) padding=same activation=relu"
    assert lines[conv + 2].startswith("2  conv2d")
