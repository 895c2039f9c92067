"""The conformance suite on a real card, case by case. Without one it is a single item that says how many did not run."""

import pytest

from cnnkit import plugins
from cnnkit.conformance import cases, check

pytestmark = pytest.mark.gpu

BACKEND, DEVICE = "cupy", "gpu:0"
READY = BACKEND in plugins.backend_names() and plugins.status(BACKEND, DEVICE).ready


@pytest.mark.parametrize("case", cases(BACKEND, device=DEVICE) if READY else ["all-cases"], ids=str)
def test_conformance(case, request, record_property):
    if READY:
        check(case)
        return
    record_property("tests", len(cases("numpy", level="training")))  # as many as every backend has
    lacking = request.getfixturevalue("lacking")
    if BACKEND not in plugins.backend_names():
        lacking(f"no plugin registers the backend {BACKEND}")
    lacking(f"the backend {BACKEND} cannot run on {DEVICE}: {plugins.status(BACKEND, DEVICE).reason}")
