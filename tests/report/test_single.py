"""The report of a run: that it says what scikit-learn, the files of the run and arithmetic say."""

import dataclasses
import functools
import json
import operator
import re
import shlex
import shutil

import numpy as np
import pytest
import sklearn.metrics

import cnnkit
from cnnkit.errors import CheckpointError, TrainingError
from cnnkit.report import document_of, pictures, write_report
from cnnkit.report.markdown import text, to_markdown


@pytest.fixture
def page(studio, read):
    return read(studio / "a run" / "report.html")


@pytest.fixture
def figures(studio):
    return json.loads((studio / "a run" / "metrics.json").read_text())


@pytest.fixture
def judged(studio):
    """True classes and probabilities of the images that the run learned from, and of the test images."""
    found = cnnkit.load(studio / "a run" / "model.safetensors")
    train, test = cnnkit.load_dataset(studio / "blocks.npz")
    train, _ = train.split(0.25, 3)
    return {
        name: (data.labels, cnnkit.predict(found.model, found.parameters, data.images))
        for name, data in (("Training", train), ("Test", test))
    }


# ------------------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("part", ["Training", "Test"])
@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_the_table_of_results_has_the_figures_of_scikit_learn(page, judged, part, average):
    labels, probabilities = judged[part]
    taken = probabilities.argmax(axis=1)
    *expected, _ = sklearn.metrics.precision_recall_fscore_support(labels, taken, average=average, zero_division=0)
    row = page.rows("results")[f"{part}, {average} average"]
    assert [row[name] for name in ("Precision", "Recall", "F1")] == [f"{value:.4f}" for value in expected]
    assert row["Accuracy"] == f"{(labels == taken).mean():.4f}"
    assert float(row["Loss"]) == pytest.approx(sklearn.metrics.log_loss(labels, probabilities), abs=6e-5)


def test_the_first_lines_say_what_came_of_it(page, judged):
    accuracy = {part: (labels == found.argmax(axis=1)).mean() for part, (labels, found) in judged.items()}
    assert 0.3 < accuracy["Test"] < 1, "the run must make mistakes for this file to test anything"
    facts = page.facts()
    assert facts["Test accuracy"] == f"{accuracy['Test']:.4f}"
    assert facts["Training accuracy"] == f"{accuracy['Training']:.4f}"
    assert facts["Gap"] == f"{accuracy['Training'] - accuracy['Test']:+.4f}"
    said = " ".join(page.text.split())
    assert (
        f"own & <i>odd</i> classifies {100 * accuracy['Test']:.2f} % of 40 test images of blocks.npz correctly." in said
    )
    assert "Trained by the backend numpy on 48 images for 3 epochs in" in said
    assert "Adam in batches of 64, seed 3." in said


def test_the_gap_of_every_epoch_is_training_minus_validation_accuracy(page, studio):
    history = [json.loads(line) for line in (studio / "a run" / "history.jsonl").read_text().splitlines()]
    rows = page.rows("history")
    assert list(rows) == ["1", "2", "3"]
    for record in history:
        row = rows[str(record["epoch"])]
        one, other = record["train"]["accuracy"], record["validation"]["accuracy"]
        assert (row["Training accuracy"], row["Validation accuracy"]) == (f"{one:.4f}", f"{other:.4f}")
        assert row["Gap"] == f"{one - other:+.4f}"
        assert float(row["Training took"].removesuffix(" s")) == pytest.approx(record["seconds_train"], rel=0.05)
    assert len({row["Gap"] for row in rows.values()} - {"+0.0000"}) > 0


def test_every_class_and_the_whole_confusion_matrix_are_in_tables(page, judged):
    labels, probabilities = judged["Test"]
    taken = probabilities.argmax(axis=1)
    found = sklearn.metrics.precision_recall_fscore_support(labels, taken, zero_division=0)
    rows = list(page.rows("classes").values())
    assert [[row["Precision"], row["Recall"], row["F1"]] for row in rows] == [
        [f"{value:.4f}" for value in figures] for figures in np.transpose(found[:3])
    ]
    assert [row["Images"] for row in rows] == ["20", "10", "10"]
    matrix = sklearn.metrics.confusion_matrix(labels, taken)
    assert [[int(count) for count in row.values()] for row in page.rows("matrix").values()] == matrix.tolist()
    assert page.rows("matrix").keys() == page.rows("classes").keys()


def test_the_mistakes_are_the_wrong_ones_that_the_model_was_surest_of(page, judged):
    labels, probabilities = judged["Test"]
    taken = probabilities.argmax(axis=1)
    wrong = sorted(np.flatnonzero(taken != labels), key=lambda image: -probabilities[image].max())
    rows = page.rows("mistakes")
    assert list(rows) == [str(image) for image in wrong[:16]]
    for image, row in rows.items():
        assert float(row["Probability"]) == pytest.approx(probabilities[int(image)].max(), abs=6e-5)
    assert f"out of {len(wrong)}." in page.captions["mistakes"]


def test_the_most_frequent_confusion_is_said(page, judged):
    matrix = sklearn.metrics.confusion_matrix(judged["Test"][0], judged["Test"][1].argmax(axis=1))
    np.fill_diagonal(matrix, 0)
    said = page.text.partition("Most often mistaken")[2]
    assert re.search(r"\((\d+) images?\)", said)[1] == str(matrix.max())


# ------------------------------------------------------------------------------------------ time, machine, how to repeat


def test_times_are_those_of_the_run_by_1000_images_too(page, figures):
    rows = page.rows("times")
    for name, part, images in (("Training", "train", 3 * 48), ("Judging the test images", "test", 40)):
        assert rows[name]["Images"] == str(images)
        per_1000 = 1000 * figures["seconds"][part] / images
        assert float(rows[name]["Seconds / 1000 images"]) == pytest.approx(per_1000, abs=6e-4)
    assert page.facts()["Training, s / 1000 images"] == rows["Training"]["Seconds / 1000 images"]


def test_what_it_ran_on_is_said(page, figures):
    facts = page.facts()
    assert facts["Platform"] == figures["machine"]["platform"]
    assert facts["Threads"] == "1 thread"
    assert facts["numpy"] == np.__version__
    assert facts["python"] == figures["versions"]["python"]
    assert facts["Peak memory"].startswith(f"{figures['memory']['peak_mib']:,.0f} MiB")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", facts["Began"])
    assert f"{figures['machine']['cpus']} for this process" in facts["Processor"]


def test_the_command_can_be_copied(page, studio):
    command = json.loads((studio / "a run" / "run.json").read_text())["command"]
    assert shlex.split(page.code[0]) == command
    assert "'a run'" in page.code[0]


def test_the_summary_of_the_model_is_in_a_table(page):
    rows = page.rows("layers")
    assert rows["1: conv2d"]["Parameters"] == "40"  # 3 * 3 * 1 * 4 + 4
    assert rows["3: dense"]["Parameters"] == "435"  # 6 * 6 * 4 * 3 + 3
    assert rows["Total"]["Parameters"] == "475"
    assert rows["1: conv2d"]["Output"] == "6 x 6 x 4"


def test_kernels_are_shown_before_training_and_after_it(run, monkeypatch):
    import cnnkit.plot

    asked = []
    draw = cnnkit.plot.kernels
    monkeypatch.setattr(
        cnnkit.plot,
        "kernels",
        lambda model, after, before: asked.append((after, before)) or draw(model, after, before=before),
    )
    write_report(run)
    ((after, before),) = asked
    found = cnnkit.load(run / "model.safetensors")
    np.testing.assert_array_equal(after["1.kernel"], found.parameters["1.kernel"])
    np.testing.assert_array_equal(before["1.kernel"], cnnkit.initial_parameters(found.model, 3)["1.kernel"])


# --------------------------------------------------------------------------------------------------------- other runs


def test_a_run_of_one_epoch_has_a_table_and_no_curve(studio, read):
    page = read(studio / "one" / "report.html")
    assert list(page.rows("history")) == ["1"]
    assert list(page.rows("history")["1"]) == ["Loss while learning", "Learning rate", "Training took"]
    assert "One epoch makes no curve." in page.text
    assert "the first 32 images of each part" in page.facts()["Limit"]


def test_a_run_that_has_gone_on_says_so(run, read):
    lines = (run / "history.jsonl").read_text().splitlines()
    (run / "history.jsonl").write_text("\n".join([*lines, lines[-1].replace('"epoch": 3', '"epoch": 4')]) + "\n")
    page = read(write_report(run))
    assert "The run has gone on to 4 epochs and is not finished; this is the report of its first 3." in page.text


def test_a_run_without_the_file_of_mistakes_says_so(run, read):
    (run / "mistakes.npz").unlink()
    page = read(write_report(run))
    assert "There is no mistakes.npz in the run folder" in page.text
    assert "mistakes" not in page.tables


def test_mistakes_of_another_run_are_told_and_left_out(run, studio, read):
    shutil.copy(studio / "one" / "mistakes.npz", run)
    page = read(write_report(run))
    assert re.search(r"mistakes\.npz tells of \d+ mistakes among 32 images, but the run made \d+ among 40", page.text)
    assert "mistakes" not in page.tables


def test_a_model_of_another_run_is_refused_where_it_cannot_be_this_one(run, train):
    model = "version = 1\ninput_shape = [2]\nlayers = [{ kind = 'dense', units = 2 }, { kind = 'softmax' }]\n"
    images, labels = np.eye(2, dtype=np.float32), np.arange(2)
    other = train(model, {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels})
    shutil.copy(other / "model.safetensors", run)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is not the model of this run: .* with 2 classes, .* 3\."
    ):
        write_report(run)


def test_a_model_after_other_steps_is_warned_of(run, read):
    assert "which no epoch here ended with" not in read(write_report(run)).text
    found = cnnkit.load(run / "model.safetensors")
    assert found.state.step == 3
    state = dataclasses.replace(found.state, step=found.state.step + 77)
    cnnkit.save(run / "model.safetensors", found.model, state, optimizer=found.optimizer)
    assert "model.safetensors is a model after 80 steps, which no epoch here ended with" in read(write_report(run)).text


def test_figures_of_an_older_run_may_lack_the_machine(run, figures, read):
    (run / "metrics.json").write_text(json.dumps({name: value for name, value in figures.items() if name != "machine"}))
    assert "Platform" not in read(write_report(run)).facts()


# -------------------------------------------------------------------------------------------------------------- errors


def test_an_unfinished_run_is_named_with_the_command_that_finishes_it(run):
    (run / "metrics.json").unlink()
    with pytest.raises(TrainingError, match=f"the run {run} is not finished: .* cnnkit train --resume '{run}'"):
        write_report(run)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=f"{tmp_path} holds no run: there is no .*run.json"):
        write_report(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null"])
@pytest.mark.parametrize("file", ["metrics.json", "run.json"])
def test_a_damaged_file_is_named(run, file, text):
    (run / file).write_text(text)
    with pytest.raises(CheckpointError, match=f"{file} is damaged"):
        write_report(run)


@pytest.mark.parametrize("wrong", [{"history": [{"epoch": 1}]}, {"test": {"loss": None}}, {"train": 3}])
def test_damaged_figures_are_an_error_of_ours(run, figures, wrong):
    (run / "metrics.json").write_text(json.dumps({**figures, **wrong}))
    with pytest.raises(CheckpointError, match=r"metrics.json is damaged"):
        write_report(run)


def _places(data, before=()):
    """The way to every value in JSON, to the first of each list."""
    for name, value in data.items() if isinstance(data, dict) else list(enumerate(data))[:1]:
        yield (*before, name)
        if isinstance(value, dict | list):
            yield from _places(value, (*before, name))


@pytest.mark.parametrize("file", ["metrics.json", "run.json"])
def test_whatever_is_edited_in_the_files_of_a_run_is_told_or_an_error_of_ours(run, file, monkeypatch):
    monkeypatch.setattr(pictures.Studio, "plot", None)
    text = (run / file).read_text()
    refused = 0
    for *way, last in _places(json.loads(text)):
        for wrong in (KeyError, None, "x", [], {}, float("inf")):
            data = json.loads(text)
            place = functools.reduce(operator.getitem, way, data)
            if wrong is KeyError:
                del place[last]
            else:
                place[last] = wrong
            (run / file).write_text(json.dumps(data))
            try:
                to_markdown(document_of([run]))
            except CheckpointError as error:
                assert re.search(f"{file} is damaged: |is not the model of this run", str(error))  # noqa: PT017
                refused += 1
    assert refused > 50


def test_an_edited_file_is_named_with_the_place(run, figures):
    figures["seconds"]["train"] = "long"
    (run / "metrics.json").write_text(json.dumps(figures))
    with pytest.raises(
        CheckpointError, match=r"metrics\.json is damaged: seconds\.train: input should be a valid number"
    ):
        write_report(run)


def test_a_history_that_is_no_text_is_still_counted(run, read):
    """A crash may leave anything in a file; what the report says is in metrics.json."""
    (run / "history.jsonl").write_bytes(b"\xff\x00\n" * 3)
    assert "gone on" not in read(write_report(run)).text


def test_a_loss_that_overflowed_has_a_curve_without_it_and_a_dash(run, figures, studio):
    figures["history"][0]["validation"]["loss"] = figures["history"][1]["running_loss"] = None
    (run / "metrics.json").write_text(json.dumps(figures))
    lines = to_markdown(document_of([run])).splitlines()
    row = next(line for line in lines if line.startswith("| 2 |"))
    assert row.startswith("| 2 | \N{EN DASH} |")
    assert "not a finite number in 1 epoch, the first of them epoch 1" in "".join(lines)
    figures["history"][-1]["running_loss"] = None
    (run / "metrics.json").write_text(json.dumps(figures))
    words = next(block for block in document_of([run, studio / "seed-0"]).figures()).picture.alt
    assert f"loss from {figures['history'][0]['running_loss']:.4f} to \N{EN DASH}" in words


def test_a_picture_that_fails_is_an_error_and_keeps_the_figures(run, monkeypatch):
    import cnnkit.plot

    def fails(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr(cnnkit.plot, "architecture", fails)
    before = (run / "report.html").read_bytes()
    with pytest.raises(RuntimeError, match="no ink"):
        write_report(run)
    assert (run / "metrics.json").exists()
    assert (run / "report.html").read_bytes() == before


def test_plotting_that_is_broken_is_no_lack_of_matplotlib(run, monkeypatch):
    def broken(name):
        raise ImportError(f"{name} is broken")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(ImportError, match=r"cnnkit\.plot is broken"):
        write_report(run)


# ------------------------------------------------------------------------------------------------------------ markdown


def test_markdown_has_the_same_tables_and_says_in_words_what_pictures_show(run, page):
    text = to_markdown(document_of([run]))
    for key, rows in page.tables.items():
        number = page.captions[key].partition(".")[0]
        lines = text.partition(f"**{number}.**")[2].split("\n")[2:]
        cells = [line for line in lines[: lines.index("")] if not line.startswith("| :--")]
        assert len(cells) == len([row for row in rows if row[0]])
    assert text.count("In words: ") == len(page.all("img"))
    assert "data:image" not in text


def test_addresses_are_no_links_in_markdown():
    """GitHub makes links of them without any mark, unless one of their signs is escaped."""
    assert text("http://a.b/c, WWW.a.b, 3:4") == r"http\://a.b/c, WWW\.a.b, 3:4"


def test_names_are_no_markup_in_markdown(run):
    text = to_markdown(document_of([run]))
    assert "\\<script\\>" in text
    unescaped = re.sub(r"\\.", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    assert "<" not in unescaped
    assert "$" not in unescaped
    assert "@a" not in unescaped
    heads = [line for line in unescaped.splitlines() if line.startswith("| True class")]
    assert heads[0].count("|") == 5  # a bar in a name is no edge of a cell
