"""The tests here need TensorFlow. Without it they are skipped, or fail where CNNKIT_REQUIRE_TENSORFLOW=1 promises it."""

import importlib.util
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

REASON = "TensorFlow is not installed: python -m pip install 'cnnkit[tensorflow]'"


def _is_there():
    return importlib.util.find_spec("tensorflow") is not None


def pytest_collection_modifyitems(items):
    if not _is_there() and os.environ.get("CNNKIT_REQUIRE_TENSORFLOW") != "1":
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.fixture(scope="session", autouse=True)
def tf():
    """TensorFlow. It comes before all other fixtures."""
    if not _is_there():
        pytest.fail(f"CNNKIT_REQUIRE_TENSORFLOW=1, but {REASON}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of TensorFlow's own imports
        return importlib.import_module("tensorflow")


@pytest.fixture
def make_backend():
    """A function that makes a backend as `cnnkit.get_backend` would."""
    from cnnkit_tensorflow import plugin

    def make(precision="float32", device=None, **options):
        return plugin.cnnkit_create_backend(device, precision, options)

    return make


@pytest.fixture
def in_a_process_of_its_own():
    """A function that runs lines of Python in a fresh interpreter and returns what they print."""

    def run(code, **variables):
        backends = Path(importlib.util.find_spec("cnnkit_tensorflow").origin).parents[1]
        path = os.pathsep.join([str(backends), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"} | variables
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    return run
