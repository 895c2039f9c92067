import pytest
from cnnkit.conformance import cases, check


@pytest.mark.parametrize("case", cases("onnxruntime", level="inference"), ids=str)
def test_conformance(case):
    check(case)
