"""Running the suite on the little distributions of tests/plugins: whatever a backend does, there is a report."""

import json
import math
import os
from pathlib import Path

import pytest

import cnnkit
from cnnkit.conformance import SUITE_VERSION, run, runner
from cnnkit.conformance.case import Case
from cnnkit.conformance.selection import area_of, covering_order, pairs, selected, suite_cases
from cnnkit.errors import BackendNotFound, BackendOptionError, OptionError

FORWARD = [f"dense.forward.{name}" for name in ("square", "wide", "deep", "one-feature", "one-unit")]
WIDE = "dense.forward.wide"


@pytest.fixture(autouse=True)
def _plugins(plugin_folder, on_path, monkeypatch):
    on_path(plugin_folder)
    monkeypatch.delenv("CNNKIT_DISABLE_BACKENDS", raising=False)
    monkeypatch.delenv("CNNKIT_PROBE_TIMEOUT", raising=False)


def outcomes(report, precision="float32"):
    """What became of the cases that were tried in a precision, by their ids without dense.forward."""
    tried = [case for case in report.cases if case.precision == precision and case.outcome != "not-run"]
    return {case.id.removeprefix("dense.forward."): case.outcome for case in tried}


# ----------------------------------------------------------------------------------------------------- right and wrong


def test_a_right_backend_passes_whatever_is_selected_but_a_selection_is_partial_and_never_green():
    report = run("loopback", only=FORWARD, seed=3)
    assert set(outcomes(report).values()) == set(outcomes(report, "float64").values()) == {"passed"}
    assert {case.id for case in report.cases} == {case.id for case in suite_cases()}
    assert (report.verdict, report.green, report.red, report.partial) == ("partial", False, False, True)
    assert report.reasons == ()
    assert report.only == tuple(FORWARD)
    assert all(0 < case.units < 128 and case.seconds > 0 for case in report.cases if case.outcome == "passed")
    assert (report.suite, report.backend, report.distribution) == (SUITE_VERSION, "loopback", "cnnkit-loopback 1.0")
    assert (report.level, report.precisions, report.seed, report.device) == (
        "training",
        ("float32", "float64"),
        3,
        "cpu",
    )
    assert not report.device_given
    assert report.versions.items() >= {"cnnkit": cnnkit.__version__, "cnnkit-loopback": "1.0"}.items()
    assert {"python", "numpy"} <= set(report.versions)
    assert report.started.endswith("+00:00")


@pytest.mark.parametrize("name", ["loopback", "declared"])
def test_a_right_backend_is_not_red_within_a_budget_and_what_it_refuses_is_counted_apart(name):
    report = run(name, budget=10)
    assert report.reasons == ()
    assert report.partial == (report.counts["not-run"] > 0)
    refused = [case for case in report.cases if case.outcome == "refused"]
    assert bool(refused) == (name == "declared")
    assert {case.precision for case in refused} == ({"float32", "float64"} if refused else set())
    assert all("conv2d.dilation" in case.features for case in refused if case.precision == "float32")


def test_zeros_fail_everything_that_is_compared():
    report = run("null", only=[*FORWARD, "dense.gradient.sandwich"])
    assert report.counts["failed"] == 2 * 6
    assert {case.stage for case in report.failures} == {"compare"}
    assert report.red
    assert report.reasons == ("12 of 12 cases failed: 12 at the stage compare.",)


def test_a_refusal_that_nobody_announced_is_a_failure_and_an_announced_one_is_not():
    dilated = [case.id for case in suite_cases() if "conv2d.dilation" in case.features and case.level == "inference"]
    assert dilated
    silent = run("refusing", only=dilated[:3], precisions=["float32"])
    assert silent.counts["failed"] == len(dilated[:3])
    assert {(case.stage, case.error) for case in silent.failures} == {("refuse", "UnsupportedModel")}
    assert "Neither cnnkit_supports nor the ledger said so beforehand" in silent.failures[0].message
    announced = run("declared", only=dilated[:3], precisions=["float32"])
    assert announced.counts["refused"] == len(dilated[:3])
    assert announced.failures == []


def test_a_precision_that_is_refused_beforehand_is_refused_in_every_case():
    report = run("declared", only=FORWARD)
    assert set(outcomes(report, "float64").values()) == {"refused"}
    assert set(outcomes(report, "float32").values()) == {"passed"}


# ------------------------------------------------------------------------------------------------- crashes and hangs


def test_after_a_crash_the_run_goes_on_with_the_next_case():
    report = run("crashing", only=FORWARD, precisions=["float32"])
    assert outcomes(report) == {
        "square": "passed",
        "wide": "failed",
        "deep": "failed",
        "one-feature": "failed",
        "one-unit": "passed",
    }
    assert [(case.stage, case.error) for case in report.failures] == [
        ("crash", "SIGSEGV"),
        ("crash", "exit code 3"),
        ("compile", "ZeroDivisionError"),
    ]
    assert "the engine says goodbye" in report.failures[1].traceback
    assert report.failures[1].message == "While the case was tried, the process ended itself with exit code 3."


def test_after_a_hang_the_run_goes_on_with_the_next_case():
    report = run("sleeping", only=FORWARD[3:], time_limit=1, precisions=["float32"])
    assert outcomes(report) == {"one-feature": "failed", "one-unit": "passed"}
    [hang] = report.failures
    assert (hang.stage, hang.error) == ("timeout", "timeout")
    assert 1 <= hang.seconds < 5


def test_after_five_crashes_in_a_row_the_rest_is_not_tried():
    report = run("crashing", only=FORWARD, options={"at": "always"})
    assert report.counts["failed"] == 5
    assert "The run was stopped after 5 crashes or hangs in a row." in report.reasons
    assert outcomes(report, "float64") == {}


def test_crashes_with_answers_between_them_are_not_in_a_row(monkeypatch):
    monkeypatch.setattr(runner, "CRASHES_IN_A_ROW", 3)
    report = run("crashing", only=FORWARD)  # two crashes in each precision
    assert report.counts["failed"] == 6
    assert set(outcomes(report, "float64")) == {name.removeprefix("dense.forward.") for name in FORWARD}


@pytest.mark.parametrize("deed", ["closes-streams", *(["leaves-a-child"] if hasattr(os, "fork") else [])])
def test_what_a_guest_does_to_its_process_is_no_failure_if_its_answers_are_right(deed):
    report = run("unruly", only=FORWARD[:2], precisions=["float32"], options={"does": deed})
    assert outcomes(report) == {"square": "passed", "wide": "passed"}


@pytest.mark.parametrize(
    ("deed", "stage", "error", "says"),
    [
        ("cannot-say", "run", "Speechless", "Speechless, whose text cannot be had: its __str__ raises"),
        ("interrupts", "run", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("goes-elsewhere", "run", "RuntimeError", "RuntimeError: gone"),
    ],
)
def test_whatever_a_program_raises_is_the_finding_of_its_case(tmp_path, monkeypatch, deed, stage, error, says):
    monkeypatch.chdir(tmp_path)
    report = run("unruly", only=FORWARD[:2], precisions=["float32"], options={"does": deed}, folder="failures")
    assert [(case.stage, case.error, case.message) for case in report.failures] == [(stage, error, says)] * 2
    assert all(Path(case.repro).is_file() for case in report.failures)
    assert {Path(case.repro).parent for case in report.failures} == {Path("failures")}


def test_of_a_message_without_end_the_report_and_the_file_keep_what_can_be_read(tmp_path):
    options = {"does": "says-too-much"}
    [failure] = run("unruly", only=[WIDE], precisions=["float32"], options=options, folder=tmp_path).failures
    assert failure.message.startswith("RuntimeError: xxx")
    assert "(5,000,014 characters in all)" in failure.message
    assert len(failure.message) < 2500
    assert len(failure.traceback) < 25_000
    assert Path(failure.repro).stat().st_size < 20_000


def test_what_broke_the_suite_itself_in_its_process_is_told_at_its_case_and_the_run_goes_on(monkeypatch):
    monkeypatch.setattr(runner.WorkerProcess, "ask", _asked_for_a_case_that_is_not_there(runner.WorkerProcess.ask))
    report = run("loopback", only=FORWARD[:2], precisions=["float32"])
    assert outcomes(report) == {"square": "failed", "wide": "passed"}
    [failure] = report.failures
    assert (failure.stage, failure.error) == ("crash", "SuiteFault")
    assert "While the case was tried, the suite itself failed to judge: KeyError" in failure.message
    assert "in judge" in failure.traceback


def _asked_for_a_case_that_is_not_there(ask):
    def changed(self, limit, /, **request):
        return ask(self, limit, **request | ({"case": "no.such"} if request.get("case", "").endswith("square") else {}))

    return changed


def test_a_case_that_proves_nothing_has_not_run_and_is_no_failure_of_the_backend(monkeypatch, tmp_path):
    """The worker's NumPy has another idea of finite, so that every case is at fault."""
    (tmp_path / "sitecustomize.py").write_text(
        "import cnnkit.conformance.measure as m\n"
        "was = m.errors_in_units\n"
        "def changed(answer, expected, precision):\n"
        "    return was(answer, m.Numbers(expected.value, expected.scale + m.np.inf), precision)\n"
        "m.errors_in_units = changed\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = run("loopback", only=FORWARD[:2], precisions=["float32"])
    assert report.failures == []
    assert report.counts["not-run"] == len(report.cases)
    said = "\n".join(report.reasons)
    assert "2 cases prove nothing, dense.forward.square[float32] first. The suite itself is at fault, not the" in said
    assert report.red


@pytest.mark.parametrize("hook", ["supports", "deviations"])
def test_a_hook_that_interrupts_is_a_fault_of_the_plugin(monkeypatch, hook):
    monkeypatch.setenv("UNRULY_INTERRUPTS", hook)
    report = run("unruly", only=[WIDE], precisions=["float32"], options={"does": "replaces-dumps"})
    if hook == "supports":
        [failure] = report.failures
        assert (failure.stage, failure.message) == ("load", "KeyboardInterrupt")
    else:
        assert report.ledger_problems == ("cnnkit_deviations: KeyboardInterrupt",)


def test_a_backend_that_cannot_be_made_in_one_precision_fails_there_and_is_judged_in_the_other():
    report = run("crashing", only=["dense.forward.square"], options={"at": "float64"})
    assert outcomes(report) == {"square": "passed"}
    [failure] = report.failures
    assert (failure.precision, failure.stage, failure.error) == ("float64", "load", "exit code 5")
    assert failure.message == "While the backend was created, the process ended itself with exit code 5."


# -------------------------------------------------------------------------------------------------------- not to be had


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        (
            "broken-import",
            "KeyError",
            r"not ready \(broken\): cannot be imported: RuntimeError: the engine is not set up",
        ),
        ("exits", "SystemExit", r"not ready \(broken\): cannot be imported: SystemExit: no licence found"),
        ("missing-dependency", "ModuleNotFoundError", r"needs the module 'cnnkit_engine_that_nobody_has'"),
        ("duplicate", "conflict", r"is registered by cnnkit-duplicate-a 1.0 and by cnnkit-duplicate-b 2.5"),
        ("future", "incompatible-api", r"is written for version 99 of the plugin interface"),
        ("no-device", "no-device", r"finds no abacus\. Plug in an abacus\."),
    ],
)
def test_a_backend_that_cannot_be_loaded_fails_once_with_the_reason_and_the_rest_does_not_run(name, error, says):
    report = run(name)
    [failure] = report.failures
    assert (failure.stage, failure.error) == ("load", error)
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(failure.message)
    assert report.counts["not-run"] == len(report.cases) - 1
    assert report.reasons[0] == f"Backend '{name}' could not be loaded: the first failure says why."


def test_a_plugin_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setenv("CNNKIT_PROBE_TIMEOUT", "0.5")
    [failure] = run("slow").failures
    assert "did not answer within 0.5 s" in failure.message


def test_a_plugin_that_ends_the_process_is_a_failure_to_load():
    [failure] = run("crashing", device="gone").failures
    assert (failure.stage, failure.error) == ("load", "exit code 4")
    assert failure.message == "While the plugin was loaded, the process ended itself with exit code 4."


def test_a_create_hook_that_makes_nothing_fails_every_case_at_load():
    report = run("null-create", only=FORWARD)
    assert set(outcomes(report).values()) == set(outcomes(report, "float64").values()) == {"failed"}
    assert {case.stage for case in report.failures} == {"load"}


# ------------------------------------------------------------------------------------------------------------ wrong use


def test_a_backend_that_nobody_registers_is_an_error():
    with pytest.raises(BackendNotFound, match=r"No backend is called 'loopbach'\. Did you mean 'loopback'\?"):
        run("loopbach")


def test_a_wrong_option_is_an_error_and_no_finding():
    with pytest.raises(BackendOptionError, match="Backend 'numpy' has no option 'treads'; its options are threads"):
        run("loopback", options={"treads": 2})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"level": "both"}, "level is 'both'; expected one of inference, training"),
        ({"precisions": ["float16"]}, "float16"),
        ({"precisions": []}, r"precisions is \(\); expected a list with float32, float64 or both"),
        ({"precisions": "float32"}, "precisions is 'float32'; expected a list"),
        ({"budget": 0}, "budget is 0; expected seconds, more than 0"),
        ({"time_limit": -1.0}, "time_limit is -1.0; expected seconds"),
        ({"time_limit": 1e11}, "time_limit is .*; expected seconds, more than 0 and at most 86,400"),
        ({"explore": -1}, "explore is -1; expected a number of models"),
        ({"only": ["dense.*", "danse.*"]}, r"no case is called 'danse\.\*' at this level"),
        ({"options": {"threads": object()}}, "expected texts, numbers, true and false"),
    ],
)
def test_a_wrong_argument_is_an_error(arguments, says):
    with pytest.raises(OptionError, match=says):
        run("loopback", **arguments)


# --------------------------------------------------------------------------------------------------- levels and ledger


def test_a_level_that_the_ledger_claims_is_the_level_of_the_run():
    report = run("inference-only", only=FORWARD)
    assert report.level == "inference"
    assert {case.level for case in report.cases} == {"inference"}
    assert report.counts["failed"] == 0
    assert report.ledger.endswith("conformance.toml")


def test_a_backend_that_only_predicts_is_told_once_what_to_say():
    report = run("inference-only", level="training", only=["dense.forward.square", "dense.gradient.*"])
    assert {(case.stage, case.error) for case in report.failures} == {("refuse", "TrainingNotSupported")}
    assert {case.level for case in report.failures} == {"training"}
    [reason] = [reason for reason in report.reasons if "only predicts" in reason]
    assert 'with --level inference, or write level = "inference" at the top of its ledger' in reason


def test_a_deviation_that_the_ledger_admits_deviates():
    report = run("deviating", only=FORWARD)
    assert outcomes(report)["wide"] == outcomes(report, "float64")["wide"] == "deviates"
    assert report.counts["failed"] == 0
    assert report.ledger_problems == ()
    [deviation, _] = [case for case in report.cases if case.outcome == "deviates"]
    assert (deviation.reason, deviation.issue) == (
        "The engine forgets the bias of a layer with 17 units",
        "https://example.org/deviating/issues/17",
    )


def test_a_ledger_that_says_what_is_not_so_turns_the_run_red(tmp_path, monkeypatch):
    path = tmp_path / "other.toml"
    path.write_text(
        'version = 1\n[[deviation]]\ncase = "dense.forward.square[float32]"\nkind = "fails"\nstage = "compare"\n'
        'error = 3e5\nreason = "r"\nissue = "https://example.org/1"\nexpiry = 2999-01-01\n'
    )
    monkeypatch.setenv("DEVIATING_LEDGER", str(path))
    report = run("deviating", only=FORWARD)
    assert report.ledger_problems == (f"{path}: dense.forward.square[float32]: it passes. Remove the entry.",)
    assert report.ledger_problems[0] in report.reasons
    assert [case.name for case in report.failures] == [f"{WIDE}[float32]", f"{WIDE}[float64]"]


def test_a_ledger_that_cannot_be_read_is_red_and_no_crash(tmp_path, monkeypatch):
    path = tmp_path / "other.toml"
    path.write_text("version = = 1")
    monkeypatch.setenv("DEVIATING_LEDGER", str(path))
    report = run("deviating", only=["dense.forward.square"])
    [problem] = report.ledger_problems
    assert problem.startswith(f"{path}: it cannot be read")
    assert report.level == "training"


# --------------------------------------------------------------------------------------------------- how far a run goes


def test_the_first_failure_can_be_the_last_case():
    report = run("crashing", only=FORWARD, fail_fast=True)
    assert outcomes(report) == {"square": "passed", "wide": "failed"}
    assert outcomes(report, "float64") == {}
    assert "The run was stopped at the first failure." in report.reasons


def test_a_budget_that_is_used_up_ends_the_run_and_nothing_is_no_proof():
    report = run("loopback", budget=0.01)
    assert report.counts["not-run"] == len(report.cases)
    assert [reason.partition(":")[0] for reason in report.reasons] == ["Too little ran"]


def test_progress_is_told_after_every_case():
    told = []
    run("loopback", only=FORWARD[3:], progress=lambda *now: told.append(now))
    assert [(count, total, result.name) for count, total, result in told] == [
        (1, 4, "dense.forward.one-feature[float32]"),
        (2, 4, "dense.forward.one-unit[float32]"),
        (3, 4, "dense.forward.one-feature[float64]"),
        (4, 4, "dense.forward.one-unit[float64]"),
    ]


def test_an_interrupted_run_reports_what_it_has():
    def stop(count, *_):
        if count == 2:
            raise KeyboardInterrupt

    for patterns in ((), FORWARD):
        report = run("loopback", only=patterns, progress=stop)
        assert report.counts["passed"] == 2
        assert report.reasons[0] == "The run was interrupted."
        assert report.red


def test_a_run_that_is_interrupted_at_its_end_is_red_too():
    def stop(count, total, _):
        if count == total:
            raise KeyboardInterrupt

    report = run("loopback", only=FORWARD[:2], precisions=["float32"], progress=stop)
    assert report.counts["passed"] == 2
    assert report.verdict == "red"


def test_a_selection_that_the_budget_cuts_is_red():
    report = run("loopback", only=FORWARD, budget=0.01)
    assert report.reasons == ("10 of 10 cases did not run.",)
    assert report.verdict == "red"


@pytest.mark.parametrize(
    ("devices", "device", "said"),
    [
        ([], None, None),
        (["cpu"], None, "cpu"),
        (["cpu", "gpu:0"], None, "the backend's choice of cpu, gpu:0"),
        (["cpu", "gpu:0"], "cpu", "cpu"),
    ],
)
def test_the_report_says_on_what_it_ran_as_far_as_that_is_known(monkeypatch, devices, device, said):
    ask = runner.WorkerProcess.ask

    def answer(self, limit, /, **request):
        return ask(self, limit, **request) | ({"devices": devices} if request["ask"] == "start" else {})

    monkeypatch.setattr(runner.WorkerProcess, "ask", answer)
    report = run("loopback", only=FORWARD[:1], precisions=["float32"], device=device)
    assert (report.device, report.device_given) == (said, device is not None)


def test_a_failure_is_saved_as_a_file_and_a_run_without_failures_makes_no_folder(tmp_path):
    run("loopback", only=[WIDE], folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    report = run("crashing", only=FORWARD, precisions=["float32"], folder=tmp_path / "some")
    files = {case.id: case.repro for case in report.failures}
    assert set(files.values()) == {str(path) for path in (tmp_path / "some").iterdir()}
    assert set(files) == {WIDE, "dense.forward.deep", "dense.forward.one-feature"}


def test_when_making_files_small_has_taken_long_enough_they_are_written_as_they_are(tmp_path, monkeypatch):
    """However many cases fail, each has a file."""

    def parameters(case):
        shapes = json.loads(Path(case.repro).read_text())["question"]["parameters"].values()
        return sum(math.prod(array["shape"]) for array in shapes)

    small = run("null", only=[WIDE, "dense.forward.deep"], precisions=["float32"], folder=tmp_path / "a")
    monkeypatch.setattr(runner, "SAVING_LIMIT", 1e-9)
    saved = runner._Conductor._saved

    def save(self, result, folder):
        self.saving = min(self.saving, 2e-9)
        return saved(self, result, folder)

    monkeypatch.setattr(runner._Conductor, "_saved", save)
    large = run("null", only=[WIDE, "dense.forward.deep"], precisions=["float32"], folder=tmp_path / "b")
    sizes = [(parameters(one), parameters(other)) for one, other in zip(small.failures, large.failures, strict=True)]
    assert sizes[0][0] == sizes[0][1]
    assert sizes[1][0] < sizes[1][1]


def test_where_there_is_no_time_for_a_file_the_failure_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "SAVING_LIMIT", 0.0)
    first, second = run("null", only=FORWARD[:2], precisions=["float32"], folder=tmp_path).failures
    assert Path(first.repro).is_file()
    assert second.repro is None
    assert "(No file repeats it: those of other failures have taken 0 s.)" in second.message


def test_the_files_of_an_earlier_run_go_and_what_is_not_ours_stays(tmp_path):
    square, wide = FORWARD[:2]
    run("null", only=[square, wide], precisions=["float32"], folder=tmp_path)
    mine, others = tmp_path / f"{square}.float32.json", tmp_path / f"{square}.other.json"
    others.write_text(mine.read_text().replace('"null"', '"somebody"'))
    (tmp_path / "report.json").write_text('{"format": 1, "suite": "1.0", "backend": "null", "cases": []}')
    (tmp_path / "notes.json").write_text("[1")
    (tmp_path / "folder.json").mkdir()
    wide_file = tmp_path / f"{wide}.float32.json"
    kept = {others, tmp_path / "report.json", tmp_path / "notes.json", tmp_path / "folder.json"}
    before = set(tmp_path.iterdir())
    assert before == kept | {mine, wide_file}
    with pytest.raises(OptionError):
        run("null", only=["none"], folder=tmp_path)
    assert set(tmp_path.iterdir()) == before
    run("loopback", only=[square], precisions=["float32"], folder=tmp_path)
    assert set(tmp_path.iterdir()) == before
    mine.write_text(mine.read_text().replace('"null"', '"loopback"'))
    wide_file.write_text(wide_file.read_text().replace('"null"', '"loopback"'))
    run("loopback", only=[square], precisions=["float32"], folder=tmp_path)
    assert set(tmp_path.iterdir()) == kept | {wide_file}
    run("loopback", budget=0.01, precisions=["float32"], folder=tmp_path)
    assert set(tmp_path.iterdir()) == kept


def test_what_the_ledger_admits_is_not_saved(tmp_path):
    run("deviating", only=[WIDE], folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_random_models_can_be_tried_too():
    known = {case.id for case in suite_cases()}
    more = [case.id for case in suite_cases(2, 7) if case.id not in known]
    assert len(more) == 2
    report = run("loopback", explore=2, seed=7, only=more, precisions=["float32"])
    assert report.counts["passed"] == 2


# -------------------------------------------------------------------------------------------------------------- order


def case(name, *features, level="inference", precisions=("float32", "float64")):
    return Case(name, "True", level, frozenset(features), print, precisions)


CASES = [
    case("a.one", "x"),
    case("a.two", "x"),
    case("a.three", "x", "y"),
    case("b.one", "x"),
    case("b.two", "z", level="training"),
    case("c.one", "z", level="training", precisions=("float64",)),
]


def names(found):
    return [f"{one.id} {precision[5:]}" for one, precision in found]


def test_a_run_goes_through_one_precision_after_the_other_in_the_order_of_the_suite():
    assert names(pairs(CASES, "inference", ["float64", "float32"])) == [
        *("a.one 64", "a.two 64", "a.three 64", "b.one 64"),
        *("a.one 32", "a.two 32", "a.three 32", "b.one 32"),
    ]
    assert "c.one 64" in names(pairs(CASES, "training", ["float32", "float64"]))
    assert "c.one 32" not in names(pairs(CASES, "training", ["float32", "float64"]))


def test_an_area_of_the_summary_names_its_cases():
    report = run("loopback", only=["tanh"], precisions=["float32"])
    ran = [case.id for case in report.cases if case.outcome != "not-run"]
    assert ran
    assert report.partial
    assert {
        name.removeprefix(name.split(".")[0] + ".").split(".")[0] if name[0] == "v" else name.split(".")[0]
        for name in ran
    } == {"tanh"}


def test_within_a_budget_every_feature_comes_early_and_then_every_area_in_turn():
    assert names(covering_order(pairs(CASES, "training", ["float32", "float64"]))) == [
        *("a.one 32", "a.three 32", "b.two 32", "a.one 64", "a.three 64", "b.two 64"),
        *("a.two 32", "b.one 32", "a.two 64", "b.one 64", "c.one 64"),
    ]


def test_within_a_budget_nothing_is_left_out_or_tried_twice():
    everything = pairs(suite_cases(), "training", ["float32", "float64"])
    assert sorted(names(covering_order(everything))) == sorted(names(everything))


def test_a_pattern_selects_by_id():
    assert names(selected(pairs(CASES, "inference", ["float32"]), ["b.*", "a.t*"])) == [
        "a.two 32",
        "a.three 32",
        "b.one 32",
    ]
    assert names(selected(pairs(CASES, "inference", ["float32", "float64"]), ["b.one[float64]"])) == ["b.one 64"]
    with pytest.raises(OptionError, match=r"no case is called 'b\.two' at this level"):
        selected(pairs(CASES, "inference", ["float32"]), ["b.two"])


def test_a_case_that_is_called_after_a_divergence_belongs_to_what_it_is_about():
    assert [area_of(name) for name in ("dense.forward.wide", "v06.max-pool.ties", "v06", "vast.x")] == [
        "dense",
        "max-pool",
        "v06",
        "vast",
    ]
