"""What `import cnnkit` offers: adding or taking away a public name has to be a decision."""

import dataclasses
import importlib
import importlib.metadata
import inspect
import types

import pytest

import cnnkit

PACKAGES = ["cnnkit", "cnnkit.datasets", "cnnkit.cli", "cnnkit.plugins", "cnnkit.bench"]


def public_names(module):
    """Names without an underscore that are neither modules nor `from __future__`'s."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }


def test_all_lists_what_is_there_and_nothing_else():
    assert set(cnnkit.__all__) == public_names(cnnkit)


@pytest.mark.parametrize("name", PACKAGES)
def test_all_has_no_name_twice_and_none_that_is_missing(name):
    module = importlib.import_module(name)
    assert len(module.__all__) == len(set(module.__all__))
    assert [missing for missing in module.__all__ if not hasattr(module, missing)] == []


def test_all_is_in_order():
    # The order that ruff keeps: constants in capitals, then classes, then functions, each by the alphabet.
    kinds = [0 if name.isupper() else 1 if name[0].isupper() else 2 for name in cnnkit.__all__]
    assert cnnkit.__all__ == [name for _, name in sorted(zip(kinds, cnnkit.__all__, strict=True))]


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
