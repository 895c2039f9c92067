"""`cnnkit plot curves`, `confusion`, `mistakes`, `architecture` and `data`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnkit as package
from cnnkit.mistakes import Mistakes

MODEL_TOML = """\
version = 1
name = "own"
input_shape = [8, 8, 1]
layers = [
    { kind = "rescale", scale = 0.00392156862745098 },
    { kind = "conv2d", filters = 4, kernel_size = 3, activation = "relu" },
    { kind = "flatten" },
    { kind = "dense", units = 3 },
    { kind = "softmax" },
]
"""


@pytest.fixture(scope="module")
def trained(npz, tmp_path_factory):
    """A folder in which a model that makes some mistakes was trained, and what training printed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "own.toml").write_text(MODEL_TOML, encoding="utf-8")
    settings = ["--epochs", "2", "--batch-size", "4", "--validation", "0.2", "--out", "run", "--json"]
    command = [sys.executable, "-m", "cnnkit", "train", "own.toml", str(npz), *settings]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return folder / "run", json.loads(done.stdout)


@pytest.fixture
def run(trained):
    """What training printed of the run in the folder `run`."""
    folder, printed = trained
    shutil.copytree(folder, "run")
    return printed


def described(path):
    """The words in a PNG file."""
    with Image.open(path) as image:
        assert image.width > 100
        return image.info["Description"]


# --------------------------------------------------------------------------------------------------------------- a run


def test_curves_are_those_of_the_run(cnnkit, run):
    done = cnnkit("plot", "curves", "run")
    assert done.code == 0, done.err
    last = run["history"][-1]
    gap = 100 * (last["train"]["accuracy"] - last["validation"]["accuracy"])
    alt = described("run/curves.png")
    assert f"{last['running_loss']:.4g} after epoch 2" in alt
    assert f"{gap:+.1f} after epoch 2" in alt
    assert done.out == f"Wrote {Path('run/curves.png')}\n{alt}\n"


def test_curves_need_no_end_of_the_run(cnnkit, run):
    for name in ("metrics.json", "model.safetensors"):
        (Path("run") / name).unlink()
    lines = Path("run/history.jsonl").read_text().splitlines()
    Path("run/history.jsonl").write_text(lines[0].replace(str(run["history"][0]["running_loss"]), "NaN") + "\n")
    found = cnnkit("plot", "curves", "run", "--json").json
    assert found["alt"].startswith("Learning curves of 1 epoch. Loss while learning: not a finite number in any epoch.")


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"epoch": 1}', "null"], ids=["cut off", "a list", "empty", "a part", "null"]
)
@pytest.mark.usefixtures("run")
def test_a_damaged_history_is_named(cnnkit, line):
    Path("run/history.jsonl").write_text(line + "\n")
    done = cnnkit("plot", "curves", "run")
    assert done.code == 1
    assert f"error: {Path('run/history.jsonl')} is damaged: " in done.err


@pytest.mark.parametrize("part", ["train", "validation", "running_loss"])
def test_a_history_without_figures_is_damaged(cnnkit, run, part):
    record = run["history"][0]
    record[part] = "0.5" if part == "running_loss" else {"loss": 0.5}
    Path("run/history.jsonl").write_text(json.dumps(record) + "\n")
    done = cnnkit("plot", "curves", "run")
    assert done.code == 1
    assert "is damaged" in done.err


def test_confusion_is_that_of_the_runs_end(cnnkit, run):
    found = cnnkit("plot", "confusion", "run", "--json").json
    assert found["path"] == str(Path("run/confusion.png"))
    right = np.trace(run["test"]["confusion"])
    assert f"{right} of 30 images right" in found["alt"]
    assert described("run/confusion.png") == found["alt"]
    right = np.trace(run["train"]["confusion"])
    found = cnnkit("plot", "confusion", "run", "--part", "train", "--json").json
    assert f"{right} of {run['images']['train']} images right" in found["alt"]


@pytest.mark.usefixtures("run")
def test_a_run_that_has_not_ended_has_no_confusion_and_says_what_to_do(cnnkit):
    Path("run/metrics.json").unlink()
    done = cnnkit("plot", "confusion", "run")
    assert done.code == 1
    assert "metrics.json is not there: training has not ended. Go on with it: cnnkit train --resume run." in done.err
    Path("run/run.json").unlink()
    assert "it is no run folder of `cnnkit train`" in cnnkit("plot", "confusion", "run").err


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"test": {}}', '{"test": {"per_class": [], "loss": 1, "confusion": [[1, 2]]}}']
)
@pytest.mark.usefixtures("run")
def test_damaged_metrics_are_named(cnnkit, text):
    Path("run/metrics.json").write_text(text)
    done = cnnkit("plot", "confusion", "run")
    assert done.code == 1
    assert f"error: {Path('run/metrics.json')} is damaged: " in done.err


# ------------------------------------------------------------------------------------------------------------ mistakes


def mistakes_in(metrics):
    return int(np.sum(metrics["confusion"]) - np.trace(metrics["confusion"]))


def test_mistakes_are_found_in_the_data_that_is_named(cnnkit, run, npz):
    (Path("run") / "mistakes.npz").unlink(missing_ok=True)
    count = mistakes_in(run["test"])
    assert count > 1
    found = cnnkit("plot", "mistakes", "run", npz, "--count", 1, "--json").json
    assert found["path"] == str(Path("run/mistakes.png"))
    assert found["alt"].startswith(f"{count} mistakes on 30 images, the surest 1: true ")
    assert found["alt"].count("true ") == 1
    of_train = cnnkit("plot", "mistakes", "run/model.safetensors", npz, "--part", "train", "--limit", 50, "--json").json
    assert of_train["alt"].split(":")[0].split(",")[0].endswith("mistakes on 50 images")


@pytest.mark.usefixtures("run")
def test_mistakes_that_the_run_has_kept_need_no_data(cnnkit):
    kept = Mistakes(
        np.zeros((2, 8, 8, 1), np.uint8),
        np.array([0, 1]),
        np.array([1, 2]),
        np.array([0.75, 0.5]),
        np.array([3, 4]),
        ("top", "[middle]", ":bottom:"),
        total=7,
        judged=30,
    )
    kept.save("run/mistakes.npz")
    done = cnnkit("plot", "mistakes", "run", "--count", 1)
    assert "true top, said [middle], 75 %. " in done.out
    assert "true [middle]" not in done.out
    assert done.err == ""
    done = cnnkit("plot", "mistakes", "run")
    assert "true [middle], said :bottom:, 50 %" in done.out
    assert "note: the run has kept 2 of 7. For more: cnnkit plot mistakes run DATASET" in done.err


@pytest.mark.usefixtures("run")
def test_without_kept_mistakes_the_data_has_to_be_named(cnnkit):
    (Path("run") / "mistakes.npz").unlink(missing_ok=True)
    done = cnnkit("plot", "mistakes", "run")
    assert done.code == 2
    assert f"{Path('run/mistakes.npz')} is not there" in done.err
    assert "Name the data set: cnnkit plot mistakes run DATASET." in done.err
    done = cnnkit("plot", "mistakes", "run/model.safetensors")
    assert done.code == 2
    assert "run/model.safetensors is a checkpoint, which keeps no mistakes" in done.err.replace("\\", "/")
    done = cnnkit("plot", "mistakes", "nowhere")
    assert done.code == 1
    assert "cannot read nowhere: there is no such file" in done.err


@pytest.mark.parametrize("option", [("--part", "train"), ("--limit", 3), ("--backend", "numpy"), ("--data-dir", ".")])
@pytest.mark.usefixtures("run")
def test_what_says_how_to_judge_is_not_ignored_where_nothing_is_judged(cnnkit, option):
    done = cnnkit("plot", "mistakes", "run", *option)
    assert done.code == 2
    assert "say how to judge a data set, but none is named" in done.err


@pytest.mark.usefixtures("run")
def test_a_damaged_file_of_mistakes_is_named(cnnkit):
    Path("run/mistakes.npz").write_bytes(b"PK")
    done = cnnkit("plot", "mistakes", "run")
    assert done.code == 1
    assert f"{Path('run/mistakes.npz')} cannot be read" in done.err


# ----------------------------------------------------------------------------------------------------- models and data


@pytest.mark.usefixtures("run")
def test_the_architecture_of_a_preset_a_file_and_a_run(cnnkit, model_file):
    assert cnnkit("plot", "architecture", "seed-tf", "--json").json["path"] == "architecture-seed-tf.png"
    assert "Architecture of seed-tf: 220,234 parameters" in described("architecture-seed-tf.png")
    assert cnnkit("plot", "architecture", model_file, "--json").json["path"] == "architecture-own.png"
    for folder_or_file in ("run", "run/model.safetensors"):
        found = cnnkit("plot", "architecture", folder_or_file, "--json").json
        assert found["path"] == str(Path("run/architecture.png"))
        assert "Architecture of own: 475 parameters in 5 layers" in found["alt"]  # 3*3*4 + 4 and 6*6*4*3 + 3


@pytest.mark.usefixtures("run")
def test_a_preset_stands_before_a_folder_of_its_name(cnnkit):
    shutil.move("run", "mlp-1h")
    assert "Neurons and edges of mlp-1h" in cnnkit("plot", "architecture", "mlp-1h", "--json").json["alt"]


def test_images_of_a_data_set(cnnkit, npz):
    found = cnnkit("plot", "data", npz, "--json").json
    assert found["path"] == "data-blocks.png"
    assert "30 of 60 images of a data set with 3 classes: top (10), [middle] (10) and :bottom: (10)" in found["alt"]
    found = cnnkit("plot", "data", npz, "--count", 4, "--part", "test", "--out", "some.svg", "--json").json
    assert "4 of 30 images" in found["alt"]
    assert "top (2), [middle] (1) and :bottom: (1)" in found["alt"]
    assert "<title>4 of 30 images" in Path("some.svg").read_text()
    assert "6 of 60 images" in cnnkit("plot", "data", npz, "--columns", 2, "--json").json["alt"]


# --------------------------------------------------------------------------------------------------------- in all of them


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["curves", "nowhere"], 1, "history.jsonl is not there: no epoch of a run has ended there"),
        (["confusion", "nowhere"], 1, "metrics.json is not there: it is no run folder of `cnnkit train`"),
        (["confusion", "nowhere", "--part", "all"], 2, "--part is 'all'; expected test or train."),
        (["data", "digitz"], 2, "there is no data set, .npz file or folder called 'digitz'"),
        (["data", "digits", "--part", "all"], 2, "--part is 'all'; expected test or train."),
        (["data", "digits", "--count", "0"], 2, "--count"),
        (["architecture", "seed"], 2, "there is no preset 'seed'"),
        (["architecture", "nowhere.safetensors"], 1, "there is no such file"),
        (
            ["architecture", "seed-tf", "--out", "x.jpg"],
            2,
            "--out is x.jpg, which ends in '.jpg'; expected .png or .svg.",
        ),
        (["architecture", "seed-tf", "--out", "none/x.png"], 1, "cannot be written: No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_goes_wrong_is_told(cnnkit, arguments, code, message):
    done = cnnkit("plot", *arguments)
    assert done.code == code
    assert message in " ".join(done.err.split())
    assert list(Path().glob("*.png")) == []


def test_without_matplotlib_the_extra_is_named(cnnkit, monkeypatch):
    monkeypatch.delattr(package, "plot", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib" or name.startswith("cnnkit.plot")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = cnnkit("plot", "architecture", "seed-tf")
    assert done.code == 1
    assert "Pictures needs matplotlib, which is not installed. Install it with: pip install 'cnnkit[plot]'" in done.err
