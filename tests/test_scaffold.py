"""`cnnkit new-backend`: what it writes is built, installed and judged, and what it must not do it does not."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cnnkit import OptionError, __version__, scaffold
from cnnkit.cli import main
from cnnkit.scaffold import new_backend

FILES = {
    "pyproject.toml",
    "README.md",
    ".gitignore",
    ".github/workflows/ci.yml",
    "cnnkit_my_engine/__init__.py",
    "cnnkit_my_engine/plugin.py",
    "cnnkit_my_engine/backend.py",
    "cnnkit_my_engine/conformance.toml",
    "tests/test_conformance.py",
}

PROMISED = """\
import pytest
from cnnkit.conformance import cases, check
@pytest.mark.parametrize("case", cases("my-engine"), ids=str)
def test_conformance(case):
    check(case)
"""


def in_shell(command, folder, environment):
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S602 - the commands are written here
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def texts(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}


# --------------------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize("level", ["inference", "training"])
def test_every_file_is_there_and_nothing_in_it_is_left_to_fill_in(tmp_path, level):
    folder = new_backend("my-engine", tmp_path, level)
    assert folder == tmp_path / "cnnkit-my-engine"
    found = texts(folder)
    assert set(found) == FILES
    assert sorted(tmp_path.iterdir()) == [folder]
    for name, text in found.items():
        assert not re.search(r"@[A-Z]+@", text), name
        assert max(map(len, text.splitlines())) <= 120, name
        if name.endswith(".py"):
            compile(text, name, "exec")


@pytest.mark.parametrize("level", ["inference", "training"])
def test_the_project_registers_the_backend_and_the_ledger_claims_the_level(tmp_path, level):
    found = texts(new_backend("my-engine", tmp_path, level))
    project = tomllib.loads(found["pyproject.toml"])["project"]
    assert project["name"] == "cnnkit-my-engine"
    assert project["entry-points"]["cnnkit.backends"] == {"my-engine": "cnnkit_my_engine.plugin"}
    assert f"cnnkit>={__version__}" in project["dependencies"]
    assert tomllib.loads(found["cnnkit_my_engine/conformance.toml"]) == {"version": 1, "level": level}


def test_its_test_is_the_promised_four_lines(tmp_path):
    text = texts(new_backend("my-engine", tmp_path))["tests/test_conformance.py"]
    assert [line for line in text.splitlines() if line] == PROMISED.splitlines()


def test_its_ci_runs_the_test_and_the_suite(tmp_path):
    text = texts(new_backend("my-engine", tmp_path))[".github/workflows/ci.yml"]
    for command in ("python -m pip install '.[test]'", "python -m pytest", "cnnkit conformance my-engine --json"):
        assert f"run: {command}" in text


# ------------------------------------------------------------------------------------------- built, installed, judged


def test_a_new_backend_is_right_on_the_day_it_is_made(tmp_path, authors_machine):
    commands = in_shell("cnnkit new-backend demo-one", tmp_path, authors_machine).split("Next:")[1].splitlines()
    install, judge, test = filter(None, map(str.strip, commands))
    in_shell(install, tmp_path, authors_machine)
    listed = in_shell("cnnkit backends", tmp_path, authors_machine)
    assert re.search(r"demo-one\s+ready", listed)
    judged = in_shell(judge, tmp_path, authors_machine)
    assert judged.rstrip().endswith("GREEN: backend 'demo-one' conforms at the level inference.")
    assert "float32 and float64" in judged
    assert re.search(r"^all +\d{3,} +· +· +· +· ", judged, re.MULTILINE)  # all passed: none failed, refused, deviates
    tested = in_shell(f"{test} -q -k 'dense or enough'", tmp_path, authors_machine)
    assert re.search(r"\d{2,} passed, \d+ deselected in", tested)


def test_with_level_training_it_learns_on_the_day_it_is_made(tmp_path, authors_machine):
    in_shell("cnnkit new-backend demo-two --level training", tmp_path, authors_machine)
    in_shell("python -m pip install './cnnkit-demo-two[test]'", tmp_path, authors_machine)  # from a wheel: no -e
    judged = in_shell("cnnkit conformance demo-two --budget 12s", tmp_path, authors_machine)
    assert "level\ntraining" in judged
    assert "GREEN" in judged or "PARTIAL: nothing failed" in judged
    assert re.search(r"^all +\d{3,} +· +· +· ", judged, re.MULTILINE)
    for bad, message in [("--device gpu:0", "not on 'gpu:0'"), ("--set colour=red", "colour")]:
        command = f"cnnkit train mlp-1h digits --limit 9 --backend demo-two {bad}"
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=authors_machine, capture_output=True, text=True)  # noqa: PLW1510, S602 - it must fail
        assert done.returncode != 0
        assert re.search(message, done.stderr)


# ------------------------------------------------------------------------------------ asked, before there is an engine

ASKED = """
import json, sys
from cnnkit.cli import main
sys.argv = ["cnnkit", "why", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    code = ended.code or 0
print(json.dumps({"code": code, "imported": sorted(name for name in sys.modules if "my_engine" in name)}))
"""


def registered(folder):
    """The environment of an interpreter in which the package in `folder` is installed."""
    (project,) = folder.glob("*/pyproject.toml")
    about = tomllib.loads(project.read_text())["project"]
    information = project.parent / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    )
    ((name, module),) = about["entry-points"]["cnnkit.backends"].items()
    (information / "entry_points.txt").write_text(f"[cnnkit.backends]\n{name} = {module}\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CNNKIT_")}
    return {**kept, "PYTHONPATH": str(project.parent)}


@pytest.mark.parametrize("level", ["inference", "training"])
@pytest.mark.parametrize("which", [["--backend", "my-engine"], ["--all"]], ids=["one", "all"])
def test_what_it_supports_is_told_without_its_engine(tmp_path, level, which):
    new_backend("my-engine", tmp_path, level)
    command = [sys.executable, "-c", ASKED, "seed-tf", *which]
    done = subprocess.run(command, env=registered(tmp_path), capture_output=True, text=True, check=True)
    *said, facts = done.stdout.splitlines()
    assert any(line.startswith("my-engine: runs it") for line in said)
    assert json.loads(facts) == {"code": 0, "imported": ["cnnkit_my_engine", "cnnkit_my_engine.plugin"]}


@pytest.mark.parametrize("level", ["inference", "training"])
def test_an_operation_that_is_not_listed_is_refused_beforehand_and_by_the_backend(tmp_path, level):
    folder = new_backend("my-engine", tmp_path, level)
    plugin = folder / "cnnkit_my_engine" / "plugin.py"
    before, listed, behind = plugin.read_text().partition("OPERATIONS = (\n")
    plugin.write_text(before + listed + behind.replace("    MaxPool2DOp,\n", ""))
    ask = (
        "from cnnkit import initial_parameters, load_preset, get_backend, plugins\n"
        "model = load_preset('seed-numpy').for_data((8, 8, 1), 3).model\n"
        "print(*((one.path, one.feature) for one in plugins.unsupported('my-engine', model.plan())))\n"
        "get_backend('my-engine').compile(model.plan(), initial_parameters(model, 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", ask], env=registered(tmp_path), capture_output=True, text=True)  # noqa: PLW1510 - it must fail
    assert re.fullmatch(r"\('layers\[\d\]', 'pool.max'\)\n", done.stdout), done.stderr
    assert "UnsupportedModel: Backend 'my-engine' does not support pool.max" in done.stderr


# ------------------------------------------------------------------------------------------------ what is not written


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My_Engine", "expected lower-case letters and digits.* Try my-engine"),
        ("3d", "Try for example my-engine"),
        ("a--b", "Try a-b"),
        ("../up", "Try up"),
        ("", "Try for example"),
        ("cnnkit-fast", "begins with cnnkit"),
        ("numpy", "'numpy' is installed already"),
        ("json", "standard library.* json-engine"),
    ],
)
def test_a_name_that_cannot_be_is_an_error_and_nothing_is_written(tmp_path, name, message):
    with pytest.raises(OptionError, match=message):
        new_backend(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_package_that_would_hide_another_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "cnnkit_taken.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(OptionError, match="a package called cnnkit_taken is installed already"):
        new_backend("taken", tmp_path)


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_nothing_is_overwritten(tmp_path, kind):
    target = tmp_path / "cnnkit-mine"
    if kind == "folder":
        target.mkdir()
        (target / "README.md").write_text("years of work")
    elif kind == "file":
        target.write_text("years of work")
    else:
        target.symlink_to("nowhere")
    with pytest.raises(OptionError, match="is there already, and nothing is overwritten"):
        new_backend("mine", tmp_path)
    assert list(tmp_path.iterdir()) == [target]
    if kind == "folder":
        assert texts(target) == {"README.md": "years of work"}


def test_a_folder_that_is_not_there_and_a_level_that_is_none_are_errors(tmp_path):
    with pytest.raises(OptionError, match=r"there is no folder .*nowhere"):
        new_backend("mine", tmp_path / "nowhere")
    with pytest.raises(OptionError, match="level is 'both'; expected one of inference, training"):
        new_backend("mine", tmp_path, "both")


def test_what_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    read = scaffold._template

    def failing(name):
        if name == "conformance.toml":
            raise OSError("the disk is full")
        return read(name)

    monkeypatch.setattr(scaffold, "_template", failing)
    with pytest.raises(OSError, match="the disk is full"):
        new_backend("mine", tmp_path)
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------- the command line


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["cnnkit", "new-backend", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


def test_the_commands_that_are_printed_fit_a_folder_with_a_blank(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my work").mkdir()
    code, out, _ = command(monkeypatch, capsys, "mine", "--out", "my work")
    assert code == 0
    assert "    python -m pip install -e './my work/cnnkit-mine[test]'\n" in out
    assert "    python -m pytest 'my work/cnnkit-mine'\n" in out
    assert "    cnnkit conformance mine\n" in out


def test_wrong_use_is_exit_code_2_and_a_disk_that_fails_is_1(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, capsys, "numpy", "--out", tmp_path)[0] == 2

    def failing(_):
        raise OSError("the disk is full")

    monkeypatch.setattr(scaffold, "_template", failing)
    code, _, err = command(monkeypatch, capsys, "mine", "--out", tmp_path)
    assert code == 1
    assert err == "error: cnnkit-mine cannot be written: the disk is full.\n"
