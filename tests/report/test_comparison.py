"""Several runs side by side."""

import json
import re
import shutil
import statistics

import pytest

from cnnkit.errors import OptionError
from cnnkit.report import compare

SEEDS = ("seed-0", "seed-1", "seed-2")


def figures_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def seeds(studio, read):
    return read(compare([studio / name for name in SEEDS]))


def test_what_differs_comes_first_and_the_rest_is_said_to_be_the_same(studio, read):
    page = read(compare([studio / "a run", studio / "seed-1"]))
    assert page.headings[1][1] == "1. What differs"
    rows = page.rows("differences")
    assert set(rows) == {"Images", "Validation", "Epochs", "Seed"}
    assert rows["Epochs"] == {"a run": "3", "seed-1": "2"}
    assert rows["Seed"] == {"a run": "3", "seed-1": "1"}
    same = page.text.partition("The same in all: ")[2].partition(".\n")[0]
    assert "backend: numpy" in same
    assert "epochs" not in same


def test_models_that_share_a_name_and_not_their_layers_differ(studio, read, tmp_path, train):
    other = (studio / "own.toml").read_text().replace('activation = "relu"', 'activation = "tanh"')
    shutil.copytree(studio / "seed-0", tmp_path / "seed-0")
    run = train(other, {"x_train": [[[[0]]]], "y_train": [0]} | _arrays(studio), "--epochs", 2)
    rows = read(compare([tmp_path / "seed-0", run])).rows("differences")
    assert rows["Layers"]["run"] != rows["Layers"]["seed-0"]
    assert "Model" not in rows


def _arrays(studio):
    import numpy as np

    with np.load(studio / "blocks.npz") as file:
        return dict(file)


def test_every_run_has_its_figures_in_one_table(studio, seeds):
    for name in SEEDS:
        figures, row = figures_of(studio / name), seeds.rows("runs")[name]
        assert [row[head] for head in ("Data set", "Backend", "Seed", "Epochs", "Batch")] == [
            "blocks.npz",
            "numpy",
            name[-1],
            "2",
            "64",
        ]
        test = figures["test"]
        assert row["Test accuracy"] == f"{test['accuracy']:.4f}"
        assert [row[head] for head in ("Precision", "Recall", "F1")] == [
            f"{test[key]:.4f}" for key in ("precision", "recall", "f1")
        ]
        assert row["Gap"] == f"{figures['train']['accuracy'] - test['accuracy']:+.4f}"
        assert row["Training, s / 1000 images"] == f"{figures['seconds']['train_per_1000']:.3f}"
        assert row["Peak memory"] == f"{figures['memory']['peak_mib']:,.0f} MiB"


def test_runs_that_differ_in_the_seed_alone_have_mean_and_spread(studio, seeds):
    row = seeds.rows("spread-1")["Test accuracy"]
    values = [figures_of(studio / name)["test"]["accuracy"] for name in SEEDS]
    assert len(set(values)) > 1
    assert row["Mean"] == f"{statistics.mean(values):.4f}"
    assert row["Spread"] == f"{statistics.stdev(values):.4f}"
    assert (row["Lowest"], row["Highest"]) == (f"{min(values):.4f}", f"{max(values):.4f}")
    assert "3 runs that differ in the seed alone (0, 1 and 2)" in seeds.captions["spread-1"]


def test_runs_that_differ_in_more_have_no_mean(studio, read):
    assert "spread-1" not in read(compare([studio / "a run", studio / "seed-1"])).tables


def test_only_those_that_differ_in_the_seed_alone_are_taken_together(studio, read):
    page = read(compare([studio / "a run", studio / "seed-1", studio / "seed-2"]))
    assert page.captions["spread-1"].startswith("Table 3. seed-1 and seed-2: 2 runs")


def test_the_classes_in_which_runs_differ_most_come_first(studio, read):
    page = read(compare([studio / "a run", studio / "seed-1"]))
    one, other = (
        {c["name"]: c["f1"] for c in figures_of(studio / n)["test"]["per_class"]} for n in ("a run", "seed-1")
    )
    expected = sorted(one, key=lambda name: -abs(other[name] - one[name]))
    rows = page.rows("classes")
    assert [name[:8] for name in rows] == [name[:8] for name in expected]
    for name, row in rows.items():
        full = next(one_name for one_name in expected if one_name[:8] == name[:8])
        assert row["seed-1 minus a run"] == f"{other[full] - one[full]:+.4f}"


def test_the_best_run_is_named(studio, seeds):
    accuracy = {name: figures_of(studio / name)["test"]["accuracy"] for name in SEEDS}
    best = [name for name in SEEDS if accuracy[name] == max(accuracy.values())]
    headline = " ".join(seeds.text.partition("Comparison of runs\n")[2].split())
    assert headline.startswith((f"{best[0]} is the best of 3 runs: ", f"{' and '.join(best)} are the best of 3 runs: "))


def test_runs_that_were_judged_on_other_images_are_warned_of(studio, read):
    page = read(compare([studio / "one", studio / "seed-0"]))
    text = " ".join(page.text.split())
    assert "2 runs, not judged on the same images." in text
    assert "limit 32 (one), none (seed-0); test images 32 (one), 40 (seed-0)" in text
    assert "best" not in page.text
    kinds = [given.get("class") for given in page.all("p")]
    assert kinds.count("warning") == 1


def test_a_part_held_out_of_training_is_warned_of_and_all_alike_is_not(studio, read, seeds):
    assert [given for given in seeds.all("p") if given.get("class") == "warning"] == []
    page = read(compare([studio / "a run", studio / "seed-0"]))
    assert "These runs did not learn from the same number of images: 48 (a run), 64 (seed-0)." in page.text


def test_the_curves_of_all_runs_are_in_one_picture(studio, seeds):
    (alt,) = [given["alt"] for given in seeds.all("img")]
    for name in SEEDS:
        history = figures_of(studio / name)["history"]
        first, last = (history[at]["running_loss"] for at in (0, -1))
        accuracy = [record["train"]["accuracy"] for record in history]
        assert (
            f"{name}, 2 epochs: loss from {first:.4f} to {last:.4f}, accuracy on training images from "
            f"{accuracy[0]:.4f} to {accuracy[-1]:.4f}"
        ) in alt


def test_sixteen_runs_have_sixteen_looks():
    from cnnkit.report.curves import run_curves

    drawn = run_curves([f"r{n}" for n in range(16)], [{"loss": [2.0, 1.0]}] * 16, "")
    looks = [(line.get_color(), line.get_linestyle()) for line in drawn.axes[0].lines]
    assert len(set(looks)) == 16


def test_runs_with_the_same_name_are_called_by_their_paths(studio, read, tmp_path, monkeypatch):
    for place in ("x", "y"):
        shutil.copytree(studio / "seed-0", tmp_path / place / "seed-0")
    monkeypatch.chdir(tmp_path)
    page = read(compare(["x/seed-0", "y/seed-0"]))
    assert list(page.rows("runs")) == ["x/seed-0", "y/seed-0"]
    assert "Nothing differs between these runs" in page.text
    assert "Both runs are equally good" in page.text


def test_runs_of_other_classes_are_not_compared_class_by_class(studio, read, tmp_path):
    run = tmp_path / "renamed"
    shutil.copytree(studio / "seed-0", run)
    path = run / "metrics.json"
    path.write_text(path.read_text().replace('"name": "<b>"', '"name": "cat"'))
    page = read(compare([studio / "seed-0", run]))
    assert "classes" not in page.tables
    assert "The runs do not know the same classes" in page.text


def test_one_run_or_the_same_twice_is_refused(studio):
    with pytest.raises(OptionError, match="was given 1 run folders; expected at least 2"):
        compare([studio / "one"])
    with pytest.raises(OptionError, match=r"one is given twice"):
        compare([studio / "one", studio / "x" / ".." / "one"])
    with pytest.raises(OptionError, match="the format is 'pdf'; expected html or md"):
        compare([studio / "one", studio / "seed-0"], "pdf")


def test_markdown_has_the_same_tables(studio, seeds):
    text = compare([studio / name for name in SEEDS], "md")
    assert len(re.findall(r"^\*\*Table \d+\.\*\*", text, re.MULTILINE)) == len(seeds.tables)
