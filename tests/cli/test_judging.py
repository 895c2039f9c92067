"""`cnnkit evaluate` and `cnnkit predict`."""

import json
from pathlib import Path

import numpy as np
import pytest

from cnnkit import checkpoints
from cnnkit.evaluation import predict


@pytest.fixture
def run(cnnkit, model_file, npz):
    """A run folder with a trained model, and what training printed."""
    settings = ["--epochs", 4, "--batch-size", 4, "--learning-rate", 0.01]
    return cnnkit("train", model_file, npz, "--out", "run", "--json", *settings).json


@pytest.fixture
def pictures(npz):
    """Three image files of the test set, one of them in a folder; and the arrays in them."""
    pillow = pytest.importorskip("PIL.Image")
    with np.load(npz) as arrays:
        images = arrays["x_test"][:3]
    Path("more/deep").mkdir(parents=True)
    files = [Path("one.png"), Path("two [b].png"), Path("more/deep/three.png")]
    for image, file in zip(images, files, strict=True):
        pillow.fromarray(image[..., 0]).save(file)
    return files, images


# ------------------------------------------------------------------------------------------------------------- evaluate


@pytest.mark.parametrize("what", ["run", "run/model.safetensors", "run/checkpoint.safetensors"])
def test_evaluate_finds_the_figures_that_training_found(cnnkit, run, npz, what):
    found = cnnkit("evaluate", what, npz, "--json").json
    assert {name: found[name] for name in run["test"]} == run["test"]
    assert (found["run"], found["dataset"], found["part"]) == (what, str(npz), "test")
    learned = cnnkit("evaluate", what, npz, "--part", "train", "--json").json
    assert {name: learned[name] for name in run["train"]} == run["train"]


def test_evaluate_prints_a_table_with_the_names_as_they_are(cnnkit, run, npz):
    done = cnnkit("evaluate", "run", npz)
    assert done.code == 0
    assert done.err == ""
    assert f"{run['test']['accuracy']:.4f}" in done.out
    for name in ("top", "[middle]", ":bottom:"):
        assert any(line.startswith(name) for line in done.out.splitlines())


def test_evaluate_takes_the_first_images_and_another_precision(cnnkit, run, npz):
    single = cnnkit("evaluate", run["out"], npz, "--limit", 10, "--json").json
    double = cnnkit("evaluate", "run", npz, "--limit", 10, "--precision", "float64", "--json").json
    assert single["count"] == double["count"] == 10
    assert single["loss"] != double["loss"]
    assert single["loss"] == pytest.approx(double["loss"], rel=1e-4)


def test_before_its_end_a_run_folder_means_its_checkpoint(cnnkit, run, npz):
    expected = cnnkit("evaluate", run["out"], npz, "--json").json
    Path("run/model.safetensors").unlink()
    assert cnnkit("evaluate", "run", npz, "--json").json == expected


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "digits"], 1, "cannot read nowhere: there is no such file. Correct the path."),
        ([".", "digits"], 1, ". holds no run: neither model.safetensors nor checkpoint.safetensors is there."),
        (["run", "digits"], 1, "the data has 10 classes, but model 'own' tells 3 apart"),
        (["run", "digitz"], 2, "there is no data set, .npz file or folder called 'digitz'"),
        (["run", "digits", "--part", "all"], 2, "--part is 'all'; expected test or train."),
        (["run", "digits", "--backend", "none"], 2, "No backend is called 'none'"),
        (["run", "digits", "--device", "gpu:0"], 1, "runs on the CPU, not on 'gpu:0'"),
        (["run"], 2, "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("run")
def test_evaluate_ends_with_a_code_and_a_sentence(cnnkit, arguments, code, message):
    done = cnnkit("evaluate", *arguments, "--json")
    assert done.code == code
    assert message in done.err
    assert done.out == ""


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_broken_checkpoint_is_a_failure_that_names_the_file(cnnkit, run, npz, pictures, command):
    path = Path(run["out"]) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-10] ^= 4
    path.write_bytes(data)
    done = cnnkit(command, "run", npz if command == "evaluate" else pictures[0][0])
    assert done.code == 1
    assert "error: run/model.safetensors is damaged: " in done.err
    assert done.out == ""


# ------------------------------------------------------------------------------------------------------------- predict


def test_predict_says_the_class_and_the_probabilities_of_every_file(cnnkit, run, pictures):
    files, images = pictures
    found = cnnkit("predict", "run", files[0], files[1], "more", "--json").json
    checkpoint = checkpoints.load(Path(run["out"]) / "model.safetensors")
    expected = predict(checkpoint.model, checkpoint.parameters, images)
    names = ["top", "[middle]", ":bottom:"]
    assert [row["file"] for row in found["predictions"]] == [str(file) for file in files]
    for row, probabilities in zip(found["predictions"], expected, strict=True):
        assert row["probabilities"] == pytest.approx(dict(zip(names, probabilities.tolist(), strict=True)), rel=1e-6)
        assert row["class"] == names[int(probabilities.argmax())]
        assert row["probability"] == max(row["probabilities"].values())
    assert [row["class"] for row in found["predictions"]] == names  # it has learned them


def test_predict_prints_a_line_for_each_file_the_most_probable_class_first(cnnkit, run, pictures):
    files, _ = pictures
    rows = cnnkit("predict", "run", *files, "--json").json["predictions"]
    done = cnnkit("predict", run["out"], *files, "--top", 2)
    assert done.code == 0
    lines = done.out.splitlines()
    assert len(lines) == 3
    for line, row in zip(lines, rows, strict=True):
        best, second, _ = sorted(row["probabilities"].items(), key=lambda item: -item[1])
        assert line == f"{row['file']}: {best[0]} {best[1]:.1%}  {second[0]} {second[1]:.1%}"


def test_pictures_of_another_size_and_colour_are_made_to_fit(cnnkit, run, pictures):
    pillow = pytest.importorskip("PIL.Image")
    large = pillow.open(pictures[0][0]).resize((32, 40), pillow.Resampling.NEAREST).convert("RGB")
    large.save("large.png")
    (row,) = cnnkit("predict", run["out"], "large.png", "--json").json["predictions"]
    assert row["class"] == "top"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "none.png"], 1, "none.png does not exist. Give image files, or a folder of them."),
        (["run", "empty"], 1, "empty has no images in it."),
        (["run", "one.png", "own.toml"], 1, "own.toml cannot be read as an image: "),
        (["none", "one.png"], 1, "cannot read none: there is no such file."),
        (["run"], 2, "Missing argument"),
        (["run", "one.png", "--top", "0"], 2, "--top"),
        (["run", "one.png", "--precision", "double"], 2, "precision is 'double'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("run", "pictures")
def test_predict_ends_with_a_code_and_a_sentence(cnnkit, arguments, code, message):
    Path("empty").mkdir()
    done = cnnkit("predict", *arguments)
    assert done.code == code
    assert message in done.err
    assert done.out == ""


def test_a_dense_model_has_no_pictures(cnnkit, pictures):
    np.savez("rows.npz", images=np.random.default_rng(0).random((30, 7)), labels=np.arange(30) % 2)
    assert cnnkit("train", "mlp-1h", "rows.npz", "--out", "rows", "--json").json["images"]["test"] == 6
    done = cnnkit("predict", "rows", pictures[0][0])
    assert done.code == 1
    assert "the model takes (7,); image files give (height, width, 1) or (height, width, 3)" in done.err


def test_json_of_a_class_that_nobody_has_is_json(cnnkit, model_file, npz):
    with np.load(npz) as arrays:
        changed = dict(arrays)
    keep = changed["y_test"] != 2
    changed["x_test"], changed["y_test"] = changed["x_test"][keep], changed["y_test"][keep]
    np.savez("two.npz", **changed)
    result = cnnkit("train", model_file, "two.npz", "--json").json  # which refuses NaN
    assert json.dumps(result["test"]["undefined"]).count(":bottom:") >= 1
