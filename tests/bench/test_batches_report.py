"""What comes out of a race: ratios against the base, the quickest variant, a narrow table, JSON; and who may take part."""

import json

import pytest
from rich.console import Console

from cnnkit import BackendNotFound, BackendUnavailable, OptionError
from cnnkit.bench.batches import (
    PEERS,
    Entry,
    Outcome,
    Race,
    backend_entries,
    entries,
    machine,
    peer_entries,
    race_table,
    race_to_dict,
    sentences,
)
from cnnkit.cli import common


def outcome(name, variant, train, predict, **facts):
    made = Outcome(Entry(name, variant, "nowhere"), versions={"engine": "1.2.3+cpu", "other": "9"}, **facts)
    made.train, made.predict = train, predict
    made.cpu = facts.get("cpu", 0.0)
    return made


@pytest.fixture
def measured(small):
    """128 images; the base takes 1 s and 0.5 s at best."""
    return Race(
        "small",
        small,
        [
            outcome("ours", "epoch", [1.0, 1.5], [0.75, 0.5], peak_mib=100.4, first_epoch=2.5, cpu=9.0),
            outcome("ours", "fit", [1.25, 1.5], [0.75, 0.5], peak_mib=110.0, first_epoch=2.0),
            outcome("peer", "slow", [3.0, 2.0], [0.25, 4.0], peak_mib=150.0, remarks=["the peer was slow"]),
            outcome("peer", "fast", [1.5, 1.75], [2.0, 1.0], peak_mib=200.0, remarks=["the peer was slow"]),
            outcome("cheat", "", [0.1], [0.1], problems=["not the same work"], log="a traceback"),
        ],
    )


def test_the_best_round_counts_in_microseconds_an_image(measured):
    assert [measured.microseconds(it, "train") for it in measured.outcomes] == [
        1e6 / 128,
        1.25e6 / 128,
        2e6 / 128,
        1.5e6 / 128,
        None,
    ]


def test_ratios_are_times_over_that_of_the_base(measured):
    assert [measured.ratio(it, "train") for it in measured.outcomes] == [1.0, 1.25, 2.0, 1.5, None]
    assert [measured.ratio(it, "predict") for it in measured.outcomes] == [1.0, 1.0, 0.5, 2.0, None]


def test_of_a_peer_the_quicker_variant_counts_for_each_task(measured):
    said = sentences(measured)
    assert (
        said[0] == "ours, epoch trains 1.50 x as fast as peer, fast, peak 100 MiB to 200; "
        "it predicts 0.50 x as fast as peer, slow."
    )
    assert said.count("the peer was slow.") == 1
    assert "cheat does not count: not the same work." in said


def test_who_works_on_more_cores_than_asked_for_is_named(measured):
    # 9 processor seconds in 3.75 s of rounds, on one thread
    assert "ours, epoch worked on 2.4 cores, though 1 threads were asked for." in sentences(measured)


def test_the_table_is_narrower_than_100_columns(measured):
    long_ = outcome("tf-function", "loop in graph", [123.4], [123.4], peak_mib=12345.0, first_epoch=123.45)
    console = Console(width=99, highlight=False)
    with console.capture() as capture:
        console.print(race_table(Race("small", measured.workload, [*measured.outcomes, long_])))
    text = capture.get()
    rows = {line[:26].strip(): line[26:].split() for line in text.splitlines()}
    assert rows["ours, epoch"] == ["1.2.3", "7,812.5", "1.00", "3,906.2", "1.00", "100", "2.50"]
    assert rows["cheat"] == ["1.2.3", "-", "-", "-", "-", "-", "-"]
    assert rows["tf-function, loop in graph"][-2:] == ["12,345", "123.45"]
    assert "…" not in text
    assert "small: small, 7 x 6 x 3, 128 images in batches of 8, 1 thread" in text


def test_the_json_holds_every_round_and_every_reason(measured):
    found = json.loads(json.dumps(common.plain(race_to_dict(measured))))
    assert {name: found[name] for name in ("model", "images", "batch_size", "threads", "seed", "base")} == {
        "model": "small",
        "images": 128,
        "batch_size": 8,
        "threads": 1,
        "seed": 0,
        "base": "ours, epoch",
    }
    assert found["layers"]["input_shape"] == [7, 6, 3]
    ours, _, _, fast, cheat = found["contestants"]
    assert ours["train"] == {"best": 7812.5, "x_base": 1.0, "rounds": [7812.5, 11718.75]}
    assert (ours["first_epoch_s"], ours["peak_mib"], ours["cores"]) == (2.5, 100.4, 2.4)
    assert (fast["name"], fast["variant"], fast["predict"]["x_base"]) == ("peer", "fast", 2.0)
    assert (cheat["train"]["best"], cheat["problems"], cheat["log"]) == (None, ["not the same work"], "a traceback")
    assert found["against"] == {
        "peer": {"train": {"variant": "fast", "x_base": 1.5}, "predict": {"variant": "slow", "x_base": 0.5}},
        "cheat": {"train": None, "predict": None},
    }


def test_the_machine_is_named():
    found = machine()
    assert found["cores"] >= 1
    assert found["cpu"]
    assert found["python"].count(".") == 2


# ------------------------------------------------------------------------------------------------------ who takes part


def test_a_backend_takes_part_by_epochs_and_by_fits_with_its_options():
    found = backend_entries(["numpy", "numpy"], {"threads": 1})
    assert [entry.title for entry in found] == ["numpy, epoch", "numpy, fit"]
    assert found[0].options == {"backend": "numpy", "way": "epoch", "options": {"threads": 1}}


@pytest.mark.usefixtures("few_plugins")
def test_a_backend_that_cannot_run_is_an_error_before_anything_is_measured():
    with pytest.raises(BackendNotFound, match="No backend is called 'nowhere'"):
        backend_entries(["numpy", "nowhere"])
    with pytest.raises(BackendUnavailable, match="'crashing' is not ready"):
        backend_entries(["crashing"])


def test_a_peer_that_is_not_installed_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(entries, "find_spec", lambda _: None)
    found, missing = peer_entries(None)
    assert found == []
    assert [it.extra for it in missing] == [peer.extra for peer in PEERS.values()]
    assert "the peer 'keras' needs TensorFlow with Keras, which is not installed" in str(missing[0])
    assert "pip install 'cnnkit[peers-tensorflow]'" in str(missing[0])


def test_every_variant_of_an_installed_peer_takes_part(monkeypatch):
    monkeypatch.setattr(entries.Peer, "installed", True)
    found, missing = peer_entries(["torch", "keras"])
    assert missing == []
    assert [entry.title for entry in found] == [
        "torch, NCHW",
        "torch, channels_last",
        "keras, default",
        "keras, 16 steps at once",
    ]


def test_a_folder_of_that_name_is_no_peer(on_path, tmp_path):
    (tmp_path / "imaginary_engine").mkdir()
    on_path(tmp_path)
    assert not entries.Peer("nowhere", ["imaginary_engine"], "", "", {}).installed
    (tmp_path / "imaginary_engine" / "__init__.py").touch()
    assert entries.Peer("nowhere", ["imaginary_engine"], "", "", {}).installed
    assert not entries.Peer("nowhere", ["imaginary_engine", "imaginary_other"], "", "", {}).installed


def test_an_unknown_peer_is_wrong_use():
    with pytest.raises(OptionError, match="there is no peer 'kears'; peers are keras, tf-function, torch"):
        peer_entries(["kears"])
