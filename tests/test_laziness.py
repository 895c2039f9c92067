"""What is not imported: a fresh interpreter that only looks at cnnkit, or lists its backends, loads no engine."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = (
    *("tensorflow", "cupy", "torch", "jax", "onnxruntime"),
    *("sklearn", "PIL", "pooch", "matplotlib", "h5py", "onnx", "mlflow", "tensorboard", "IPython"),
)

SCRIPT = """
import json, sys
{code}
heavy = {heavy!r}
json.dump(sorted({{name.partition(".")[0] for name in sys.modules}} & set(heavy)), sys.stderr)
"""


def imported(code, names, path):
    """Which of the packages `names` a fresh interpreter has imported after `code`; `path` holds stand-ins for them."""
    for name in HEAVY:
        (path / f"{name}.py").write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CNNKIT_")}
    environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(code=code, heavy=names)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stderr)


def command(*arguments):
    return f"""
import cnnkit.cli
sys.argv = {["cnnkit", *arguments]!r}
try:
    cnnkit.cli.main()
except SystemExit as end:
    assert not end.code, end.code
"""


def test_import_cnnkit_loads_no_engine_no_backend_and_no_command_line(tmp_path):
    names = (*HEAVY, "cnnkit_numpy", "typer", "rich", "click")
    assert imported("import cnnkit", names, tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plot", "--help"],
        ["trace", "--help"],
        ["report", "--help"],
        ["backends"],
        ["backends", "--json"],
        ["models"],
        ["summary", "seed-tf"],
        ["doctor", "numpy"],
    ],
    ids=" ".join,
)
def test_a_command_that_only_looks_loads_no_engine(arguments, tmp_path):
    assert imported(command(*arguments), HEAVY, tmp_path) == []


def test_the_test_would_see_an_engine(tmp_path):
    assert imported("import cnnkit, torch, sklearn", HEAVY, tmp_path) == ["sklearn", "torch"]
