"""examples/cnnkit-onnxruntime: its wheel is installed and asked, and takes a part of the suite. `.ci/onnxruntime` does the rest."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from unittest import SkipTest

import pytest

from cnnkit.conformance import cases, check
from cnnkit.plugins import deviations, status

EXAMPLE = Path(__file__).parent.parent / "examples" / "cnnkit-onnxruntime"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(EXAMPLE)], check=True)
    [found] = folder.glob("cnnkit_onnxruntime-*.whl")
    return found


@pytest.fixture
def installed(wheel, tmp_path, on_path):
    """A folder in which the wheel is unpacked, on the path: what an installation is."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    on_path(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("package", "name"), [("onnxruntime", "ONNX Runtime"), ("onnx", "onnx")])
def test_the_listing_says_which_package_is_missing_and_how_to_get_it(package, name, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda asked, *rest: None if asked == package else find_spec(asked, *rest)
    )
    found = status("onnxruntime")
    assert (found.state, found.distribution) == ("missing-dependency", "cnnkit-onnxruntime")
    assert found.reason == f"needs {name}, which is not installed"
    assert found.fix == f"Install it with: python -m pip install {package}"


def test_the_wheel_brings_a_ledger_without_deviations(installed):
    assert deviations("onnxruntime") == installed / "cnnkit_onnxruntime" / "conformance.toml"
    assert "[[deviation]]" not in deviations("onnxruntime").read_text()


@pytest.mark.usefixtures("installed")
def test_it_passes_what_onnx_runtime_alone_would_not_and_some_of_all_the_rest():
    found = [bound for bound in cases("onnxruntime") if bound.precision]
    hard = [bound for bound in found if bound.case.id.startswith(("v05.", "v36."))]  # minus infinity; NaN
    assert {bound.level for bound in found} == {"inference"}
    assert len(hard) > 20
    for bound in {*hard, *found[::19]}:
        try:
            check(bound)
        except SkipTest as skipped:
            pytest.fail(f"{bound}: {skipped}")  # it refuses nothing


@pytest.mark.parametrize("package", ["cnnkit", "cnnkit_numpy"])
def test_nothing_of_ours_knows_the_example(package):
    folder = Path(importlib.util.find_spec(package).origin).parent
    files = [path for path in folder.rglob("*") if path.suffix in {".py", ".pyi", ".toml", ".json", ".html"}]
    assert files
    names = ("cnnkit_onnxruntime", "cnnkit-onnxruntime")
    assert [str(path) for path in files if any(name in path.read_text() for name in names)] == []
