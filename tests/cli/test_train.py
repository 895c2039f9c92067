"""`cnnkit train`."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cnnkit as package
from cnnkit import checkpoints
from cnnkit.evaluation import evaluate
from cnnkit.optimizers import SGD, Adam, AdamW
from cnnkit.state import same_state

RUN_FILES = [
    *("checkpoint.safetensors", "history.jsonl", "metrics.json", "mistakes.npz", "model.safetensors"),
    *("report.html", "run.json"),
]


def files_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def state_of(folder):
    return checkpoints.load(Path(folder) / "model.safetensors").state


def without_times(result):
    """A result without what differs from run to run."""
    history = [{key: value for key, value in record.items() if "seconds" not in key} for record in result["history"]]
    other = ("seconds", "memory", "out", "report", "machine", "options")
    rest = {key: value for key, value in result.items() if key not in other}
    return {**rest, "history": history}


# ------------------------------------------------------------------------------------------------------ what it prints


def test_json_is_one_object_and_all_that_is_printed(cnnkit, model_file, npz):
    done = cnnkit("train", model_file, npz, "--epochs", 3, "--seed", 7, "--out", "run", "--json")
    result = done.json
    assert done.err == ""
    for part, count in (("train", 60), ("test", 30)):
        assert set(result[part]) >= {"accuracy", "precision", "recall", "f1", "loss"}
        assert all(0 <= result[part][name] <= 1 for name in ("accuracy", "precision", "recall", "f1"))
        assert result["images"][part] == count
        assert result["seconds"][part] > 0
    assert result["seconds"]["train"] < result["seconds"]["wall"]
    assert result["seconds"]["train_per_1000"] == pytest.approx(1000 * result["seconds"]["train"] / (3 * 60))
    assert result["seconds"]["test_per_1000"] == pytest.approx(1000 * result["seconds"]["test"] / 30)
    assert (result["backend"], result["seed"], result["epochs"]) == ("numpy", 7, 3)
    assert len(result["history"]) == 3
    assert result["versions"]["cnnkit"] == package.__version__
    assert json.loads(Path("run/metrics.json").read_text()) == result


def test_the_figures_are_those_of_the_saved_model_on_the_two_sets(cnnkit, model_file, npz):
    result = cnnkit("train", model_file, npz, "--epochs", 2, "--out", "run", "--json").json
    train, test = package.load_dataset(npz)
    for part, data in (("train", train), ("test", test)):
        metrics = evaluate(checkpoints.load("run/model.safetensors").model, state_of("run").parameters, data)
        assert result[part] == json.loads(json.dumps(metrics.to_dict()))


def test_without_json_it_prints_a_table_and_no_progress_where_no_terminal_is(cnnkit, model_file, npz):
    done = cnnkit("train", model_file, npz, "--epochs", 2, "--out", "run")
    assert done.code == 0
    assert "own on " in done.out
    assert "60 images to learn from, 30 to be judged on; backend numpy, Adam 0.001, batch 64, seed 0" in done.out
    header, train, test = (
        next(line for line in done.out.splitlines() if line.startswith(start)) for start in ("   ", "train ", "test ")
    )
    assert header.split()[:5] == ["accuracy", "precision", "recall", "F1", "loss"]
    figures = json.loads(Path("run/metrics.json").read_text())
    for line, part in ((train, "train"), (test, "test")):
        shown = [f"{figures[part][name]:.4f}" for name in ("accuracy", "precision", "recall", "f1", "loss")]
        assert line.split()[1:6] == shown
    assert "Trained 2 epochs; the weights are those of the last." in done.out
    assert "The run is in run. Classify images with it: cnnkit predict run IMAGE..." in done.out
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["epoch 1", "epoch 2"]
    for character in "\r\x1b━╸%":
        assert character not in done.out + done.err


def test_a_line_longer_than_the_screen_is_not_broken(cnnkit, model_file, npz, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    done = cnnkit("train", model_file, npz, "--out", "run")
    assert f"own on {npz}: 60 images to learn from, 30 to be judged on; backend numpy" in done.out


# ------------------------------------------------------------------------------------------------------ the run folder


def test_the_run_folder_holds_the_run(cnnkit, model_file, npz):
    cnnkit("train", model_file, npz, "--epochs", 3, "--out", "deep/run", "--validation", 0.2)
    assert files_in("deep/run") == RUN_FILES
    request = json.loads(Path("deep/run/run.json").read_text())
    assert request["command"] == [
        "cnnkit",
        "train",
        "own.toml",
        str(npz),
        "--epochs",
        "3",
        "--out",
        "deep/run",
        "--validation",
        "0.2",
    ]
    assert request["model"] == str(Path("own.toml").resolve())
    history = [json.loads(line) for line in Path("deep/run/history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert history[2]["train"]["loss"] < history[0]["train"]["loss"]
    assert history[2]["validation"]["accuracy"] >= 0
    found = checkpoints.load("deep/run/model.safetensors")
    assert found.model.name == "own"
    assert found.model.class_names == ("top", "[middle]", ":bottom:")
    assert found.state.step == 3


def test_without_out_every_run_has_a_new_folder(cnnkit, model_file, npz):
    assert cnnkit("train", model_file, npz, "--json").json["out"] == "runs/own-blocks-1"
    assert cnnkit("train", model_file, npz, "--json").json["out"] == "runs/own-blocks-2"
    assert files_in("runs/own-blocks-2") == RUN_FILES


def test_a_folder_with_a_run_is_refused_and_kept(cnnkit, model_file, npz):
    cnnkit("train", model_file, npz, "--out", "my run")
    before = {name: Path("my run", name).read_bytes() for name in RUN_FILES}
    done = cnnkit("train", model_file, npz, "--out", "my run", "--seed", 1)
    assert done.code == 1
    assert "my run already holds a run. Go on with it: cnnkit train --resume 'my run'. Or choose another" in done.err
    assert {name: Path("my run", name).read_bytes() for name in RUN_FILES} == before


@pytest.mark.parametrize(
    "bad", [["--validation", "5"], ["--learning-rate", "1e38", "--optimizer", "sgd", "--epochs", "3"]]
)
def test_a_run_that_could_not_begin_leaves_no_folder_behind(cnnkit, model_file, npz, bad):
    assert cnnkit("train", model_file, npz, "--out", "run", *bad).code in (1, 2)
    assert not Path("run").exists()
    assert cnnkit("train", model_file, npz, "--out", "run").code == 0


def test_a_folder_that_cannot_be_made_is_told(cnnkit, model_file, npz):
    done = cnnkit("train", model_file, npz, "--out", model_file)
    assert done.code == 1
    assert "the run folder own.toml cannot be written: File exists. Choose another one with --out." in done.err


# ----------------------------------------------------------------------------------------------------------- options


def test_the_same_command_gives_the_same_result_and_another_seed_another(cnnkit, model_file, npz):
    one = cnnkit("train", model_file, npz, "--seed", 3, "--out", "one", "--json").json
    two = cnnkit("train", model_file, npz, "--seed", 3, "--out", "two", "--json").json
    other = cnnkit("train", model_file, npz, "--seed", 4, "--out", "other", "--json").json
    assert without_times(one) == without_times(two)
    assert same_state(state_of("one"), state_of("two"))
    assert one["history"][0]["running_loss"] != other["history"][0]["running_loss"]


def test_limit_epochs_and_batch_size_do_what_they_say(cnnkit, model_file, npz):
    result = cnnkit("train", model_file, npz, "--limit", 20, "--epochs", 4, "--batch-size", 8, "--json").json
    assert result["images"] == {"train": 20, "test": 20}
    assert result["batch_size"] == 8
    assert [record["steps"] for record in result["history"]] == [3, 6, 9, 12]
    assert cnnkit("train", model_file, npz, "--limit", 25, "--json").json["images"] == {"train": 25, "test": 25}


def test_a_preset_brings_its_settings_and_takes_shape_and_classes_from_the_data(cnnkit, npz):
    result = cnnkit("train", "seed-numpy", npz, "--limit", 6, "--out", "run", "--json").json
    assert result["optimizer"] == {
        "kind": "sgd",
        "learning_rate": 0.005,
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
    }
    assert (result["batch_size"], result["epochs"]) == (1, 1)
    model = checkpoints.load("run/model.safetensors").model
    assert model.input_shape == (8, 8, 1)
    assert model.class_names == ("top", "[middle]", ":bottom:")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Adam(learning_rate=1e-3)),
        (["--learning-rate", "0.5"], Adam(learning_rate=0.5)),
        (["--optimizer", "sgd"], SGD(learning_rate=0.01)),
        (["--optimizer", "sgd", "--learning-rate", "0"], SGD(learning_rate=0.0)),
        (["--optimizer", "adamw", "--learning-rate", "0.02"], AdamW(learning_rate=0.02)),
    ],
)
def test_the_optimizer_and_its_rate_are_as_asked(cnnkit, model_file, npz, arguments, expected):
    assert cnnkit("train", model_file, npz, "--out", "run", *arguments).code == 0
    assert checkpoints.load("run/model.safetensors").optimizer == expected


def test_patience_stops_early_on_a_validation_set_of_its_own(cnnkit, model_file, npz):
    result = cnnkit("train", model_file, npz, "--epochs", 30, "--patience", 1, "--learning-rate", 0.3, "--json").json
    assert result["epochs"] < 30
    assert result["history"][0]["validation"] is not None
    assert f"Ended after epoch {result['epochs']} (no better validation.loss for 1 epochs)" in result["message"]


def test_images_held_out_are_not_counted_among_those_learned_from(cnnkit, model_file, npz):
    result = cnnkit("train", model_file, npz, "--validation", 0.25, "--epochs", 2, "--out", "run", "--json").json
    assert result["images"] == {"train": 45, "test": 30}
    assert result["train"]["count"] == 45
    assert {name: result["train"][name] for name in ("loss", "accuracy", "f1")} == {
        name: result["history"][1]["train"][name] for name in ("loss", "accuracy", "f1")
    }
    assert result["seconds"]["train_per_1000"] == pytest.approx(1000 * result["seconds"]["train"] / (2 * 45))
    by_fit = package.fit(
        checkpoints.load("run/model.safetensors").model, package.load_dataset(npz)[0], validation=0.25, epochs=2
    )
    assert same_state(state_of("run"), by_fit.state)


def test_options_of_the_backend_reach_it_and_threads_change_no_bit(cnnkit, model_file, npz):
    one = cnnkit("train", model_file, npz, "--out", "one", "--json").json
    two = cnnkit("train", model_file, npz, "--out", "two", "--set", "threads=2", "--json").json
    assert two["options"] == {"threads": 2}
    assert without_times(one) == without_times(two)
    assert same_state(state_of("one"), state_of("two"))


def test_precision_is_that_of_the_parameters(cnnkit, model_file, npz):
    assert (
        cnnkit("train", model_file, npz, "--out", "run", "--precision", "float64", "--json").json["precision"]
        == "float64"
    )
    assert {array.dtype.name for array in state_of("run").parameters.values()} == {"float64"}


def test_data_dir_holds_the_known_data_sets(cnnkit, tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        f"{axis}_{part}": random.integers(
            0, 256 if axis == "x" else 10, (count, 28, 28) if axis == "x" else count, dtype=np.uint8
        )
        for part, count in (("train", 40), ("test", 12))
        for axis in "xy"
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    result = cnnkit("train", "mlp-1h", "mnist", "--data-dir", tmp_path, "--limit", 30, "--out", "run", "--json").json
    assert result["images"] == {"train": 30, "test": 12}
    assert result["dataset"] == "mnist"
    assert checkpoints.load("run/model.safetensors").model.input_shape == (28, 28, 1)


def test_a_folder_of_images_is_a_data_set(cnnkit, npz):
    pillow = pytest.importorskip("PIL.Image")
    with np.load(npz) as arrays:
        for number, (image, label) in enumerate(zip(arrays["x_train"], arrays["y_train"], strict=True)):
            folder = Path("pictures", ("a", "b", "c")[label])
            folder.mkdir(parents=True, exist_ok=True)
            pillow.fromarray(image[..., 0]).save(folder / f"{number}.png")
    result = cnnkit("train", "mlp-1h", "pictures", "--json").json
    assert result["images"] == {"train": 48, "test": 12}


def test_a_known_name_stands_before_a_path_of_the_same_name(cnnkit):
    for name in ("digits", "mlp-1h"):
        Path(name).mkdir()
    result = cnnkit("train", "mlp-1h", "digits", "--limit", 10, "--epochs", 1, "--out", "run", "--json").json
    assert result["dataset"] == "digits"
    assert json.loads(Path("run/run.json").read_text())["model"] == "mlp-1h"


# ---------------------------------------------------------------------------------------------------------- backends


def test_cnnkit_backend_names_the_backend_and_the_option_stands_before_it(
    cnnkit, model_file, npz, plugin_folder, on_path, monkeypatch
):
    on_path(plugin_folder)
    monkeypatch.setenv("CNNKIT_BACKEND", "there-is-none, loopback")
    assert cnnkit("train", model_file, npz, "--out", "env", "--json").json["backend"] == "loopback"
    assert cnnkit("train", model_file, npz, "--out", "opt", "--backend", "numpy", "--json").json["backend"] == "numpy"
    assert cnnkit("train", model_file, npz, "--out", "two", "-b", "nope,numpy", "--json").json["backend"] == "numpy"
    assert same_state(state_of("env"), state_of("opt"))
    monkeypatch.setenv("CNNKIT_BACKEND", "nonsense")
    done = cnnkit("train", model_file, npz)
    assert done.code == 2
    assert "No backend is called 'nonsense' (the environment variable CNNKIT_BACKEND is 'nonsense')" in done.err


def test_a_backend_that_is_not_ready_is_a_failure_and_not_a_wrong_use(cnnkit, model_file, npz, monkeypatch):
    monkeypatch.setenv("CNNKIT_DISABLE_BACKENDS", "numpy")
    done = cnnkit("train", model_file, npz)
    assert done.code == 1
    assert "Backend 'numpy' is not ready (disabled)" in done.err


# ---------------------------------------------------------------------------------------------------------- wrong use


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["seed-tff", "digits"],
            "there is no preset 'seed-tff'; presets are mlp-1h, seed-numpy, seed-tf. Did you mean 'seed-tf'?",
        ),
        (["none.toml", "digits"], "the model file none.toml cannot be read: "),
        (["mlp-1h", "digitz"], "there is no data set, .npz file or folder called 'digitz'. Did you mean 'digits'?"),
        (["mlp-1h", "digits", "--backend", "numpi"], "No backend is called 'numpi'. Did you mean 'numpy'?"),
        (["mlp-1h", "digits", "--backend", ""], "backend is ''; expected a name"),
        (["mlp-1h", "digits", "--set", "bogus=1"], "'bogus'"),
        (
            ["mlp-1h", "digits", "--set", "threads"],
            "--set 'threads' is not NAME=VALUE. Write for example --set threads=2.",
        ),
        (["mlp-1h", "digits", "--set", "threads=two"], "threads is 'two'; expected a whole number of at least 1"),
        (["mlp-1h", "digits", "--optimizer", "rmsprop"], "--optimizer is 'rmsprop'; expected one of sgd, adam, adamw."),
        (["mlp-1h", "digits", "--learning-rate", "-1"], "Adam: learning_rate is -1.0; expected a finite number"),
        (["mlp-1h", "digits", "--learning-rate", "nan"], "Adam: learning_rate is nan; expected a finite number"),
        (["mlp-1h", "digits", "--precision", "half"], "precision is 'half'; expected 'float32' or 'float64'"),
        (["mlp-1h", "digits", "--validation", "1.5"], "fraction is 1.5; expected a number between 0 and 1"),
        (["mlp-1h", "digits", "--epochs", "0"], "Invalid value for '--epochs'"),
        (["mlp-1h", "digits", "--epochs", "many"], "Invalid value for '--epochs'"),
        (["mlp-1h", "digits", "--seed", "-1"], "Invalid value for '--seed'"),
        (["mlp-1h", "digits", "--bogus"], "No such option: --bogus"),
        (["mlp-1h", "digits", "third"], "third"),
        ([], "train needs MODEL and DATASET: cnnkit train seed-numpy digits. Or --resume RUN."),
        (["mlp-1h"], "train needs MODEL and DATASET"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_ends_with_2_and_a_sentence(cnnkit, arguments, message):
    done = cnnkit("train", *arguments, "--json")
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert done.out == ""
    assert list(Path().glob("runs/*")) == []


def test_an_unknown_option_of_the_backend_lists_those_that_it_has(cnnkit):
    assert "threads" in cnnkit("train", "mlp-1h", "digits", "--set", "bogus=1").err


def test_every_problem_of_a_model_file_is_listed_with_its_path(cnnkit, npz):
    Path("bad.toml").write_text(
        'version = 1\ninput_shape = [8, 8, 1]\nlayers = [{ kind = "conv2d", filters = 0, kernel_size = 3 },'
        '{ kind = "convolve" }, { kind = "dense", units = "many" }]\n'
    )
    done = cnnkit("train", "bad.toml", npz)
    assert done.code == 2
    assert "bad.toml has 3 problems:" in done.err
    for number, path in enumerate(("layers[0].filters", "layers[1].kind", "layers[2].units"), start=1):
        assert f"  {number}. {path} " in done.err


def test_a_file_that_is_no_model_is_told_from_a_preset(cnnkit, npz):
    Path("notes.txt").write_text("hello")
    done = cnnkit("train", "notes.txt", npz)
    assert done.code == 2
    assert (
        "notes.txt is neither a preset nor a model file; a model file ends in .toml or .json, and presets are mlp-1h, "
        in done.err
    )


def test_data_that_do_not_fit_the_model_file_are_a_failure(cnnkit, model_file):
    done = cnnkit("train", model_file, "digits")
    assert done.code == 1
    assert "the data has 10 classes, but model 'own' tells 3 apart. Give its last Dense layer 10 units." in done.err


def test_a_loss_that_is_nan_is_a_failure(cnnkit, model_file, npz):
    done = cnnkit("train", model_file, npz, "--optimizer", "sgd", "--learning-rate", 1e30, "--epochs", 5, "--json")
    assert done.code == 1
    assert "Try a lower learning rate (it was 1e+30)" in done.err
    assert done.out == ""


# ----------------------------------------------------------------------------------------------------------- resuming


def test_a_run_resumed_with_more_epochs_ends_as_one_that_had_them_from_the_start(
    cnnkit, model_file, npz, tmp_path, monkeypatch
):
    settings = ["--seed", 5, "--batch-size", 8, "--validation", 0.2]
    whole = cnnkit("train", model_file, npz, "--epochs", 4, "--out", "whole", "--json", *settings).json
    cnnkit("train", model_file, npz, "--epochs", 2, "--out", "run", *settings)
    folder = Path("run").resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # a run can be gone on with from anywhere
    resumed = cnnkit("train", "--resume", folder, "--epochs", 4, "--json").json
    assert without_times(resumed) == without_times(whole)
    assert same_state(state_of(folder), state_of(folder.parent / "whole"))
    again = cnnkit("train", "--resume", folder, "--json").json
    assert again["history"] == resumed["history"]
    assert json.loads((folder / "run.json").read_text())["epochs"] == 4


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--seed", "0"], "--seed"),
        (["mlp-1h", "digits"], "MODEL, DATASET"),
        (["--set", "threads=2", "--batch-size", "64"], "--set, --batch-size"),
        (["--out", "other", "--limit", "3"], "--out, --limit"),
    ],
)
def test_what_resuming_would_ignore_is_refused(cnnkit, model_file, npz, more, named):
    cnnkit("train", model_file, npz, "--out", "run")
    done = cnnkit("train", "--resume", "run", *more)
    assert done.code == 2
    assert f"--resume takes everything but --epochs from the run itself; leave out {named}." in done.err


def test_what_is_no_run_cannot_be_resumed(cnnkit, model_file, npz):
    done = cnnkit("train", "--resume", "nowhere")
    assert done.code == 1
    assert "nowhere holds no run that can be resumed: nowhere/run.json cannot be read (No such file" in done.err
    cnnkit("train", model_file, npz, "--out", "run")
    for text in ("{", "[]", '{"model": "mlp-1h"}'):
        Path("run/run.json").write_text(text)
        done = cnnkit("train", "--resume", "run")
        assert done.code == 1
        assert "run/run.json is damaged (" in done.err


def test_a_run_whose_data_have_changed_is_not_gone_on_with(cnnkit, model_file, npz):
    Path("mine.npz").write_bytes(npz.read_bytes())
    cnnkit("train", model_file, "mine.npz", "--out", "run")
    with np.load(npz) as arrays:
        changed = dict(arrays)
    changed["x_train"][0, 0, 0] += 1
    np.savez("mine.npz", **changed)
    before = {name: Path("run", name).read_bytes() for name in RUN_FILES}
    done = cnnkit("train", "--resume", "run")
    assert done.code == 1
    assert "run holds a run with other settings: train was {" in done.err
    assert {name: Path("run", name).read_bytes() for name in RUN_FILES} == before


# ----------------------------------------------------------------------------------------------- as a real process

# Ctrl-C must do what it does in a shell also where the tests were started in the background, which ignores it.
COMMAND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from cnnkit.cli import main; main()"
LONG = ["train", "mlp-1h", "digits", "--epochs", "15", "--patience", "14", "--seed", "2", "--out"]


def start(*arguments, **settings):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", COMMAND, *map(str, arguments)], **{**pipes, **settings})


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    with start(*LONG, folder, "--json") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return folder, json.loads(out)


def assert_resumed(command, unbroken):
    folder, result = unbroken
    with start(*command, "--json") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert without_times(json.loads(out)) == without_times(result)
    assert same_state(state_of(command[-1]), state_of(folder))


def test_ctrl_c_saves_the_run_and_says_with_what_command_it_goes_on(unbroken):
    with start(*LONG, "my run") as process:
        wait_for(Path("my run/history.jsonl").exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    stopped, go_on = err.splitlines()[-2:]
    assert stopped.startswith("Stopped ")
    assert stopped.endswith("Saved in my run/checkpoint.safetensors; resume to go on from there.")
    assert "Traceback" not in err
    assert "Aborted" not in err
    assert go_on.startswith("Go on with it: cnnkit train --resume ")
    assert not Path("my run/model.safetensors").exists()
    assert_resumed(shlex.split(go_on.removeprefix("Go on with it: "))[1:], unbroken)


def test_a_run_killed_at_any_time_is_gone_on_with_to_the_same_end(unbroken):
    history, written = Path("run/history.jsonl"), 0
    for command, delay in ([*LONG, "run"], 0.0), (["train", "--resume", "run"], 0.15):
        with start(*command) as process:
            wait_for(lambda written=written: history.exists() and history.stat().st_mtime_ns > written)
            time.sleep(delay)
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        written = history.stat().st_mtime_ns
    assert not Path("run/metrics.json").exists()
    assert_resumed(["train", "--resume", "run"], unbroken)


def test_a_reader_that_goes_away_is_no_crash():
    with start("train", "mlp-1h", "digits", "--limit", 20, "--epochs", 1) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode in (0, 1)
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_raw_pixels_are_a_note_on_the_standard_error(npz):
    Path("raw.json").write_text(
        '{"version": 1, "input_shape": [8, 8, 1], "layers": [{"kind": "flatten"}, {"kind": "dense", "units": 3}, {"kind": "softmax"}]}'
    )
    with start("train", "raw.json", npz, "--learning-rate", 1e-9, "--json") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert isinstance(json.loads(out), dict)
    assert err.startswith("note: the images are raw pixels from 0 to 255 and the model does not rescale them")
    assert "training.py" not in err


def test_a_preset_of_one_epoch_can_be_resumed_with_more(cnnkit, npz, tmp_path):
    folder = tmp_path / "run"
    assert cnnkit("train", "seed-numpy", npz, "--out", folder).code == 0
    resumed = cnnkit("train", "--resume", folder, "--epochs", 2, "--json").json
    assert [record["epoch"] for record in resumed["history"]] == [1, 2]


def test_images_of_a_folder_are_resized_on_demand_and_again_when_the_run_is_resumed(cnnkit, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    for name, value in (("dark", 30), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(5):
            picture = pillow.new("L", (9 + number, 10), value + number)
            picture.save(tmp_path / "images" / name / f"{number}.png")
    done = cnnkit("train", "seed-numpy", tmp_path / "images", "--out", tmp_path / "run")
    assert done.code == 1
    assert "on the command line --image-size" in done.err
    size = ("--image-size", 8, 7)
    done = cnnkit("train", "seed-numpy", tmp_path / "images", *size, "--out", tmp_path / "run", "--json")
    assert done.json["images"] == {"train": 8, "test": 2}
    assert len(cnnkit("train", "--resume", tmp_path / "run", "--epochs", 2, "--json").json["history"]) == 2
    shown = cnnkit("data", "show", tmp_path / "images", *size, "--json").json
    assert shown["image_shape"] == [8, 7, 1]
    judged = cnnkit("evaluate", tmp_path / "run", tmp_path / "images", *size, "--json").json
    assert judged["count"] == 2
    unsaid = cnnkit("evaluate", tmp_path / "run", tmp_path / "images", "--json").json
    assert unsaid["loss"] == judged["loss"]  # a trained model says itself what size it takes
    for command in (("trace",), ("plot", "patches"), ("plot", "mistakes"), ("plot", "convolution")):
        done = cnnkit(*command, tmp_path / "run/model.safetensors", tmp_path / "images", "--json")
        assert done.code == 0, done.err


def test_data_in_one_piece_is_split_alike_by_train_with_any_seed_and_by_evaluate(cnnkit, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "one.npz", images=images, labels=np.arange(60) % 3)
    trained = cnnkit("train", "seed-numpy", tmp_path / "one.npz", "--seed", 7, "--out", tmp_path / "run", "--json").json
    judged = cnnkit("evaluate", tmp_path / "run", tmp_path / "one.npz", "--json").json
    assert judged["confusion"] == trained["test"]["confusion"]
    assert judged["loss"] == pytest.approx(trained["test"]["loss"], rel=1e-6)


def test_a_limit_that_leaves_classes_out_is_noted_and_the_model_keeps_all_classes(cnnkit, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    labels = np.repeat([0, 1, 2], 20)
    np.savez(tmp_path / "sorted.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    done = cnnkit("train", "seed-numpy", tmp_path / "sorted.npz", "--limit", 20, "--out", tmp_path / "run")
    assert done.code == 0
    assert "note: the first 20 images hold none of 2 classes; the data seem to be sorted by class." in done.err
    assert len(checkpoints.load(tmp_path / "run" / "model.safetensors").parameters["5.bias"]) == 3


def test_fewer_epochs_than_the_run_has_are_refused(cnnkit, npz, tmp_path):
    cnnkit("train", "seed-numpy", npz, "--epochs", 3, "--out", tmp_path / "run")
    done = cnnkit("train", "--resume", tmp_path / "run", "--epochs", 2)
    assert done.code == 2
    assert "--epochs 2 is less than the 3 of the run. Give more, or none." in done.err


def test_what_is_held_out_and_what_a_chain_passed_over_is_said(cnnkit, npz, tmp_path):
    done = cnnkit("train", "seed-numpy", npz, "--patience", 1, "--backend", "nonesuch,numpy", "--out", tmp_path / "run")
    assert "54 images to learn from, 6 held out, 30 to be judged on" in done.out
    assert "note: not nonesuch: No backend is called 'nonesuch'" in done.err


def test_a_test_part_without_images_is_refused_before_training(cnnkit, tmp_path):
    images = np.zeros((6, 8, 8, 1), np.uint8)
    labels = np.arange(6) % 3
    np.savez(tmp_path / "e.npz", x_train=images, y_train=labels, x_test=images[:0], y_test=labels[:0])
    done = cnnkit("train", "seed-numpy", tmp_path / "e.npz", "--out", tmp_path / "run")
    assert done.code == 1
    assert "has 0 images. Give data with images in both parts." in done.err
    assert not (tmp_path / "run").exists()


def test_an_output_that_knows_few_characters_gets_a_summary_all_the_same():
    command = [sys.executable, "-m", "cnnkit", "summary", "seed-tf"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert b"220,234" in done.stdout


def test_a_report_that_cannot_be_written_costs_nothing_else(cnnkit, npz, model_file):
    Path("run/report.html").mkdir(parents=True)
    done = cnnkit("train", model_file, npz, "--out", "run")
    assert done.code == 1
    assert "report.html cannot be written" in done.err
    assert "When that is mended: cnnkit report run" in done.err
    assert re.search(r"^test +0\.\d{4}", done.out, re.MULTILINE)
    assert json.loads(Path("run/metrics.json").read_text())["test"]["accuracy"] > 0
    Path("run/report.html").rmdir()
    assert cnnkit("report", "run").code == 0
    assert Path("run/report.html").is_file()
