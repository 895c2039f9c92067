"""`cnnkit summary`, `models`, `backends`, `doctor`, `data show` and `bench`: looking without training; and the program itself."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import cnnkit as package
from cnnkit.bench import Timing
from cnnkit.model import Model

# ------------------------------------------------------------------------------------------------------------- summary


@pytest.fixture
def model_files(model_file):
    """The same model as a preset's name would be given: as a TOML file and as a JSON file."""
    Path("own.json").write_text(Model.from_toml(Path(model_file).read_text()).to_json())
    return [model_file, "own.json"]


# own: 3 x 3 x 1 x 4 + 4 = 40; 6 x 6 x 4 = 144 features, times 3, + 3 = 435
def test_summary_counts_parameters_of_a_file_in_both_formats(cnnkit, model_files):
    found = [cnnkit("summary", file, "--json").json for file in model_files]
    assert found[0] == found[1]
    assert found[0]["parameters"] == 40 + 435
    assert cnnkit("summary", model_files[0]).out == cnnkit("summary", model_files[1]).out


# seed-numpy on 28 x 28 x 1: 3 x 3 x 16 + 16 = 160; 13 x 13 x 16 = 2,704 features, times 10, + 10 = 27,050
def test_summary_of_a_preset(cnnkit):
    assert cnnkit("summary", "seed-numpy", "--json").json["parameters"] == 160 + 27050
    done = cnnkit("summary", "seed-numpy")
    assert done.code == 0
    assert "27,210" in done.out
    assert "13 x 13 x 16" in done.out


def test_summary_of_a_run_folder_and_of_its_checkpoint_is_that_of_the_model_that_was_trained(
    cnnkit, model_file, tmp_path
):
    found = Model.from_toml(Path(model_file).read_text())
    (tmp_path / "a run").mkdir()
    path = package.save(tmp_path / "a run" / "model.safetensors", found, package.initial_parameters(found, seed=0))
    assert "435" in cnnkit("summary", path.parent).out
    assert cnnkit("summary", path.parent).out == cnnkit("summary", path).out == cnnkit("summary", model_file).out


class Rows(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.open = 0, []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002 - HTMLParser's signature
        self.rows += tag == "tr"
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_summary_as_html_is_one_well_formed_table(cnnkit):
    done = cnnkit("summary", "seed-numpy", "--html")
    assert done.code == 0
    table = Rows()
    table.feed(done.out)
    assert table.open == []
    assert done.out.count("<table") == 1
    assert table.rows >= 1 + 7


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ('version = 1\ninput_shape = [8, 8, 1]\nlayers = [{kind = "dens", units = 3}]', ["layers[0].kind", "'dens'"]),
        (
            """
            version = 1
            input_shape = [8, 8, 1]
            layers = [{kind = "conv2d", filters = 2, kernel_size = 9}, {kind = "dense", units = 3}]
            """,
            [
                "bad.toml has 3 problems",
                "layers[0].kernel_size is 9, which does not fit the 8 x 8",
                "layers[1] is Dense",
            ],
        ),
        ("version = 2\ninput_shape = [8]\nlayers = []", ["version"]),
        ("this is no toml", ["bad.toml"]),
    ],
)
def test_summary_of_a_bad_model_file_is_wrong_use_and_lists_all(cnnkit, text, messages):
    Path("bad.toml").write_text(text)
    done = cnnkit("summary", "bad.toml", "--json")
    assert done.code == 2
    for message in messages:
        assert message in done.err
    assert done.out == ""
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", ["none.json", "", "digits"])
def test_summary_of_no_model_names_the_presets(cnnkit, name):
    done = cnnkit("summary", name)
    assert done.code == 2
    assert "mlp-1h, seed-numpy, seed-tf" in done.err


def test_a_folder_called_like_a_preset_hides_no_preset(cnnkit):
    Path("seed-tf").mkdir()
    assert cnnkit("summary", "seed-tf").code == 0


# -------------------------------------------------------------------------------------------------------------- models


def test_models_lists_every_preset(cnnkit):
    rows = cnnkit("models", "--json").json["models"]
    assert [row["name"] for row in rows] == ["mlp-1h", "seed-numpy", "seed-tf"]
    assert [row["optimizer"] for row in rows] == ["Adam", "SGD", "Adam"]
    assert rows[1]["parameters"] == 27210
    assert all(Model.from_dict(row["model"]).plan().classes == 10 for row in rows)
    printed = cnnkit("models").out
    for row in rows:
        assert row["name"] in printed
        assert f"{row['parameters']:,}" in printed


# ------------------------------------------------------------------------------------------------- backends and doctor


def test_backends_lists_the_states_and_why_some_are_not_ready(cnnkit, plugin_folder, on_path, monkeypatch):
    on_path(plugin_folder)
    monkeypatch.setenv("CNNKIT_DISABLE_BACKENDS", "slow")
    rows = {row["name"]: row for row in cnnkit("backends", "--json").json["backends"]}
    assert rows["numpy"]["state"] == "ready"
    assert rows["numpy"]["devices"] == ["cpu"]
    assert rows["missing-dependency"]["state"] == "missing-dependency"
    done = cnnkit("backends")
    assert done.code == 0
    assert done.err == ""
    for name, row in rows.items():
        (line,) = [line for line in done.out.splitlines() if line.startswith(f"{name} ")]
        assert row["state"] in line
        if row["state"] != "ready":
            assert f"{name}: {row['reason']}. {row['fix']}." in done.out


def test_doctor_takes_a_step_on_a_ready_backend(cnnkit):
    report = cnnkit("doctor", "numpy", "--json").json
    assert report["ok"] is True
    before, after = (float(number) for number in report["trial"].split("loss ")[1].split(", then "))
    assert after < before
    done = cnnkit("doctor", "numpy", "--precision", "float64", "--set", "threads=2")
    assert done.code == 0
    assert "one training step of a small network: loss " in done.out
    assert "ready" in done.out


def test_doctor_lets_a_backend_that_only_predicts_predict(cnnkit, plugin_folder, on_path):
    on_path(plugin_folder)
    done = cnnkit("doctor", "inference-only")
    assert done.code == 0
    assert "one prediction of a small network; the backend does not train" in done.out
    done = cnnkit("doctor", "null")
    assert done.code == 1
    assert "took the loss from" in done.out


def test_doctor_of_an_unknown_backend_is_wrong_use(cnnkit):
    done = cnnkit("doctor", "numpi", "--json")
    assert done.code == 2
    assert "No backend is called 'numpi'. Did you mean 'numpy'?" in done.err
    assert done.out == ""


def test_doctor_shows_the_root_cause_of_a_broken_backend(cnnkit, plugin_folder, on_path):
    on_path(plugin_folder)
    done = cnnkit("doctor", "broken-import")
    assert done.code == 1
    assert "root cause  KeyError('engine')" in done.out
    assert "RuntimeError: the engine is not set up" in done.out
    as_json = cnnkit("doctor", "broken-import", "--json")
    assert as_json.code == 1
    report = json.loads(as_json.out)
    assert (report["ok"], report["state"], report["root_cause"]) == (False, "broken", "KeyError('engine')")


def test_doctor_tells_an_option_that_the_backend_refuses(cnnkit):
    done = cnnkit("doctor", "numpy", "--set", "bogus=1")
    assert done.code == 1
    assert "failed: " in done.out
    assert "bogus" in done.out


def test_doctor_shows_whatever_a_backend_raises_in_its_trial(cnnkit, monkeypatch):
    def fall_over(*_):
        raise RuntimeError("the engine fell over") from KeyError("oil")

    monkeypatch.setattr("cnnkit_numpy.backend.NumpyBackend.compile_training", fall_over)
    done = cnnkit("doctor", "numpy")
    assert done.code == 1
    assert "trial       failed: RuntimeError('the engine fell over')" in done.out
    assert "root cause  KeyError('oil')" in done.out
    assert json.loads(cnnkit("doctor", "numpy", "--json").out)["ok"] is False


def test_doctor_looks_at_the_device_that_was_asked_for(cnnkit):
    report = json.loads(cnnkit("doctor", "numpy", "--device", "gpu:0", "--json").out)
    assert report["state"] == "no-device"
    assert report["trial"] is None


# ----------------------------------------------------------------------------------------------------------- data show


def test_data_show_counts_the_images_of_each_class(cnnkit, npz):
    found = cnnkit("data", "show", npz, "--json").json
    assert found["image_shape"] == [8, 8, 1]
    assert found["dtype"] == "uint8"
    assert found["classes"] == [{"name": name, "train": 20, "test": 10} for name in ("top", "[middle]", ":bottom:")]
    with np.load(npz) as arrays:
        assert found["range"] == [arrays["x_train"].min(), arrays["x_train"].max()]


def test_data_show_draws_an_image_of_each_class(cnnkit, npz):
    done = cnnkit("data", "show", npz)
    assert done.code == 0
    assert done.err == ""
    assert "60 images to learn from and 30 to be judged on, 8 x 8 x 1, uint8, values " in done.out
    counts = [line.split() for line in done.out.splitlines() if line.split()[1:] == ["20", "10"]]
    assert [line[0] for line in counts] == ["top", "[middle]", ":bottom:"]
    drawn = done.out.splitlines()[-8:]
    bright = [not {*"@%#*+"}.isdisjoint(line[:16]) for line in drawn]  # the block of the first class is at the top
    assert bright[:3] == [True] * 3
    assert bright[3:] == [False] * 5


def test_data_show_knows_digits_and_the_limit(cnnkit):
    found = cnnkit("data", "show", "digits", "--limit", 100, "--json").json
    assert sum(row["train"] for row in found["classes"]) == 100
    assert [row["name"] for row in found["classes"]] == list("0123456789")


def test_data_show_of_images_with_nan_says_so_and_of_rows_draws_nothing(cnnkit):
    images = np.random.default_rng(0).random((10, 4, 4, 1), dtype=np.float32)
    images[:2, 1, 1] = np.nan
    np.savez("nan.npz", images=images, labels=np.zeros(10, np.int64))
    done = cnnkit("data", "show", "nan.npz")
    assert done.code == 0
    assert cnnkit("data", "show", "nan.npz", "--json").json["image_shape"] == [4, 4, 1]
    images[:] = np.inf
    np.savez("inf.npz", images=images, labels=np.zeros(10, np.int64))
    assert "????????" in cnnkit("data", "show", "inf.npz").out
    np.savez("rows.npz", images=np.eye(10), labels=np.arange(10) % 2)
    done = cnnkit("data", "show", "rows.npz")
    assert "8 images to learn from and 2 to be judged on, 10, float64, values 0 to 1" in done.out
    assert "@" not in done.out


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("none", 2, "there is no data set, .npz file or folder called 'none'"),
        ("broken.npz", 1, "broken.npz cannot be read: "),
        ("pickled.npz", 1, "pickled.npz holds Python objects, which we do not load"),
    ],
)
def test_data_show_of_what_is_none_ends_with_a_code_and_a_sentence(cnnkit, name, code, message):
    Path("broken.npz").write_bytes(b"PK nothing")
    np.savez("pickled.npz", images=np.array([{}, {}], dtype=object), labels=np.arange(2), allow_pickle=True)
    done = cnnkit("data", "show", name)
    assert done.code == code
    assert message in done.err


# --------------------------------------------------------------------------------------------------------------- bench


def test_bench_prints_what_was_measured_against_the_loops(cnnkit, monkeypatch):
    timings = [Timing("seed loops", train=1000.0, predict=300.0), Timing("numpy", train=10.0, predict=2.0)]
    asked = []

    def measured(*arguments, **settings):
        asked.append((arguments, settings))
        return timings, "There is no peer."

    monkeypatch.setattr("cnnkit.cli.bench.measure_seed", measured)
    monkeypatch.setattr("cnnkit.cli.bench.measure_import", lambda: {"numpy": 0.1, "cnnkit": 0.25})
    found = cnnkit("bench", "--images", 64, "--rounds", 2, "--set", "threads=2", "--json").json
    assert asked == [((["numpy"], 64, 2), {"options": {"threads": 2}})]
    assert found["import_seconds"] == {"numpy": 0.1, "cnnkit": 0.25}
    assert [row["name"] for row in found["seed_numpy"]] == ["seed loops", "numpy"]
    done = cnnkit("bench")
    assert done.code == 0
    (line,) = [line for line in done.out.splitlines() if line.startswith("numpy")]
    assert line.split() == ["numpy", "10", "100", "x", "2", "150", "x"]
    assert "import: numpy 100 ms (1.0 x), cnnkit 250 ms (2.5 x)" in done.out
    assert "There is no peer." in done.out


def test_bench_of_an_unknown_backend_is_wrong_use(cnnkit):
    assert cnnkit("bench", "--backend", "numpi").code == 2
    assert cnnkit("bench", "--images", 1).code == 2


# --------------------------------------------------------------------------------------------------------- the program


def test_version_and_help_are_no_error(cnnkit):
    assert cnnkit("--version").out == f"{package.__version__}\n"
    done = cnnkit("--help")
    assert done.code == 0
    for command in ("train", "evaluate", "predict", "summary", "models", "backends", "doctor", "bench", "data"):
        assert f" {command} " in done.out
        assert cnnkit(command, "-h").code == 0


def test_what_is_no_command_is_wrong_use(cnnkit):
    assert cnnkit("trian").code == 2
    assert cnnkit("--bogus").code == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["models"], 0), (["doctor", "numpy", "--device", "moon"], 1), (["summary", "none.toml"], 2), (["bogus"], 2)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_the_installed_command_ends_with_these_codes(arguments, code):
    script = Path(sys.executable).with_name("cnnkit")
    command = [script] if script.exists() else [sys.executable, "-c", "from cnnkit.cli import main; main()"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_training_part_without_images_is_nothing_to_show(cnnkit, tmp_path):
    images, labels = np.zeros((0, 4, 4, 1), np.uint8), np.zeros(0, np.int64)
    np.savez(tmp_path / "e.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    done = cnnkit("data", "show", tmp_path / "e.npz")
    assert done.code == 1
    assert "has 0 images, so there is nothing to show. Give data with images." in done.err
