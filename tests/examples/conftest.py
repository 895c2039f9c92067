"""The examples, as modules whose `main` takes the arguments of the command line."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example():
    """A function that loads `examples/NAME.py`."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def tables_of(text):
    """The Markdown tables in `text`: of each a list of rows, the head first, each a list of cells."""
    tables, before = [], ""
    for line in text.splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("| ").replace(" | |", " |  |").split(" | ")]
            if not before.startswith("| "):
                tables.append([])
            if set(line) != set("| -"):
                tables[-1].append(cells)
        before = line
    return tables


@pytest.fixture
def printed(capsys):
    """A function that gives what was printed since it was last asked, and the tables in it."""

    def since_then():
        text = capsys.readouterr().out
        return text, tables_of(text)

    return since_then
