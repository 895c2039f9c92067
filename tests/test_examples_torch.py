"""examples/cnnkit-torch where PyTorch is not: it can be built and asked, and nothing of ours knows it."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "cnnkit-torch"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(EXAMPLE)], check=True)
    [found] = folder.glob("cnnkit_torch-*.whl")
    return found


@pytest.fixture
def installed(wheel, tmp_path, on_path):
    """A folder in which the wheel is unpacked, on the path: what an installation is."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    on_path(tmp_path)
    return tmp_path


@pytest.fixture
def without_torch(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find_spec(name, *rest)
    )


@pytest.mark.usefixtures("installed", "without_torch")
def test_without_pytorch_the_listing_says_what_is_missing_and_how_to_get_it():
    from cnnkit.plugins import status

    imported = "torch" in sys.modules
    found = status("torch")
    assert (found.state, found.distribution) == ("missing-dependency", "cnnkit-torch")
    assert found.reason == "needs PyTorch, which is not installed"
    assert found.fix == "Install it with: python -m pip install torch"
    assert ("torch" in sys.modules) == imported


@pytest.mark.usefixtures("without_torch")
def test_the_wheel_brings_a_ledger_without_deviations(installed):
    from cnnkit.plugins import deviations

    assert deviations("torch") == installed / "cnnkit_torch" / "conformance.toml"
    assert "[[deviation]]" not in deviations("torch").read_text()


@pytest.mark.parametrize("package", ["cnnkit", "cnnkit_numpy"])
def test_nothing_of_ours_knows_the_example(package):
    folder = Path(importlib.util.find_spec(package).origin).parent
    files = [path for path in folder.rglob("*") if path.suffix in {".py", ".pyi", ".toml", ".json", ".html"}]
    assert files
    knowing = [
        str(path) for path in files if any(name in path.read_text() for name in ("cnnkit_torch", "cnnkit-torch"))
    ]
    assert knowing == []
