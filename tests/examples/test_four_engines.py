"""examples/four_engines.py: the engines run side by side, and a relay between them is one run."""

import re

import numpy as np
import pytest

import cnnkit


@pytest.fixture
def script(example):
    return example("four_engines")


SMALL = ["--dataset", "digits", "--limit", "200", "--epochs", "3"]


def test_two_engines_have_the_same_losses_and_the_relay_ends_where_one_alone_does(script, printed):
    script.main([*SMALL, "--backends", "numpy,numpy-batched"])
    text, [losses, relay] = printed()
    assert losses[0] == ["epoch", "numpy", "numpy-batched", "largest difference"]
    assert [row[0] for row in losses[1:]] == ["1", "2", "3"]
    for row in losses[1:]:
        assert float(row[1]) == pytest.approx(float(row[2]), abs=1e-5)
        assert float(row[3]) < 1e-5
    assert [row[1] for row in relay[1:]] == ["numpy", "numpy-batched", "numpy"]
    assert [row[2] for row in relay[1:]] == ["4", "8", "12"]  # 200 images in batches of 64
    for row, side_by_side in zip(relay[1:], losses[1:], strict=True):
        assert float(row[3]) == pytest.approx(float(row[4]), abs=1e-5)
        assert row[4] == side_by_side[1]
    ends = re.findall(r"parameters differ .* by (\S+) at most", text)
    assert len(ends) == 2
    assert all(float(end) < 1e-4 for end in ends)


def test_the_loss_of_the_table_is_the_one_of_a_run(script, printed):
    script.main([*SMALL, "--backends", "numpy-batched", "--seed", "3"])
    _, [losses, _] = printed()
    train, _ = cnnkit.load_dataset("digits", limit=200)
    layers = [
        cnnkit.Rescale(scale=1 / 255),
        cnnkit.Conv2D(filters=8, kernel_size=3, activation="relu"),
        cnnkit.MaxPool2D(),
        cnnkit.Flatten(),
        cnnkit.Dropout(rate=0.2),
        cnnkit.Dense(units=10),
        cnnkit.Softmax(),
    ]
    run = cnnkit.fit(cnnkit.Model(input_shape=(8, 8, 1), layers=layers), train, None, "numpy", epochs=1, seed=3)
    assert float(losses[1][1]) == pytest.approx(run.history[0].running_loss, abs=1e-5)


def test_engines_that_cannot_run_are_told_with_what_would_help(script, capsys, monkeypatch):
    states = {
        "fast": cnnkit.BackendStatus("fast", "ready", devices=("cpu",), versions={"fastlib": "1.2"}),
        "away": cnnkit.BackendStatus("away", "no-device", reason="there is no such card", fix="Buy one"),
    }
    monkeypatch.setattr(cnnkit, "backends", lambda: states)
    assert script.those_that_are_ready() == ["fast"]
    text = capsys.readouterr().out
    assert "- fast is ready: fastlib 1.2, devices cpu" in text
    assert "- away is not: there is no such card. Buy one." in text


def test_an_engine_that_only_predicts_is_left_out_and_told(script, printed, monkeypatch):
    fit = cnnkit.fit

    def refusing(model, data, validation, backend, *more, **settings):
        if backend == "numpy":
            raise cnnkit.TrainingNotSupported("numpy only predicts")
        return fit(model, data, validation, backend, *more, **settings)

    monkeypatch.setattr(cnnkit, "fit", refusing)
    script.main([*SMALL, "--backends", "numpy,numpy-batched"])
    text, [losses, _] = printed()
    assert losses[0] == ["epoch", "numpy-batched", "largest difference"]
    assert "numpy is left out, since it only predicts." in text


def test_the_distance_is_the_largest_of_all_engines_and_all_parameters(script):
    first = {"0.kernel": np.zeros(3), "0.bias": np.ones(2)}
    near = {"0.kernel": np.array([0.0, 0.1, 0.0]), "0.bias": np.ones(2)}
    far = {"0.kernel": np.zeros(3), "0.bias": np.array([1.0, 0.5])}
    assert script.farthest([first, near, far]) == pytest.approx(0.5)
    assert script.farthest([first, near]) == pytest.approx(0.1)
