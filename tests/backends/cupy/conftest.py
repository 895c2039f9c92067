"""What tests of the CuPy backend need is skipped where it is not there, or fails where CNNKIT_REQUIRE_CUPY=1 promises it.

Each test asks for what it needs: `cp` is CuPy, and `lacking` says plainly that something else is not there. None of it
means a GPU: tests that need one are in tests/gpu.
"""

import importlib
import importlib.util
import os

import pytest

REASON = "CuPy is not installed: python -m pip install 'cnnkit[cuda13]'"


@pytest.fixture(scope="session")
def lacking():
    """A function that ends a test for want of something: skipped, or failed with CNNKIT_REQUIRE_CUPY=1."""

    def end(reason):
        if os.environ.get("CNNKIT_REQUIRE_CUPY") == "1":
            pytest.fail(f"CNNKIT_REQUIRE_CUPY=1, but {reason}")
        pytest.skip(reason)

    return end


@pytest.fixture(scope="session")
def cp(lacking):
    """CuPy, which can be imported without a GPU."""
    spec = importlib.util.find_spec("cupy")
    if spec is None or spec.origin is None:  # this very folder may look like a package of that name
        lacking(REASON)
    return importlib.import_module("cupy")
