"""The tests here run on a real card. Without one they are skipped, or fail where CNNKIT_REQUIRE_GPU=1 promises it."""

import importlib
import importlib.util
import os

import pytest


@pytest.fixture(scope="session")
def lacking():
    """A function that ends a test for want of something: skipped, or failed with CNNKIT_REQUIRE_GPU=1."""

    def end(reason):
        if os.environ.get("CNNKIT_REQUIRE_GPU") == "1":
            pytest.fail(f"CNNKIT_REQUIRE_GPU=1, but {reason}")
        pytest.skip(reason)

    return end


@pytest.fixture(scope="session")
def cp(lacking):
    """CuPy, on a computer with a card that it sees."""
    spec = importlib.util.find_spec("cupy")
    if spec is None or spec.origin is None:  # a mere folder of that name
        lacking("CuPy is not installed: python -m pip install 'cnnkit[cuda13]'")
    cupy = importlib.import_module("cupy")
    if not cupy.cuda.is_available():
        lacking("CuPy sees no GPU here")
    return cupy
