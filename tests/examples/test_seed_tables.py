"""examples/seed_tables.py: what is killed goes on, what is finished is read, and the figures are what they say."""

import json

import pytest

import cnnkit
from cnnkit.datasets import load_dataset
from cnnkit_numpy.backend import NumpyBackend


@pytest.fixture
def tables(example):
    return example("seed_tables")


def finished(folder, seed, confusion, train_accuracy, **changes):
    metrics = cnnkit.Metrics(confusion).to_dict() | changes
    row = {"table": "1", "dataset": "cifar10", "backend": "numpy", "seed": seed, "ms_per_image": 0.25}
    row |= {"train": {"accuracy": train_accuracy}, "test": metrics}
    path = folder / f"table-1/cifar10/numpy/seed-{seed}/metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(row))


def show(tables, folder, seeds="0,1"):
    wanted = ["--tables", "1", "--datasets", "cifar10", "--backends", "numpy", "--seeds", seeds]
    tables.main([*wanted, "--out", str(folder)])


def test_finished_runs_are_read_and_stand_beside_the_write_up_with_mean_and_spread(tables, tmp_path, printed):
    finished(tmp_path, 0, [[3, 2], [3, 2]], 0.75)
    finished(tmp_path, 1, [[4, 1], [2, 3]], 0.95)
    show(tables, tmp_path)
    _, [[head, write_up, first, second, mean]] = printed()
    assert head[3:8] == ["training accuracy", "test accuracy", "precision", "recall", "F1"]
    assert write_up[1:8] == ["the write-up", "", "0.30", "0.30", "0.30", "0.30", "0.30"]
    # by hand: precision (3/6 + 2/4) / 2, recall (3/5 + 2/5) / 2, F1 (6/11 + 4/9) / 2
    assert first == ["cifar10", "numpy", "0", "0.7500", "0.5000", "0.5000", "0.5000", "0.4949", "0.250"]
    # precision (4/6 + 3/4) / 2, F1 (8/11 + 6/9) / 2
    assert second[3:8] == ["0.9500", "0.7000", "0.7083", "0.7000", "0.6970"]
    # the sample standard deviation of two numbers is their distance over the root of 2: 0.2 / 1.41421
    assert mean[2:5] == ["mean ± s.d.", "0.8500 ± 0.1414", "0.6000 ± 0.1414"]


@pytest.mark.parametrize(
    ("name", "value", "said"), [("accuracy", 0.6, "in the table is 0.6"), ("recall", 0.4, "macro")]
)
def test_a_figure_that_cannot_be_stops_the_tables(tables, tmp_path, name, value, said):
    finished(tmp_path, 0, [[3, 2], [3, 2]], 0.75, **{name: value})
    with pytest.raises(SystemExit, match=rf"cifar10, numpy: .*{said}"):
        show(tables, tmp_path, "0")


def test_on_a_test_set_that_is_not_balanced_macro_recall_may_be_something_else(tables, tmp_path, capsys):
    finished(tmp_path, 0, [[3, 2], [0, 1]], 0.75)
    show(tables, tmp_path, "0")
    assert "macro recall is not: no test set is balanced" in capsys.readouterr().out


def digits(out, *more):
    small = ["--tables", "2", "--datasets", "digits", "--limit", "200", "--epochs", "2", "--seeds", "0"]
    return [*small, "--out", str(out), *more]


def test_a_run_that_was_broken_off_goes_on_from_its_checkpoint_to_the_same_end(tables, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tables.main(digits(whole, "--backends", "numpy-batched"))
    train, _ = load_dataset("digits", limit=200)
    preset = cnnkit.load_preset("seed-tf").for_data(train.image_shape, train.classes, train.class_names)
    place = "table-2/digits/numpy-batched/seed-0"
    cnnkit.fit(
        preset.model,
        train,
        None,
        "numpy-batched",
        preset.optimizer,
        64,
        epochs=1,
        out=broken / place,
        train_metrics=False,
    )
    first_epoch = (broken / place / "history.jsonl").read_text()
    tables.main(digits(broken, "--backends", "numpy-batched"))
    history = (broken / place / "history.jsonl").read_text()
    assert history.startswith(first_epoch)  # with its seconds: it was not trained again
    assert len(history.splitlines()) == 2
    ends = [json.loads((folder / place / "metrics.json").read_text()) for folder in (whole, broken)]
    assert ends[0]["test"] == ends[1]["test"]
    assert ends[0]["epochs"] == 2


def test_every_backend_that_is_ready_has_a_row_and_the_tables_are_in_files_too(tables, tmp_path, capsys):
    tables.main(digits(tmp_path))
    text = capsys.readouterr().out
    ready = [name for name, status in cnnkit.backends().items() if status.ready and "cpu" in status.devices]
    assert {"numpy", "numpy-batched"} <= set(ready)
    assert all(f"| digits | {name} | 0 |" in text for name in ready)
    assert (tmp_path / "tables.md").read_text() == text
    assert [row["backend"] for row in json.loads((tmp_path / "tables.json").read_text())] == ready


def test_a_backend_that_only_predicts_is_left_out_and_told(tables, tmp_path, capsys, monkeypatch):
    fit = cnnkit.fit

    def refusing(model, data, validation, engine, *more, **settings):
        if isinstance(engine, NumpyBackend):
            raise cnnkit.TrainingNotSupported("numpy only predicts")
        return fit(model, data, validation, engine, *more, **settings)

    monkeypatch.setattr(cnnkit, "fit", refusing)
    tables.main(digits(tmp_path, "--backends", "numpy,numpy-batched"))
    told = capsys.readouterr()
    assert "numpy is left out, since it only predicts." in told.err
    assert "| digits | numpy-batched | 0 |" in told.out
    assert "| digits | numpy |" not in told.out


def test_tables_of_other_settings_are_not_mixed(tables, tmp_path):
    tables.main(digits(tmp_path, "--backends", "numpy-batched"))
    with pytest.raises(SystemExit, match=r"made with .*'limit': 200.*Choose another --out"):
        tables.main([*digits(tmp_path, "--backends", "numpy-batched"), "--limit", "100"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--tables", "3"], "tables are 1 and 2"),
        (["--seeds", "a"], "seeds whole numbers from 0"),
        (["--backends", "numpy,nope"], "there is no backend nope"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_written(tables, tmp_path, capsys, wrong, said):
    with pytest.raises(SystemExit) as ended:
        tables.main([*wrong, "--out", str(tmp_path / "new")])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
