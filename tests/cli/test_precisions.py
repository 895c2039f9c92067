"""A precision that only one backend has: where it may be asked for, and where it is printed."""

import json
import sys
import textwrap

import pytest
from PIL import Image

SAID = "coarse (all but 3 bits)"
PLUGIN = """
    from cnnkit.plugins import Availability, get_backend, hookimpl

    @hookimpl
    def cnnkit_probe():
        return Availability.ready()

    made = []

    @hookimpl
    def cnnkit_create_backend(precision):
        made.append(precision)
        assert precision in ("float32", "coarse")
        return get_backend("numpy")  # rounds nothing, but knows float32 arrays alone

    @hookimpl
    def cnnkit_precisions():
        return {"coarse": "all but 3 bits"}
"""


@pytest.fixture(autouse=True)
def _blunt(tmp_path, on_path):
    """A backend `blunt`, which has the precision `coarse`."""
    information = tmp_path / "site" / "blunt-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: blunt\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[cnnkit.backends]\nblunt = blunt_plugin\n")
    (tmp_path / "site" / "blunt_plugin.py").write_text(textwrap.dedent(PLUGIN))
    on_path(tmp_path / "site")


def lines_of(done):
    assert done.code == 0, done.err
    return done.err.split("\n")


def test_who_trains_judges_or_predicts_in_it_is_told_what_is_rounded(cnnkit, npz, tmp_path):
    coarse = ("--backend", "blunt", "--precision", "coarse")
    run, image_file = tmp_path / "run", tmp_path / "grey.png"
    Image.new("L", (8, 8)).save(image_file)
    assert f"precision: {SAID}" in lines_of(cnnkit("train", "mlp-1h", npz, *coarse, "--epochs", 1, "--out", run))
    assert f"precision: {SAID}" in lines_of(cnnkit("evaluate", run, npz, *coarse))
    assert f"precision: {SAID}" in lines_of(cnnkit("predict", run, image_file, *coarse))
    for command in (("evaluate", run, npz), ("predict", run, image_file)):
        assert "precision:" not in cnnkit(*command, "--backend", "blunt").err
        assert cnnkit(*command, *coarse, "--json").json["rounded"] == SAID
        assert cnnkit(*command, "--backend", "blunt", "--json").json["rounded"] is None


def test_a_run_keeps_it_and_goes_on_in_it(cnnkit, npz, tmp_path):
    run = tmp_path / "run"
    done = cnnkit(
        *("train", "mlp-1h", npz, "--backend", "blunt", "--precision", "coarse", "--epochs", 1, "--out", run, "--json")
    )
    assert (done.json["precision"], done.json["rounded"]) == ("coarse", SAID)
    assert json.loads((run / "run.json").read_text())["precision"] == "coarse"
    more = cnnkit("train", "--resume", run, "--epochs", 2, "--json")
    assert f"precision: {SAID}" in more.err
    assert (more.json["precision"], more.json["epochs"]) == ("coarse", 2)
    asked = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(asked | {"precision": "float32", "epochs": 3}))
    other = cnnkit("train", "--resume", run)
    assert other.code == 1
    assert 'precision was "coarse", now "float32"' in other.err


def test_the_doctor_tells_which_there_are_and_tries_one(cnnkit):
    done = cnnkit("doctor", "blunt", "--precision", "coarse")
    assert done.code == 0
    assert f"precisions  float32, float64, {SAID}\n" in done.out
    assert f"one training step of a small network, in {SAID}: loss" in done.out
    assert cnnkit("doctor", "blunt", "--json").json["own_precisions"] == {"coarse": "all but 3 bits"}
    assert "precisions" not in cnnkit("doctor", "numpy").out


@pytest.mark.parametrize(
    "command",
    [
        ("train", "mlp-1h", "digits", "--backend", "numpy"),
        ("doctor", "numpy"),
        ("why", "mlp-1h", "--backend", "blunt"),
        ("compare", "mlp-1h", "--backends", "blunt"),
        ("conformance", "blunt"),
    ],
    ids=lambda command: command[0],
)
def test_where_it_is_not_known_or_not_judged_it_is_refused_before_anything_runs(cnnkit, command):
    done = cnnkit(*command, "--precision", "coarse")
    assert done.code != 0
    assert "precision is 'coarse'; expected 'float32' or 'float64'" in done.out + done.err
    assert not getattr(sys.modules.get("blunt_plugin"), "made", [])
