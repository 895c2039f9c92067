"""`cnnkit conformance`, on the little distributions of tests/plugins."""

import json
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from itertools import repeat
from pathlib import Path

import pytest

from cnnkit.cli.conforming import summary
from cnnkit.conformance import Report
from cnnkit.conformance.selection import area_of, pairs, suite_cases, tried

SQUARE, WIDE, ONE_FEATURE = "dense.forward.square", "dense.forward.wide", "dense.forward.one-feature"


@pytest.fixture(autouse=True)
def _plugins(plugin_folder, on_path):
    on_path(plugin_folder)


# ------------------------------------------------------------------------------------------------------------ exit codes


def test_numpy_is_partial_at_inference_within_a_budget(cnnkit):
    done = cnnkit("conformance", "numpy", "--level", "inference", "--budget", "2s")
    assert done.code == 0, done.out
    assert done.err == ""
    assert done.out.startswith("Backend 'numpy' (cnnkit ")
    assert "level inference" in done.out
    assert re.search(r"PARTIAL: nothing failed, but only \d+ of \d+\s+cases\s+ran within the budget", done.out)
    assert not Path("conformance-failures").exists()


def test_a_wrong_backend_is_red_and_the_summary_says_what_and_why(cnnkit):
    done = cnnkit("conformance", "null", "--only", SQUARE, "--only", WIDE)
    assert done.code == 1
    lines = done.out.splitlines()
    assert f"FAILED {SQUARE}[float32] and in float64, at the stage compare" in lines
    assert "  claim  A dense layer from 5 features to 5 units is x @ kernel + bias" in lines
    assert any(line.startswith("  found  output[") and " is 0; expected " in line for line in lines)
    file = f"conformance-failures/null/{SQUARE}.float32.json"
    assert f"  repeat cnnkit repro {file} --backend null" in lines
    assert json.loads(Path(file).read_text(encoding="utf-8"))["case"] == SQUARE
    assert "Files that repeat 4 cases are in conformance-failures/null." in lines
    assert "Why it is red:" in lines
    assert lines[-1] == "RED: backend 'null' does not conform at the level training."
    assert all(len(line) <= 80 for line in lines if not line.startswith("  repeat "))


def test_a_selection_that_passes_is_no_failure_but_not_green_either(cnnkit):
    """It must not look green in any form of the report, nor red."""
    done = cnnkit("conformance", "loopback", "--only", "dense.forward.*", "--precision", "float32", "--json", "r.json")
    assert done.code == 0
    assert "PARTIAL: nothing failed, but only " in done.out
    assert "GREEN" not in done.out
    assert json.loads(Path("r.json").read_text(encoding="utf-8"))["verdict"] == "partial"
    assert "Why it is red" not in done.out


def test_a_selection_that_is_interrupted_is_red(cnnkit, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cnnkit.conformance.runner._Conductor._try", interrupted)
    done = cnnkit("conformance", "loopback", "--only", "dense.forward.*", "--precision", "float32")
    assert done.code == 1
    assert "  - The run was interrupted." in done.out.splitlines()
    assert "PARTIAL" not in done.out


def test_the_command_that_repeats_a_failure_has_the_device_and_the_options(cnnkit):
    arguments = ["--only", SQUARE, "--precision", "float32", "--device", "cpu", "--set", "threads=2"]
    done = cnnkit("conformance", "null", *arguments, "--out", "x", "--markdown", "r.md")
    command = f"cnnkit repro x/{SQUARE}.float32.json --backend null --device cpu --set threads=2"
    assert f"  repeat {command}" in done.out.splitlines()
    assert f"$ {command}\n" in Path("r.md").read_text(encoding="utf-8")
    assert cnnkit(*command.split()[1:]).code == 1


def test_a_report_in_float64_only_says_so():
    for precision, said in (("float32", "."), ("float64", " in float64 only.")):
        cases = list(map(tried, pairs(suite_cases(), "inference", (precision,)), repeat({"outcome": "passed"})))
        assert summary(_report(cases))[-1] == f"GREEN: backend 'mine' conforms at the level inference{said}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["loopbach"], "No backend is called 'loopbach'. Did you mean 'loopback'?"),
        (["numpy", "--option", "treads=2"], "Backend 'numpy' has no option 'treads'"),
        (["numpy", "--option", "threads"], "is not NAME=VALUE"),
        (["numpy", "--level", "both"], "level is 'both'; expected one of inference, training"),
        (["numpy", "--precision", "half"], "half"),
        (["numpy", "--budget", "soon"], "--budget is 'soon'; expected a time such as 60s, 2m or 90"),
        (["numpy", "--time-limit", "0"], "--time-limit is '0'; expected a time"),
        (["numpy", "--only", "nothing.*"], "no case is called 'nothing.*'"),
        (["numpy", "--html", "no/such/folder.html"], "there is no folder no/such"),
        (["numpy", "--html", "a", "--json", "./a"], "name the same file, a. Give each a file of its own."),
        (["numpy", "--junit", "."], "it is a folder"),
        (["loopback", "--update-ledger"], "the plugin of 'loopback' has no ledger to update. Add this hook"),
    ],
)
def test_wrong_use_has_an_exit_code_of_its_own(cnnkit, arguments, says):
    done = cnnkit("conformance", *arguments)
    assert done.code == 2
    assert says in done.err
    assert done.out == ""


def test_a_device_that_is_not_there_is_red(cnnkit):
    done = cnnkit("conformance", "numpy", "--device", "gpu")
    assert done.code == 1
    assert "runs on the CPU, not on 'gpu'" in " ".join(done.out.split())


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("2m", 120), ("90", 90), ("1.5 m", 90), ("0.5s", 0.5)])
def test_a_time_is_written_as_people_do(text, seconds):
    from cnnkit.cli.conforming import _seconds

    assert _seconds("--budget", text) == seconds


# --------------------------------------------------------------------------------------------------------------- options


def test_options_of_the_backend_and_of_the_run_are_in_the_report(cnnkit):
    arguments = ["--only", SQUARE, "--precision", "float64", "--device", "cpu", "--option", "threads=2", "--seed", 5]
    found = cnnkit("conformance", "loopback", *arguments, "--json", "-").json
    assert (found["device"], found["options"], found["seed"]) == ("cpu", {"threads": "2"}, 5)
    assert found["precisions"] == ["float64"]


def test_a_json_report_on_the_standard_output_is_alone_there(cnnkit):
    done = cnnkit(
        "conformance", "crashing", "--only", ONE_FEATURE, "--precision", "float32", "--json", "-", "--out", "x"
    )
    assert done.code == 1
    found = json.loads(done.out)
    [failure] = [case for case in found["cases"] if case["outcome"] == "failed"]
    assert failure["error"] == "ZeroDivisionError"
    assert failure["repro"] == f"x/{ONE_FEATURE}.float32.json"


def test_every_form_of_the_report_is_written(cnnkit):
    files = {form: f"report.{form}" for form in ("json", "junit", "html", "markdown", "badge")}
    options = [text for form, file in files.items() for text in (f"--{form}", file)]
    assert cnnkit("conformance", "null", "--only", SQUARE, *options).code == 1
    read = {form: Path(file).read_text(encoding="utf-8") for form, file in files.items()}
    assert Report.model_validate_json(read["json"]).red
    assert ET.fromstring(read["junit"]).tag == "testsuites"  # noqa: S314 - our own file
    assert SQUARE in read["html"]
    assert "null" in read["markdown"]
    assert ET.fromstring(read["badge"]).tag.endswith("svg")  # noqa: S314 - our own file


def test_the_first_failure_ends_a_run_that_asked_for_it(cnnkit):
    done = cnnkit("conformance", "null", "--only", "dense.forward.*", "--fail-fast", "--out", "x")
    assert done.code == 1
    assert done.out.count("FAILED") == 1
    assert "  - The run was stopped at the first failure." in done.out.splitlines()


def test_a_crash_shows_what_was_printed_last_and_where_the_backend_was(cnnkit):
    done = cnnkit("conformance", "crashing", "--only", "dense.forward.deep", "--precision", "float32", "--out", "x")
    assert "  found  While the case was tried, the process ended itself with exit code 3." in done.out
    assert "  printed last:\n    compiling (7,)\n    the engine says goodbye\n" in done.out


def test_what_an_engine_says_does_not_colour_or_flood_the_terminal(cnnkit):
    options = ["--precision", "float32", "--only", WIDE]
    done = cnnkit("conformance", "unruly", *options, "--set", "does=colours")
    assert r"  found  RuntimeError: \x1b[31mred\x00\x07" in done.out.splitlines()
    done = cnnkit("conformance", "unruly", *options, "--set", "does=says-too-much")
    assert "(5,000,014 characters in all)" in " ".join(done.out.split())
    assert len(done.out.splitlines()) < 70


def test_where_a_file_cannot_be_written_the_summary_has_been_printed(cnnkit):
    done = cnnkit("conformance", "numpy", "--only", WIDE, "--precision", "float32", "--html", os.devnull)
    assert done.code == 1
    assert "PARTIAL: nothing failed" in done.out
    assert f"error: {os.devnull} cannot be written" in done.err


def test_what_is_declared_beforehand_is_told_with_a_green_verdict():
    cases = list(map(tried, pairs(suite_cases(), "inference", ("float32",)), repeat({"outcome": "passed"})))
    lines = summary(_report(cases))
    assert lines[-1].startswith("GREEN")
    assert "Declared beforehand" not in "\n".join(lines)
    cases[0] = cases[0].model_copy(update={"outcome": "refused"})
    cases[1:3] = [case.model_copy(update={"outcome": "deviates"}) for case in cases[1:3]]
    lines = summary(_report(cases))
    assert lines[-2] == "Declared beforehand, and counted apart: 1 case refused, 2 cases deviating."
    assert lines[-1].startswith("GREEN")


def _report(cases):
    known = {"suite": "1.0", "backend": "mine", "level": "inference", "precisions": ("float32",)}
    return Report(**known, started="2026-01-01", seconds=1.0, versions={}, cases=tuple(cases), verdict="green")


def test_a_hang_is_ended_after_the_time_limit(cnnkit):
    options = ["--precision", "float32", "--time-limit", "1s", "--out", "x"]
    done = cnnkit("conformance", "sleeping", "--only", ONE_FEATURE, *options)
    assert done.code == 1
    assert "gave no answer within 1 s and was" in done.out
    assert "in predict" in done.out
    assert "cnnkit/conformance/" not in done.out
    assert "threading.py" not in done.out


# ---------------------------------------------------------------------------------------------------------------- ledger


def test_the_ledger_is_rewritten_and_the_run_stays_red_until_somebody_says_why(cnnkit, tmp_path, monkeypatch):
    path = tmp_path / "conformance.toml"
    path.write_text("version = 1\n")
    monkeypatch.setenv("DEVIATING_LEDGER", str(path))
    arguments = ["conformance", "deviating", "--only", WIDE, "--only", SQUARE]
    done = cnnkit(*arguments, "--update-ledger")
    assert done.code == 1
    assert f"added {WIDE}[float32]: fails at the stage compare" in done.err
    assert "Until somebody has, the run stays red." in done.err
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["deviation"]
    assert [entry["case"] for entry in entries] == [f"{WIDE}[float32]", f"{WIDE}[float64]"]
    still_red = cnnkit(*arguments)
    assert still_red.code == 1
    assert "it has no reason. Write in" in " ".join(still_red.out.split())
    text = path.read_text(encoding="utf-8").replace('reason = ""', 'reason = "No bias"')
    path.write_text(text.replace('issue = ""', 'issue = "https://example.org/1"'))
    assert cnnkit(*arguments).code == 0


def test_a_ledger_that_cannot_be_read_is_red_and_is_not_overwritten(cnnkit, tmp_path, monkeypatch):
    path = tmp_path / "conformance.toml"
    path.write_text("version = = 1")
    monkeypatch.setenv("DEVIATING_LEDGER", str(path))
    assert cnnkit("conformance", "deviating", "--only", SQUARE).code == 1
    assert cnnkit("conformance", "deviating", "--only", SQUARE, "--update-ledger").code == 2
    assert path.read_text() == "version = = 1"


# --------------------------------------------------------------------------------------------------------------- summary


def made_report(*found):
    """A report on the first cases of the suite, each with the fields of one of `found`."""
    first = pairs(suite_cases(), "training", ["float32"])[: len(found)]
    results = tuple(tried(pair, fields) for pair, fields in zip(first, found, strict=True))
    return Report(
        suite="1.0",
        backend="mine",
        level="training",
        precisions=("float32",),
        started="now",
        seconds=1.0,
        versions={},
        cases=results,
        verdict="red",
        reasons=("Because.",),
    )


def test_failures_without_a_file_are_counted():
    found = {"outcome": "failed", "stage": "compare", "message": "output[0] is 0; expected 1"}
    report = made_report(found, found | {"message": "wrong (No file repeats it: no time.)"})
    assert f"No file repeats 1 case: {report.cases[1].name} says why." in summary(report)
    assert "No file repeats" not in "\n".join(summary(made_report(found)))


def test_many_failures_are_told_in_groups_and_the_rest_is_counted():
    found = {"outcome": "failed", "stage": "compare", "message": "output[0] is 0; expected 1 " * 9}
    lines = summary(made_report(*[found] * 40))
    told = [line for line in lines if line.startswith("FAILED")]
    areas = {area_of(case.id) for case in made_report(*[found] * 40).failures}
    assert len(told) == min(10, len(areas)) < 40
    assert any(" more, at the stage compare" in line for line in told)
    assert all(len(line) <= 80 for line in lines)


def test_one_exception_in_many_cases_is_told_once():
    found = {"outcome": "failed", "stage": "run", "message": "OSError: no device", "error": "OSError"}
    [told] = [line for line in summary(made_report(*[found] * 25)) if line.startswith("FAILED")]
    assert told.endswith(" and 24 more, at the stage run")


def test_the_command_runs_where_there_is_no_pytest(plugin_folder, tmp_path):
    (tmp_path / "pytest.py").write_text("raise ImportError('there is no pytest here')")
    search = [str(tmp_path), str(plugin_folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "cnnkit", "conformance", "loopback", "--only", SQUARE],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(search)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "PARTIAL" in done.stdout


# ----------------------------------------------------------------------------------------------------------------- tiers


def test_the_tier_plan_is_no_failure_without_the_device_and_not_green_either(cnnkit):
    options = ["--tier", "plan", "--precision", "float32", "--json", "r.json", "--badge", "b.svg"]
    done = cnnkit("conformance", "planned", *options)
    assert done.code == 0
    said = " ".join(done.out.split())
    assert said.startswith("Backend 'planned' (cnnkit-planned 1.0), conformance suite 1.0, tier plan, level training")
    assert "The probe said there: no-device: finds no chip. Compiled for chip-1 and chip-2: " in said
    assert "PLAN: what can be proved of backend 'planned' without its device holds" in said
    assert "Nothing was run: `cnnkit conformance planned` does that, where the device is." in said
    assert "GREEN" not in said
    assert json.loads(Path("r.json").read_text(encoding="utf-8"))["verdict"] == "plan"
    assert "plan only, not run" in Path("b.svg").read_text(encoding="utf-8")
    assert not Path("conformance-failures").exists()


def test_a_part_of_the_tier_plan_is_partial_and_a_failure_says_how_to_repeat_it(cnnkit):
    part = ["--tier", "plan", "--precision", "float32", "--only"]
    done = cnnkit("conformance", "planned", *part, "probe.*")
    assert done.code == 0
    assert "PARTIAL: nothing failed" in done.out
    done = cnnkit("conformance", "no-device", *part, "create.options", "--out", "x")
    assert done.code == 1
    assert "has no hook cnnkit_rehearse" in " ".join(done.out.split())
    command = "cnnkit conformance no-device --only create.options --precision float32 --tier plan"
    assert f"  repeat {command}" in done.out.splitlines()
    assert not Path("x").exists()


def test_the_tier_plan_leaves_the_files_of_the_tier_run_alone(cnnkit):
    assert cnnkit("conformance", "null", "--only", SQUARE, "--out", "x").code == 1
    files = sorted(Path("x").iterdir())
    assert len(files) >= 2
    assert cnnkit("conformance", "null", "--tier", "plan", "--precision", "float32", "--out", "x").code == 1
    assert sorted(Path("x").iterdir()) == files


def test_without_the_device_the_tier_run_is_red_and_names_the_other(cnnkit):
    done = cnnkit("conformance", "planned", "--only", SQUARE)
    assert done.code == 1
    said = " ".join(done.out.split())
    assert "`cnnkit conformance planned --tier plan` says what can be said without it." in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tier", "dream"], "tier is 'dream'; expected one of plan, run"),
        (["--tier", "plan", "--update-ledger"], "the ledger tells of what the tier run finds"),
        (["--tier", "plan", "--only", SQUARE], "no case is called 'dense.forward.square'"),
        (["--only", "probe.*"], "no case is called 'probe.*'"),
    ],
)
def test_wrong_use_of_tiers_has_the_exit_code_of_wrong_use(cnnkit, arguments, says):
    done = cnnkit("conformance", "numpy", *arguments)
    assert done.code == 2
    assert says in done.err
