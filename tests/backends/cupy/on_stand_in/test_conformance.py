"""Cases of the conformance suite on the stand-in for CuPy. They prove the backend's source, not a GPU.

With CNNKIT_REQUIRE_CUPY=1 it is all of them, else a part.
"""

import os

import pytest
from cupy_by_numpy import EVERYWHERE

from cnnkit.conformance.judging import judge
from cnnkit.conformance.selection import pairs, suite_cases

WAYS = {
    "as it is": {},
    "without graphs": {"graphs": False},
    "on cuDNN": {"cudnn": EVERYWHERE},
    "in 3 MB": {"limit": 3 << 20},
}
PARTS = 16
"""The suite is judged in so many parts, of which a way that is not `as it is` has to pass one."""

ALL = os.environ.get("CNNKIT_REQUIRE_CUPY") == "1"
TRIED = [("as it is", part) for part in range(0, PARTS, 1 if ALL else 4)]
TRIED += [(way, part) for part, way in enumerate(WAYS) if way != "as it is"]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("way", "part"), TRIED)
def test_the_suite_is_passed(stand_in, way, part, precision):
    backend, gpu = stand_in(precision, **WAYS[way])
    found = pairs(suite_cases(), "training", [precision])[part::PARTS]
    assert len(found) > 100
    for case, _ in found:
        verdict = judge(case, backend, precision, lambda _: [])
        assert verdict.outcome == "passed", f"{case.id}: {verdict.message}"
    assert bool(gpu.graphs) is (way != "without graphs")


def test_a_fault_in_a_kernel_turns_it_red(stand_in, monkeypatch):
    """The right kernels, launched with one number wrong: the stride of a window."""
    backend, gpu = stand_in("float32")
    kernels = gpu.kernels["float32"]
    launch = type(kernels).launch

    def wrong(self, name, grid, block, arguments, **how):
        if name == "max_pool":
            arguments = [*arguments[:-4], arguments[-4] + 1, *arguments[-3:]]
        launch(self, name, grid, block, arguments, **how)

    monkeypatch.setattr(type(kernels), "launch", wrong)
    found = [case for case in suite_cases() if "max-pool" in case.id]
    assert found
    outcomes = {judge(case, backend, "float32", lambda _: []).outcome for case in found}
    assert "failed" in outcomes
