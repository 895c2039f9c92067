"""Fixtures for more than one module of tests."""

import importlib
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from cnnkit.plugins import backend_names


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory):
    """A folder for PYTHONPATH or sys.path in which the little distributions of tests/plugins are installed."""
    folder = tmp_path_factory.mktemp("installed-plugins")
    sources = sorted(str(path.parent) for path in Path(__file__).parent.glob("plugins/*/pyproject.toml"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(folder), *sources], check=True)
    return folder


@pytest.fixture
def on_path(monkeypatch):
    """A function that puts a folder first on sys.path, for this test only: what was imported from it is forgotten."""
    folders = []

    def put(folder):
        folders.append(Path(folder).resolve())
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()

    yield put
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(folder in Path(file).resolve().parents for folder in folders):
            del sys.modules[name]


@pytest.fixture
def few_plugins(plugin_folder, on_path, monkeypatch):
    """Of tests/plugins only those that answer at once: one refuses dilation late, one beforehand, one runs everything."""
    on_path(plugin_folder)
    kept = {"numpy", "refusing", "declared", "loopback"}
    monkeypatch.setenv("CNNKIT_DISABLE_BACKENDS", ",".join(set(backend_names()) - kept))


@pytest.fixture(scope="session")
def authors_machine(tmp_path_factory):
    """Environment variables of a shell in which a plugin's author works: commands install into a place of its own.

    What is installed here, cnnkit and pytest included, is there too; pip downloads nothing.
    """
    folder = tmp_path_factory.mktemp("author")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "beside.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    command = folder / "bin" / "cnnkit"
    command.write_text(f"#!/bin/sh\nexec '{folder}/bin/python' -c 'from cnnkit.cli import main; main()' \"$@\"\n")
    command.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CNNKIT_", "PYTHON"))}
    return environment | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # 0 says no to isolation, however it reads
        "PIP_NO_INDEX": "1",
        "COLUMNS": "100",
    }


# Read before any test clears it: most tests must not see the user's settings.
_DATA_DIR = os.environ.get("CNNKIT_DATA_DIR")


@pytest.fixture
def real_data_dir():
    """The folder with real mnist.npz and cifar10.npz. CNNKIT_REQUIRE_DATA=1 makes a lack of it a failure."""
    if _DATA_DIR:
        return _DATA_DIR
    if os.environ.get("CNNKIT_REQUIRE_DATA") == "1":
        pytest.fail("CNNKIT_REQUIRE_DATA=1, but CNNKIT_DATA_DIR names no folder with mnist.npz and cifar10.npz")
    return pytest.skip("CNNKIT_DATA_DIR names no folder with mnist.npz and cifar10.npz")


def pytest_terminal_summary(terminalreporter):
    """Say in one line how many tests that need a GPU were not run: being skipped is not being passed.

    It is here and not in tests/gpu, which the process that prints the summary of `pytest -n 2` does not look into.
    """

    def on_a_gpu(*outcomes):
        found = [report for outcome in outcomes for report in terminalreporter.stats.get(outcome, [])]
        reports = [report for report in found if "gpu" in getattr(report, "keywords", ())]
        return sum(dict(report.user_properties).get("tests", 1) for report in reports)

    ran, skipped = on_a_gpu("passed", "failed"), on_a_gpu("skipped")
    if skipped:
        begin = f"{ran:,} tests ran on a GPU" if ran else "No GPU ran anything here"
        terminalreporter.write_line(f"{begin}: {skipped:,} tests that need one were not run.")
