"""examples/minimal_backend: it is as small as it says, right, and explained to the last line."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "minimal_backend"
EXPLANATION = ROOT / "docs" / "explanation" / "minimal-backend.md"


def parts(text):
    """What stands at the top of a module, each with the lines that belong to it."""
    return {part.strip() for part in re.split(r"\n\n\n(?=\S)", text)}


def test_it_has_the_99_lines_that_its_explanation_promises():
    count = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLE.rglob("*.py"))
    assert count == 99
    assert f"{count} lines of" in EXPLANATION.read_text(encoding="utf-8")


def test_every_line_of_it_is_explained_as_it_stands():
    blocks = re.findall(r"```python\n(.*?)```", EXPLANATION.read_text(encoding="utf-8"), re.DOTALL)
    module = (EXAMPLE / "cnnkit_minimal.py").read_text(encoding="utf-8")
    assert {part for block in blocks for part in parts(block)} == parts(module)


def test_it_passes_the_suite_at_the_level_training_without_a_ledger(tmp_path, authors_machine):
    def run(*command):
        return subprocess.run(command, cwd=tmp_path, env=authors_machine, capture_output=True, text=True, check=False)

    installed = run("python", "-m", "pip", "install", str(EXAMPLE))
    assert installed.returncode == 0, installed.stderr
    judged = run("cnnkit", "conformance", "minimal")
    assert judged.returncode == 0, judged.stdout
    assert judged.stdout.rstrip().endswith("GREEN: backend 'minimal' conforms at the level training.")
    assert re.search(r"^all +\d{4} +· +· +· +· ", judged.stdout, re.MULTILINE)  # all passed: none refused or deviates
