"""Reports of runs of other kinds: nothing wrong, no convolution, rows of numbers, very many classes, absent ones."""

import numpy as np

from cnnkit.report import document_of, write_report
from cnnkit.report.markdown import to_markdown

DENSE = """\
version = 1
input_shape = [4]
layers = [{ kind = "dense", units = UNITS }, { kind = "softmax" }]
"""


def halves(count):
    """Images all dark or all bright, which anything can tell apart."""
    labels = np.arange(count) % 2
    return (labels[:, None, None, None] * np.full((1, 8, 8, 1), 250)).astype(np.uint8), labels


def test_a_model_without_mistakes_and_without_kernels(train, read):
    (x_train, y_train), (x_test, y_test) = halves(64), halves(20)
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    run = train("mlp-1h", arrays, "--epochs", 12, "--optimizer", "adam", "--learning-rate", 0.01)
    page = read(run / "report.html")
    assert "mlp-1h classifies all 20 test images of data.npz correctly." in page.text
    assert "Every test image was given its class." in page.text
    assert "There are none among 20 test images." in page.text
    assert "What was learned holds for images that the model has not seen." in page.text
    assert "Kernels" not in page.text
    assert [given["alt"][:15] for given in page.all("img")] != []


def rows_of_numbers(count, classes):
    labels = np.arange(count) % classes
    return np.random.default_rng(count).random((count, 4)).astype(np.float32), labels


def test_rows_of_numbers_have_mistakes_in_a_table_and_no_picture_of_them(train, read):
    x, y = rows_of_numbers(60, 3)
    run = train(DENSE.replace("UNITS", "3"), {"x_train": x, "y_train": y, "x_test": x[:30], "y_test": y[:30]})
    page = read(run / "report.html")
    assert len(page.rows("mistakes")) == 16
    assert "own classifies" in page.text, "a model without a name is called after its file"
    assert "mistakes-picture" not in {given["id"] for given in page.all("figure")}


def test_very_many_classes_have_their_largest_mistakes_and_a_picture_instead_of_a_matrix(train, read):
    x, y = rows_of_numbers(160, 40)
    run = train(DENSE.replace("UNITS", "40"), {"x_train": x, "y_train": y, "x_test": x[:80], "y_test": y[:80]})
    page = read(run / "report.html")
    assert page.tables["matrix"][0] == ["Class", "Taken for", "Images"]
    assert len(page.tables["matrix"]) == 11
    counts = [int(row[2]) for row in page.tables["matrix"][1:]]
    assert counts == sorted(counts, reverse=True)
    assert "matrix-picture" in {given["id"] for given in page.all("figure")}
    assert len(page.rows("classes")) == 40
    assert "more; that precision is undefined and counts as 0." in page.text


def test_a_class_without_test_images_is_said(train, read):
    x, y = rows_of_numbers(60, 3)
    kept = y[:30] != 1
    arrays = {
        "x_train": x,
        "y_train": y,
        "x_test": x[:30][kept],
        "y_test": y[:30][kept],
        "class_names": ["a", "b", "c"],
    }
    page = read(train(DENSE.replace("UNITS", "3"), arrays) / "report.html")
    assert "There is no test image of b; that recall is undefined and counts as 0." in page.text
    assert page.rows("classes")["b"]["Images"] == "0"


def test_a_loss_that_is_infinite_is_a_dash(run):
    path = run / "metrics.json"
    text = path.read_text()
    start = text.index('"loss": ', text.index('"test": {', text.index('"train": {\n    "count"')))
    path.write_text(text[:start] + '"loss": null' + text[text.index(",", start) :])
    write_report(run)
    lines = [line for line in to_markdown(document_of([run])).splitlines() if line.startswith("| Test, macro")]
    assert lines[0].endswith("| \N{EN DASH} |")
