"""A whole run on a card that is made up, with contestants on a CPU: which parts there are, what is said of those that are not."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cnnkit import conformance
from cnnkit.bench.gpu import everything, suite
from cnnkit.bench.gpu.budget import Deadline
from cnnkit.bench.gpu.everything import Ask, Extent, Run
from cnnkit.bench.gpu.models import LAYERS
from cnnkit.bench.gpu.results import Conformance
from cnnkit.errors import BackendError, BackendOptionError

SIZES = (16, 8)
SUITE = Conformance(
    tier="run",
    device="gpu:0",
    suite="1.0",
    verdict="green",
    level="training",
    precisions=("float32",),
    counts={"passed": 9},
    seconds=1.0,
)


@pytest.fixture
def started(contestants, small, monkeypatch):
    """A function that makes a run on small things, of contestants in this process; `saved` gets its reports."""
    assert contestants
    import gpu_contestants as made_up

    monkeypatch.setattr(everything, "whole", lambda: small.model)
    monkeypatch.setattr(everything, "LARGE", 16)
    monkeypatch.setattr(everything, "SMALL", 8)
    monkeypatch.setattr(everything, "LAYERS", ("dense 512", "dense 10"))
    monkeypatch.setattr(everything, "WHOLE", Extent(images=32, sizes=SIZES, rounds=1, layer_rounds=1))
    monkeypatch.setattr(suite, "judge", lambda *_: (SUITE, True))

    def start(*, ways=None, seconds=480.0, **fields):
        def begin(contestant):
            way = (ways or {}).get(contestant.way, "honest")
            return made_up.Here(replace(contestant, options={"way": way}))

        saved = []
        run = Run(Ask("numpy", budget=seconds), made_up.CARD, begin, saved.append, **fields)
        return run, saved

    return start


def outcomes(report):
    return {part.name: part.outcome for part in report.parts}


def test_everything_is_measured_and_saved_after_each_part(started):
    run, saved = started()
    report = run.all()
    assert outcomes(report) == dict.fromkeys(("conformance", "layers", "steps", "inference"), "done")
    assert report.sound
    assert report.card.name == "NVIDIA Imaginary 1"
    assert [sum(part.outcome == "done" for part in it.parts) for it in saved] == [1, 2, 3, 4]
    assert [len(it.steps) for it in saved] == [0, 0, 16, 16]
    assert saved[0].parts[1].why == "The run ended before it."
    layers = {(cell.layer, cell.library, cell.way, cell.precision) for cell in report.layers}
    each = [("numpy", "im2col"), ("numpy", "cuDNN"), ("torch", "eager")]
    precisions = ("float32", "tf32")
    names = ("dense 512", "dense 10")
    assert layers == {(name, *who, precision) for name in names for who in each for precision in precisions}
    steps = {(cell.batch, cell.library, cell.way, cell.precision) for cell in report.steps}
    assert steps == {
        (size, library, way, precision)
        for size in SIZES
        for library in ("numpy", "torch")
        for way in ("eager", "graph")
        for precision in precisions
    }
    assert [cell.batch for cell in report.steps] == [8] * 8 + [16] * 8  # in the order of sizes, not of measuring
    assert {(cell.batch, cell.library) for cell in report.inference} == {
        (size, library) for size in SIZES for library in ("numpy", "torch")
    }
    assert set(report.versions) >= {"cnnkit", "numpy", "python"}
    json.loads(report.to_json())


def test_without_a_peer_the_backend_runs_alone_and_the_report_says_why(started):
    run, _ = started(no_peer="PyTorch is not installed")
    report = run.all()
    assert report.sound
    assert {cell.library for cell in (*report.layers, *report.steps, *report.inference)} == {"numpy"}
    assert report.remarks == ("PyTorch is not installed.",)
    assert report.targets[1].outcome == "not judged"


def test_a_way_that_fails_is_out_and_the_run_is_not_sound(started):
    run, _ = started(ways={"graph": "no memory", "cuDNN": "wrong"})
    report = run.all()
    assert outcomes(report)["steps"] == "done"
    assert not report.sound
    assert {cell.way for cell in report.steps if cell.problems} == {"graph"}
    assert {cell.way for cell in report.layers if cell.problems} == {"cuDNN"}


def test_parts_for_which_there_is_no_time_are_skipped_and_it_is_said(started):
    run, _ = started()
    now = [run.budget.began]
    run.budget = replace(run.budget, clock=lambda: now[0])

    def slow(_):
        now[0] += 300  # of 480: beyond the ends of conformance and layers
        return ""

    run.conformance = slow
    report = run.all()
    assert outcomes(report) == {"conformance": "done", "layers": "skipped", "steps": "done", "inference": "done"}
    assert report.parts[1].why == "The time was up before it began."
    assert report.layers == ()
    assert not report.sound


def test_batch_sizes_for_which_there_is_no_time_are_named(started, monkeypatch):
    run, _ = started()
    now = [0.0]

    def measure(workload, *_):
        now[0] += 6.0
        return [], workload.batch_size != 16

    monkeypatch.setattr(everything, "measure_training", measure)
    # 16 takes 6 of 10 seconds, so that another size would end too late
    assert run.steps(Deadline(10.0, lambda: now[0])) == "There was no time for rounds at batch 16, batch 8."


def test_layers_for_which_there_is_no_time_are_named(started):
    run, _ = started()
    assert run.layers(Deadline(0.0)) == "There was no time for dense 512, dense 10."


@pytest.mark.parametrize("error", [BackendError("the card is on fire"), BackendOptionError("no such option")])
def test_a_part_that_fails_does_not_end_the_others(started, monkeypatch, error):
    def judge(*_):
        raise error

    monkeypatch.setattr(suite, "judge", judge)
    run, _ = started()
    run.layers = run.steps = lambda _: ""
    report = run.all()
    assert (report.parts[0].outcome, report.parts[0].why) == ("failed", str(error))
    assert outcomes(report)["inference"] == "done"
    assert report.conformance is None


def test_a_suite_that_was_cut_short_is_incomplete_unless_the_run_is_quick(started, monkeypatch):
    monkeypatch.setattr(suite, "judge", lambda *_: (SUITE.model_copy(update={"verdict": "partial"}), False))
    run, _ = started()
    assert run.part("conformance", run.conformance).outcome == "incomplete"
    run.ask = replace(run.ask, quick=True)
    assert run.part("conformance", run.conformance).outcome == "done"


def test_the_whole_extent_is_that_of_the_targets():
    assert everything.WHOLE.images == 50_000
    assert sorted(everything.WHOLE.sizes) == [32, 64, 128, 256, 512, 1024]
    assert everything.WHOLE.sizes[:2] == (1024, 64)  # what targets need comes before the time ends
    assert set(everything.QUICK.sizes) == {1024, 64}
    assert len(LAYERS) == 8


# ------------------------------------------------------------------------------------------------------------ the suite


def test_a_verdict_goes_into_the_report_as_it_is():
    report = conformance.run("numpy", precisions=["float32"], only=["dense.*"])
    found = suite.summary(report, "gpu:0")
    assert (found.tier, found.verdict) == ("run", report.verdict)
    assert found.verdict == "partial"
    assert found.counts["passed"] == report.counts["passed"] > 0
    assert found.failures == ()
    assert found.suite == report.suite


@pytest.mark.parametrize("changed", [{"tier": "plan"}, {"verdict": "plan"}])
def test_a_plan_is_never_taken_for_a_run_on_the_device(changed):
    with pytest.raises(ValueError, match="literal_error"):
        Conformance(**{**SUITE.model_dump(), **changed})


def test_the_suite_gets_the_time_that_there_is_and_runs_on_the_device(monkeypatch):
    report = conformance.run("numpy", precisions=["float32"], only=["dense.forward.*"])
    tried = report.model_copy(update={"cases": tuple(it for it in report.cases if it.outcome != "not-run")})
    asked, told = {}, []

    def run(name, **given):
        asked.update(given, name=name)
        given["progress"](200, 401, None)
        given["progress"](201, 401, None)
        given["progress"](401, 401, None)
        return answers.pop()

    answers = [report, tried]
    monkeypatch.setattr(suite, "conformance", SimpleNamespace(run=run))
    found, all_ran = suite.judge("cupy", "gpu:1", Deadline(100.0, lambda: 40.0), told.append)
    assert (asked["name"], asked["device"], asked["tier"]) == ("cupy", "gpu:1", "run")
    assert 40 < asked["budget"] < 60  # of the 60 seconds left, some are kept for the last case
    assert "precisions" not in asked  # float32 and float64, both
    assert told == ["conformance: 200 of 401 cases", "conformance: 401 of 401 cases"]
    assert all_ran
    assert found.verdict == "partial"
    assert not suite.judge("cupy", "gpu:1", Deadline(100.0, lambda: 40.0), told.append)[1]
