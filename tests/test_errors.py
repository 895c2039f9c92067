import inspect
import pickle
import re

import pytest

from cnnkit import errors
from cnnkit.errors import (
    BackendUnavailable,
    CnnkitError,
    DataError,
    MissingDependency,
    ModelError,
    NonFiniteLoss,
    OptionError,
    OutOfMemory,
    Problem,
    UnsupportedModel,
)

CLASSES = {
    name: found for name, found in vars(errors).items() if inspect.isclass(found) and issubclass(found, Exception)
}
PROBLEM = Problem("layers[0].filters", "is 0; expected a whole number of at least 1", "Use 1 or more")
OTHER = Problem("", "is empty", "Add a layer")


def test_the_drawn_tree_is_the_real_tree():
    drawn = {}
    above = {-1: "Exception"}
    for indent, name in re.findall(r"^    ([│├└─ ]*)([A-Z]\w+)", errors.__doc__, re.MULTILINE):
        depth = len(indent) // 4
        above[depth] = name
        drawn[name] = above[depth - 1]
    real = {name: found.__bases__[0].__name__ for name, found in CLASSES.items()}
    assert drawn == real
    assert len(drawn) > 10


@pytest.mark.parametrize("name", ["ModelError", "OptionError", "DataError"])
def test_wrong_values_are_value_errors_too(name):
    assert issubclass(CLASSES[name], ValueError)


def test_a_problem_reads_as_a_sentence_and_its_fix():
    assert str(PROBLEM) == "layers[0].filters is 0; expected a whole number of at least 1. Use 1 or more."
    assert str(OTHER) == "is empty. Add a layer."


def test_one_problem_is_one_line_and_several_are_a_numbered_list():
    assert str(ModelError([PROBLEM], "model 'a'")) == f"model 'a': {PROBLEM}"
    assert str(ModelError([PROBLEM, OTHER])) == f"model has 2 problems:\n  1. {PROBLEM}\n  2. {OTHER}"
    assert ModelError([PROBLEM, OTHER]).path == "layers[0].filters"


def test_a_refusal_names_the_backends_that_could():
    error = UnsupportedModel("slow", "layers[1]", "dilation", "it has no such kernel", ["numpy", "fast"])
    assert str(error) == (
        "Backend 'slow' does not support dilation, which layers[1] needs: it has no such kernel. "
        "Backends that could: numpy, fast."
    )
    assert str(UnsupportedModel("slow", "layers[1]", "dilation", "no", [])).endswith("No installed backend could.")


def test_a_refusal_of_a_backend_that_knows_no_others_does_not_say_that_there_are_none():
    error = UnsupportedModel("slow", "layers[1]", "dilation", "no")
    assert error.alternatives == ()
    assert str(error).endswith("`cnnkit why MODEL --all` lists the backends that could.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own bytes


def test_a_missing_dependency_names_its_cure_and_is_an_import_error():
    error = MissingDependency("The data set 'digits'", "scikit-learn", "data")
    assert isinstance(error, ImportError)
    assert str(error) == (
        "The data set 'digits' needs scikit-learn, which is not installed. Install it with: "
        "pip install 'cnnkit[data]' (in a checkout: '.[data]')"
    )
    assert (error.package, error.extra) == ("scikit-learn", "data")


EXAMPLES = {
    "ModelError": ModelError([PROBLEM, OTHER], "model 'a'"),
    "BackendUnavailable": BackendUnavailable("Backend 'x' is not ready.", {"state": "no-device"}),
    "OutOfMemory": OutOfMemory("needs 2 GB, but 1 GB is free. Use a smaller batch.", 2_000_000_000, 1_000_000_000, 16),
    "UnsupportedModel": UnsupportedModel("slow", "layers[1]", "dilation", "no", ["numpy"]),
    "NonFiniteLoss": NonFiniteLoss("The loss is NaN.", step=7, where="layers[1]"),
    "MissingDependency": MissingDependency("It", "pillow", "data"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_crosses_between_processes_whole(name):
    error = EXAMPLES.get(name) or CLASSES[name]("what is wrong")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_everything_that_is_raised_on_purpose_can_be_caught_at_once():
    assert all(issubclass(found, CnnkitError) for found in CLASSES.values())
    with pytest.raises(CnnkitError):
        raise OptionError("x")
    assert not issubclass(DataError, OptionError)
