"""What a notebook shows: HTML that is whole, takes the page's colours, and never lets a name be markup."""

import html.parser
import pickle
from dataclasses import replace

import numpy as np
import pytest

import cnnkit
from cnnkit import Conv2D, Dense, EpochRecord, Flatten, History, Metrics, Model, Softmax
from cnnkit.plugins import Availability, BackendStatus, backends

HOSTILE = '<script>alert("x")</script>&amp;'
FIGURES = {"loss": 0.5, "accuracy": 0.75, "precision": 0.7, "recall": 0.6, "f1": 0.65}
RECORD = EpochRecord(1, 8, 0.001, 1.25, FIGURES, None, 2.04, 0.5, best=False)


class Page(html.parser.HTMLParser):
    """Reads HTML back: the tables as rows of cells, all of its text, its tags and the styles they have."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tables, self.tags, self.attributes, self.text = [], [], set(), [], ""
        self.feed(text)
        self.close()
        assert self.open == [], "a tag was not closed"

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes += attributes
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} was not the last one opened"

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def classifier(**fields):
    return Model(**{"input_shape": (6, 6, 1), "layers": [Flatten(), Dense(units=3), Softmax()], **fields})


SHOWN = {
    "a model": lambda: classifier(name=HOSTILE),
    "a model that cannot be": lambda: classifier(name=HOSTILE, layers=[Conv2D(filters=1, kernel_size=9)]),
    "a history": lambda: History([RECORD, replace(RECORD, epoch=2, validation=FIGURES, best=True)]),
    "an empty history": History,
    "metrics": lambda: Metrics(np.eye(2, dtype=int), 0.5, (HOSTILE, "b")),
    "metrics with remarks": lambda: Metrics(np.diag([1, 0]), None, ("b", HOSTILE)),
    "metrics of many classes": lambda: Metrics(np.eye(30, dtype=int), 0.5, (HOSTILE, *map(str, range(29)))),
    "metrics of nothing": lambda: Metrics(np.zeros((2, 2), int), class_names=(HOSTILE, "b")),
    "a backend": lambda: BackendStatus(HOSTILE, "broken", HOSTILE, HOSTILE, (HOSTILE,), {HOSTILE: HOSTILE}, HOSTILE),
    "all backends": backends,
}


@pytest.mark.parametrize("what", SHOWN)
def test_what_is_shown_is_whole_plain_and_takes_the_colours_of_the_page(what):
    page = Page(SHOWN[what]()._repr_html_())
    assert page.tags <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "pre"}
    assert {name for name, _ in page.attributes} <= {"style"}
    assert {word.split(":")[0].strip() for _, style in page.attributes for word in style.split(";")} <= {
        "text-align",
        "white-space",
    }
    for table in page.tables:
        assert len({len(row) for row in table}) == 1


@pytest.mark.parametrize("what", [what for what in SHOWN if "history" not in what and what != "all backends"])
def test_a_strange_name_is_shown_as_it_is(what):
    assert HOSTILE in Page(SHOWN[what]()._repr_html_()).text


def test_a_listing_of_backends_keeps_what_a_strange_plugin_says_from_being_markup():
    listed = backends()
    listed["x"] = BackendStatus(HOSTILE, "no-device", HOSTILE, "Buy one", ("a", "b"))
    (table,) = Page(listed._repr_html_()).tables
    assert table[0] == ["backend", "state", "devices", "reason and fix"]
    assert table[-1] == ["x", "no-device", "a, b", f"{HOSTILE}. Buy one"]
    assert isinstance(listed, dict)
    assert [row[0] for row in table[1:-1]] == sorted(cnnkit.backends())


def test_a_model_shows_its_summary():
    model = classifier(name="net")
    assert model._repr_html_() == model.summary()._repr_html_()
    assert "net (one image, float32)" in Page(model._repr_html_()).text


def test_a_model_that_cannot_be_says_so_in_words():
    text = Page(classifier(name="net", layers=[Conv2D(filters=1, kernel_size=9)])._repr_html_()).text
    assert text.startswith("net\n")
    assert "layers[0]" in text
    assert "Traceback" not in text


def test_metrics_show_every_class_the_averages_and_the_confusion():
    confusion = np.array([[8, 2, 0], [1, 9, 0], [0, 5, 1005]])
    page = Page(Metrics(confusion, 0.25, ("a", "b", "c"))._repr_html_())
    figures, matrix = page.tables
    assert "accuracy 0.9922 on 1,030 images, loss 0.2500" in page.text
    assert figures[0] == ["", "precision", "recall", "f1", "images"]
    assert [row[0] for row in figures[1:]] == ["a", "b", "c", "macro average", "weighted average"]
    assert figures[2] == ["b", "0.5625", "0.9000", "0.6923", "10"]
    assert matrix == [
        ["", "a", "b", "c"],
        ["a", "8", "2", "0"],
        ["b", "1", "9", "0"],
        ["c", "0", "5", "1,005"],
    ]


def test_metrics_show_what_is_undefined_and_no_matrix_too_large_to_read():
    assert "recall of b (no images)" in Page(Metrics(np.diag([1, 0]), None, ("a", "b"))._repr_html_()).text
    assert len(Page(Metrics(np.eye(20, dtype=int))._repr_html_()).tables) == 2
    page = Page(Metrics(np.eye(21, dtype=int))._repr_html_())
    assert len(page.tables) == 1
    assert "The confusion matrix of 21 classes is in .confusion." in page.text


def test_a_backend_shows_what_a_plugin_answered_and_leaves_out_what_there_is_not():
    status = BackendStatus("fancy", "ready", devices=("cpu", "gpu:0"), versions={"fancy": "1.2", "lib": "3"})
    page = Page(status._repr_html_())
    assert page.tables == [[["state", "ready"], ["devices", "cpu, gpu:0"], ["versions", "fancy 1.2, lib 3"]]]
    assert "backend fancy" in page.text
    asked = Availability.missing("fancy", "Install it")
    (table,) = Page(
        BackendStatus(
            "f", asked.state, asked.reason, asked.fix, distribution="f", distribution_version="1"
        )._repr_html_()
    ).tables
    assert table[1:] == [
        ["reason", "needs fancy, which is not installed"],
        ["fix", "Install it"],
        ["plugin", "f 1"],
    ]


# ------------------------------------------------------------------------------------------------------------ history


def test_a_history_is_the_tuple_of_its_records():
    history = History([RECORD, replace(RECORD, epoch=2)])
    assert history == (RECORD, replace(RECORD, epoch=2))
    assert [record.epoch for record in history] == [1, 2]
    assert history[:1] == (RECORD,)
    again = pickle.loads(pickle.dumps(history))  # noqa: S301 - our own
    assert type(again) is History
    assert again == history


def test_a_history_has_a_column_for_what_was_measured_and_marks_the_best_epoch():
    history = History(
        [
            replace(RECORD, validation=FIGURES, best=True),
            replace(RECORD, epoch=2, train=None, validation={**FIGURES, "loss": 0.25}, best=True),
            replace(RECORD, epoch=3, validation=FIGURES),
        ]
    )
    (table,) = Page(history._repr_html_()).tables
    head = "epoch,running loss,train loss,train accuracy,validation loss,validation accuracy,learning rate,s to train,"
    assert table[0] == head.split(",")
    assert table[1] == ["1", "1.2500", "0.5000", "0.7500", "0.5000", "0.7500", "0.001", "2.0", ""]
    assert table[2] == ["2", "1.2500", "", "", "0.2500", "0.7500", "0.001", "2.0", "best"]
    assert [row[-1] for row in table[1:]] == ["", "best", ""]
    (table,) = Page(History([replace(RECORD, train=None)])._repr_html_()).tables
    assert table == [["epoch", "running loss", "learning rate", "s to train"], ["1", "1.2500", "0.001", "2.0"]]


def test_a_history_prints_as_a_table():
    history = History([RECORD, replace(RECORD, epoch=10, running_loss=0.5, learning_rate=1e-05)])
    assert str(history) == repr(history)
    assert str(history) == (
        "epoch  running loss  train loss  train accuracy  learning rate  s to train\n"
        "    1        1.2500      0.5000          0.7500          0.001         2.0\n"
        "   10        0.5000      0.5000          0.7500          1e-05         2.0"
    )
    assert str(History()) == "no epoch yet"


def test_a_run_has_a_history():
    images = np.random.default_rng(0).random((12, 6, 6, 1), dtype=np.float32)
    run = cnnkit.fit(classifier(), cnnkit.Dataset(images, np.arange(12) % 3), epochs=2)
    assert type(run.history) is cnnkit.History
    assert [record.epoch for record in run.history] == [1, 2]


def test_a_run_is_one_line_that_says_what_became_of_it(tmp_path):
    model = Model(name="small", input_shape=(2, 2, 1), layers=[Flatten(), Dense(units=2), Softmax()])
    data = cnnkit.Dataset(np.zeros((4, 2, 2, 1), np.float32), np.arange(4) % 2)
    run = cnnkit.fit(model, data, backend="numpy", out=tmp_path / "here")
    assert run.message.startswith("Trained 1 epoch")
    said = f"Run(model 'small' on numpy, in {tmp_path / 'here'}: {run.message} See .history, .state and .model.)"
    assert repr(run) == said
