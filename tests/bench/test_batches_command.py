"""`cnnkit bench batches`: what it prints, its exit codes, and that the plain `cnnkit bench` is still there."""

import json

import pytest
from typer.testing import CliRunner

import cnnkit
from cnnkit.bench.batches import PEERS, Peer, entries
from cnnkit.cli import common
from cnnkit.cli.app import app, main
from cnnkit.errors import CnnkitError, MissingDependency, OptionError


@pytest.fixture
def small_file(small, tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(small.model.to_toml(), encoding="utf-8")
    return str(path)


@pytest.fixture
def batches(small_file):
    """A function that runs the command on the small model, few images and one round."""

    def run(*arguments):
        few = ["--images", "32", "--batch-size", "8", "--rounds", "1", "--threads", "1", "-b", "numpy"]
        return CliRunner().invoke(app, ["bench", "batches", "-m", small_file, *few, *arguments])

    return run


def test_it_prints_one_object(batches, small_file):
    done = batches("--no-peers", "--json")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert set(report) == {"machine", "versions", "rounds", "models", "missing"}
    assert report["machine"]["cores"] >= 1
    assert report["versions"]["cnnkit"] == cnnkit.__version__
    assert (report["rounds"], report["missing"]) == (1, [])
    (found,) = report["models"]
    assert (found["model"], found["images"], found["batch_size"], found["threads"]) == (small_file, 32, 8, 1)
    for variant, contestant in zip(("epoch", "fit"), found["contestants"], strict=True):
        assert (contestant["name"], contestant["variant"], contestant["problems"]) == ("numpy", variant, [])
        assert len(contestant["train"]["rounds"]) == len(contestant["predict"]["rounds"]) == 1
        assert contestant["train"]["best"] > 0
        assert contestant["peak_mib"] > 10
        assert contestant["first_epoch_s"] > 0
        assert set(contestant["versions"]) >= {"numpy", "cnnkit"}


def test_it_prints_a_table_for_people_and_says_which_peers_are_missing(batches, monkeypatch):
    monkeypatch.setattr(entries, "find_spec", lambda _: None)
    monkeypatch.setattr(common.console, "_width", 60)  # the table is wider
    done = batches()
    assert "…" not in done.stdout
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    (row,) = [row for row in rows if row[:2] == ["numpy,", "epoch"]]
    assert row[4] == row[6] == "1.00"
    assert "pip install 'cnnkit[peers-tensorflow]'" in done.stdout
    assert max(map(len, done.stdout.split("the peer")[0].splitlines())) < 100


def test_a_peer_that_was_asked_for_and_is_not_there_is_an_error(batches, monkeypatch):
    monkeypatch.setattr(entries, "find_spec", lambda _: None)
    done = batches("--peer", "keras")
    assert isinstance(done.exception, MissingDependency)
    assert "round" not in done.output  # nothing was measured


def test_figures_that_do_not_count_end_in_exit_code_1(batches, contestants, monkeypatch):
    monkeypatch.setitem(PEERS, "cheat", Peer(contestants("skips").module, ["numpy"], "", "", {"": {"way": "skips"}}))
    done = batches("--peer", "cheat")
    assert done.exit_code == 1
    assert "cheat does not count: not the same work as numpy, epoch" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peer", "keras", "--no-peers"], "--peer and --no-peers were both given"),
        (["--peer", "kears"], "there is no peer 'kears'"),
        (["--model", "e"], "there is no preset 'e'"),
    ],
)
def test_wrong_use_is_told_before_anything_is_measured(batches, arguments, message):
    done = batches(*arguments)
    assert isinstance(done.exception, OptionError)
    assert message in str(done.exception)


def test_an_option_before_the_subcommand_is_not_ignored(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cnnkit", "bench", "--rounds", "2", "batches"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "--rounds stands before `batches`" in capsys.readouterr().err
    assert issubclass(OptionError, CnnkitError)
