"""What `import cnnkit` offers: adding or taking away a public name has to be a decision."""

import ast
import dataclasses
import importlib
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import cnnkit

PACKAGES = ["cnnkit", "cnnkit.datasets", "cnnkit.cli", "cnnkit.plugins", "cnnkit.bench"]


STUB = ast.parse((Path(cnnkit.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))


def test_what_is_imported_at_first_use_is_what_the_stub_tells_type_checkers():
    imports = {
        (node.module, alias.name) for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    contents = {(f"cnnkit.{module}", name) for module, names in cnnkit._CONTENTS.items() for name in names}
    assert contents == imports


def test_the_stub_and_the_module_list_the_same_names():
    (listed,) = [ast.literal_eval(node.value) for node in STUB.body if isinstance(node, ast.Assign)]
    assert sorted(listed) == cnnkit.__all__


def test_a_fresh_import_offers_every_name_and_every_module_and_no_other():
    code = """
import cnnkit, pkgutil
assert set(cnnkit.__all__) <= set(dir(cnnkit))
modules = {module.name for module in pkgutil.iter_modules(cnnkit.__path__) if not module.name.startswith("_")}
for name in [*cnnkit.__all__, *modules - {"cli"}]:
    getattr(cnnkit, name)
assert not hasattr(cnnkit, "Modell")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", PACKAGES)
def test_all_has_no_name_twice_and_none_that_is_missing(name):
    module = importlib.import_module(name)
    assert len(module.__all__) == len(set(module.__all__))
    assert [missing for missing in module.__all__ if not hasattr(module, missing)] == []


def test_all_is_in_alphabetical_order():
    assert cnnkit.__all__ == sorted(cnnkit.__all__)


def test_public_names_that_the_design_promises_are_there():
    promised = """
        Model Rescale Grayscale Conv2D MaxPool2D AvgPool2D Flatten Dense ReLU Tanh Sigmoid Dropout Softmax
        SGD Adam AdamW TrainingState Dataset Backend Program TrainingProgram
        initial_state initial_parameters backends get_backend load_dataset fit evaluate predict save load
    """
    assert set(promised.split()) <= set(cnnkit.__all__)


def documented(value):
    """Whether somebody has written a docstring; a dataclass and a class without one get a text from Python."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    if not text:
        return False
    return not (dataclasses.is_dataclass(value) and text.startswith(f"{value.__name__}("))


@pytest.mark.parametrize("name", cnnkit.__all__)
def test_every_public_name_has_a_docstring_and_so_have_its_public_methods(name):
    value = getattr(cnnkit, name)
    assert documented(value)
    if inspect.isclass(value) and not issubclass(value, BaseException):
        members = [member for key, member in vars(value).items() if not key.startswith("_")]
        functions = [member for member in members if inspect.isroutine(member) or isinstance(member, property)]
        bare = [member for member in functions if not inspect.getdoc(member)]
        assert bare == []


def test_the_version_is_that_of_the_distribution():
    assert cnnkit.__version__ == importlib.metadata.version("cnnkit")


def test_a_layer_over_sequences_that_is_not_there_names_the_layer_to_use():
    with pytest.raises(
        AttributeError, match=r"no attribute 'Conv1D'; a sequence is .*: use Conv2D with sizes \(1, n\)$"
    ):
        _ = cnnkit.Conv1D
    with pytest.raises(AttributeError, match=r"no attribute 'Area1D'$"):
        _ = cnnkit.Area1D
