"""`cnnkit report`, and the report that `cnnkit train` leaves."""

import errno
import json
import os
import re
import shlex
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import pytest

from cnnkit.backend import Backend
from cnnkit.cli import training
from cnnkit.files import write_whole
from cnnkit.plugins import get_backend


@pytest.fixture
def run(cnnkit, model_file, npz):
    assert cnnkit("train", model_file, npz, "--epochs", 2, "--out", "my run").code == 0
    return Path("my run")


def test_train_leaves_a_report_and_says_where(cnnkit, model_file, npz):
    done = cnnkit("train", model_file, npz, "--out", "run")
    assert "The report is run/report.html." in done.out
    assert "own classifies" in Path("run/report.html").read_text(encoding="utf-8")
    told = cnnkit("train", model_file, npz, "--out", "other", "--json")
    assert told.json["report"] == "other/report.html"
    assert told.err == ""


def test_metrics_say_on_what_machine_and_when(cnnkit, model_file, npz):
    machine = cnnkit("train", model_file, npz, "--out", "run", "--json", "--set", "threads=2").json["machine"]
    assert machine["threads"] == 2
    assert machine["cpus"] >= 1
    assert machine["platform"]
    assert machine["processor"]
    assert machine["resumed"] is False
    started, ended = (datetime.fromisoformat(machine[name]) for name in ("started", "ended"))
    assert started <= ended
    assert started.utcoffset().total_seconds() == 0


def test_what_a_backend_calls_threads_may_be_anything(cnnkit, model_file, npz, monkeypatch):
    class Other(Backend):
        def __init__(self):
            self.inner = get_backend("numpy")
            self.selection = self.inner.selection

        def threads(self):
            return 3

        def compile(self, plan, parameters):
            return self.inner.compile(plan, parameters)

        def compile_training(self, plan, state, optimizer):
            return self.inner.compile_training(plan, state, optimizer)

    monkeypatch.setattr(training, "get_backend", lambda *_, **__: Other())
    done = cnnkit("train", model_file, npz, "--out", "run", "--json")
    assert done.json["machine"]["threads"] is None
    assert "threads as the backend chose" in Path("run/report.html").read_text(encoding="utf-8")


def test_a_resumed_run_has_a_new_report(cnnkit, run):
    before = Path(run, "report.html").read_text(encoding="utf-8")
    assert "for 2 epochs in" in before
    assert cnnkit("train", "--resume", run, "--epochs", 3, "--json").json["machine"]["resumed"] is True
    after = Path(run, "report.html").read_text(encoding="utf-8")
    assert "for 3 epochs in" in after
    assert "(resumed)" in after


def test_the_commands_in_the_report_work(cnnkit, run):
    printed = cnnkit("report", run, "--format", "md").out
    commands = re.findall(r"^cnnkit .*$", printed, re.MULTILINE)
    assert [shlex.split(command)[1] for command in commands] == [
        "train",
        "train",
        "predict",
        "evaluate",
        "report",
        "report",
    ]
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] in ("evaluate", "report") and "OTHER_RUN" not in words:
            assert cnnkit(*words).code == 0, command
    resume = shlex.split(commands[1])[1:]
    assert resume[:3] == ["train", "--resume", "my run"]
    assert len(cnnkit(*resume, "--json").json["history"]) == 3


def test_report_writes_the_page_of_a_run_again(cnnkit, run):
    page = run / "report.html"
    whole = page.read_bytes()
    page.unlink()
    assert cnnkit("report", run).out == "Wrote my run/report.html.\n"
    assert page.read_bytes() == whole
    assert cnnkit("report", run, "--out", "elsewhere.html").code == 0
    assert Path("elsewhere.html").read_bytes() == whole


def test_markdown_is_printed_or_written_with_its_pictures(cnnkit, run):
    printed = cnnkit("report", run, "--format", "md")
    assert printed.out.startswith("# Report of a run\n\n**own classifies ")
    assert cnnkit("report", run, "--out", "told.md").out == "Wrote told.md.\n"
    text = Path("told.md").read_text(encoding="utf-8")
    pictures = re.findall(r"^!\[.+\]\((.+)\)$", text, re.MULTILINE)
    assert len(pictures) >= 3
    assert all(Path(picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_pictures_of_markdown_are_found_whatever_the_file_is_called(cnnkit, run):
    assert cnnkit("report", run, "--out", "my run (1).MD").code == 0
    text = Path("my run (1).MD").read_text(encoding="utf-8")
    pictures = re.findall(r"^!\[.+\]\(([^ ()]+)\)$", text, re.MULTILINE)  # a blank or a bracket ends a link
    assert len(pictures) >= 3
    assert all(Path(unquote(picture)).exists() for picture in pictures)


def test_mistakes_of_before_never_lie_beside_new_figures(cnnkit, run, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "worst_mistakes", stopped)
        assert "cnnkit train --resume 'my run'" in cnnkit("train", "--resume", run, "--epochs", 3).err
    assert len(json.loads((run / "metrics.json").read_text())["history"]) == 3
    assert not (run / "mistakes.npz").exists()
    assert cnnkit("train", "--resume", run).code == 0
    assert (run / "mistakes.npz").exists()


@pytest.mark.parametrize("name", ["run.json", "history.jsonl", "metrics.json", "mistakes.npz", "report.html"])
def test_what_cannot_be_written_is_one_sentence_and_the_run_can_be_resumed(cnnkit, run, monkeypatch, name):
    def fails(path, data):
        if Path(path).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_whole(path, data)

    with monkeypatch.context() as patch:
        for module in ("cli.training", "running", "mistakes", "report"):
            patch.setattr(f"cnnkit.{module}.write_whole", fails)
        done = cnnkit("train", "--resume", run, "--epochs", 3, "--json")
    assert (done.code, done.out) == (1, "")
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert f"{name}" in last
    assert os.strerror(errno.ENOSPC) in last
    assert len(cnnkit("train", "--resume", run, "--epochs", 3, "--json").json["history"]) == 3


def test_several_runs_are_compared(cnnkit, run, model_file, npz):
    cnnkit("train", model_file, npz, "--epochs", 2, "--seed", 1, "--out", "other")
    told = cnnkit("report", run, "other", "--json").json
    assert told == {"path": "comparison.html", "format": "html", "runs": ["my run", "other"]}
    assert "Comparison of runs" in Path("comparison.html").read_text(encoding="utf-8")
    assert cnnkit("report", run, "other", "-f", "md").out.startswith("# Comparison of runs\n")


def test_what_cannot_be_done_is_one_sentence(cnnkit, run, tmp_path):
    for arguments, code, said in (
        ([tmp_path], 1, f"error: {tmp_path} holds no run: there is no"),
        ([run, run], 2, "error: my run is given twice. Name every run once."),
        (
            [run, "--out", "x.pdf"],
            2,
            "error: --out is x.pdf, which ends in '.pdf'; expected .html or .md, or say --format.",
        ),
        ([run, "--format", "pdf"], 2, "error: --format is 'pdf'; expected html or md."),
        ([run, "--format", "md", "--json"], 2, "Give --out PATH for the Markdown."),
        (
            [run, "--out", "nowhere/report.html"],
            1,
            "error: nowhere/report.html cannot be written: No such file or directory.",
        ),
    ):
        done = cnnkit("report", *arguments)
        assert (done.code, done.out) == (code, "")
        assert said in done.err
        assert len(done.err.splitlines()) == 1


def test_an_unfinished_run_is_told_with_the_command_that_finishes_it(cnnkit, run):
    (run / "metrics.json").unlink()
    done = cnnkit("report", run)
    assert done.code == 1
    (command,) = re.findall(r"cnnkit train --resume .*", done.err)
    assert cnnkit(*shlex.split(command)[1:]).code == 0
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 2
    assert cnnkit("report", run).code == 0
