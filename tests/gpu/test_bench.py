"""`cnnkit bench --gpu` on a real card, the quick way: everything runs, everything counts, both files are written."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.gpu

COMMAND = ["-c", "from cnnkit.cli import main; main()", "bench", "--gpu", "--quick", "--budget", "300s"]


def test_a_quick_run_measures_everything_and_all_of_it_counts(cp, tmp_path):
    name = cp.cuda.runtime.getDeviceProperties(0)["name"].decode()
    done = subprocess.run(
        [sys.executable, *COMMAND, "--out", str(tmp_path)], capture_output=True, text=True, check=False, timeout=400
    )
    said = f"{done.stdout}\n{done.stderr}"
    assert (tmp_path / "report.json").exists(), said
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert {part["name"]: part["outcome"] for part in report["parts"]} == dict.fromkeys(
        ("conformance", "layers", "steps", "inference"), "done"
    ), said
    assert report["card"]["name"] == name
    assert report["conformance"]["verdict"] in ("green", "partial"), report["conformance"]["reasons"]
    cells = [*report["layers"], *report["steps"], *report["inference"]]
    assert [(cell["library"], cell["way"], cell["problems"]) for cell in cells if cell["problems"]] == []
    assert {cell["library"] for cell in cells} >= {"cupy"}
    assert {target["outcome"] for target in report["targets"]} == {"not judged"}
    assert (tmp_path / "REPORT.md").read_text(encoding="utf-8").startswith(f"# cupy on an {name}")
    assert done.returncode == 0, said
