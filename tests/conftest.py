"""Fixtures for more than one module of tests."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest


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
