"""What the backend and the plain engine call in CuPy is there, and takes what it is given: compared with CuPy itself."""

import ast
import importlib.util
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import cupy_by_numpy
import pytest

ROOTS = ("cp", "xp", "cupy")
"""How CuPy is called in our source, as a name or as an attribute of something else."""


def files():
    package = Path(importlib.util.find_spec("cnnkit_cupy").origin).parent
    return [*sorted(package.glob("*.py")), package.parent / "cnnkit_batched" / "plain_engine.py"]


def chain(node):
    """The names of `a.b.c`, or none where it begins with something else."""
    names = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else ["", *names]


def calls(tree):
    """Each chain of names that goes through a root, from there on, with the keywords of a call of it."""
    given = {
        id(node.func): [each.arg for each in node.keywords] for node in ast.walk(tree) if isinstance(node, ast.Call)
    }
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue
        names = chain(node)
        root = next((number for number, name in enumerate(names) if name in ROOTS), None)
        if root is not None and names[root + 1 :]:
            yield ".".join(names[root + 1 :]), given.get(id(node), [])


def found_in(path):
    return [(path.name, name, keywords) for name, keywords in calls(ast.parse(path.read_text()))]


FOUND = [each for path in files() for each in found_in(path)]


def resolve(module, name):
    for part in name.split("."):
        module = getattr(module, part)
    return module


def accepted(function):
    """The names of a function's arguments: from its signature, or the first line of what Cython wrote into its text."""
    if not callable(function):
        return set()
    try:
        return set(inspect.signature(function).parameters)
    except ValueError:
        return set(re.findall(r"[\w*]+(?=[,=)])", (function.__doc__ or "").split("\n\n")[0]))


@pytest.mark.parametrize(("file", "name", "keywords"), FOUND)
def test_every_name_is_there_and_takes_its_keywords(cp, file, name, keywords):  # noqa: ARG001 - it names the test
    try:
        function = resolve(cp, name)
    except AttributeError:
        # Beyond a call, such as `cp.cuda.Device(0).mem_info`, the chain begins anew, and it is not here.
        pytest.fail(f"cupy.{name} does not exist")
    takes = accepted(getattr(function, "__init__", function) if inspect.isclass(function) else function)
    missing = [each for each in keywords if each not in takes | accepted(function)]
    assert not missing, f"cupy.{name} takes {sorted(takes)}, not {missing}"


def test_names_are_found_in_both_engines():
    names = {name for _, name, _ in FOUND}
    assert {"RawModule", "cuda.Stream", "cuda.MemoryPool", "empty", "asarray", "permute_dims", "maximum"} <= names
    assert ("card.py", "RawModule", ["code", "options"]) in FOUND


def test_a_name_or_keyword_that_cupy_lacks_is_seen(cp):
    code = "a = self.cp.errstate(all='ignore')\nb = xp.sum(x, where=y)\nc = xp.sum(x, axis=0)\n"
    (_, one), (name, keywords), _ = calls(ast.parse(code))
    assert one == ["all"]
    with pytest.raises(AttributeError):
        resolve(cp, "errstate")
    assert not set(keywords) <= accepted(resolve(cp, name))
    assert "axis" in accepted(cp.sum)


# ----------------------------------------------------------------------------------------------------- the stand-in

CLASSES = {
    "Array": "ndarray",
    "Pointer": "cuda.MemoryPointer",
    "MemoryPool": "cuda.MemoryPool",
    "Stream": "cuda.Stream",
    "Device": "cuda.Device",
    "Graph": "cuda.graph.Graph",
    "RawModule": "RawModule",
}
OURS = {"host", "memory", "gpu", "array", "work", "launched", "kernels", "ledger", "limit", "inside"}


@pytest.mark.parametrize(("name", "real"), CLASSES.items())
def test_classes_of_the_stand_in_have_nothing_that_cupys_lack(cp, name, real):
    ours, theirs = getattr(cupy_by_numpy, name), resolve(cp, real)
    for attribute, value in vars(ours).items():
        if attribute.startswith("_") or attribute in OURS:
            continue
        assert hasattr(theirs, attribute), f"cupy.{real} has no {attribute}"
        if inspect.isfunction(value):
            takes = accepted(getattr(theirs, attribute))
            named = [each for each in inspect.signature(value).parameters.values() if each.default is not each.empty]
            assert all(each.name in takes for each in named), f"cupy.{real}.{attribute} takes {sorted(takes)}"


def test_names_of_the_stand_in_are_cupys(cp):
    def names(module, before=""):
        for name, value in vars(module).items():
            yield f"{before}{name}"
            if isinstance(value, SimpleNamespace):
                yield from names(value, f"{before}{name}.")

    ours = list(names(cupy_by_numpy.Gpu({}).cp))
    assert len(ours) > 10
    for name in ours:
        resolve(cp, name)
    assert issubclass(cp.cuda.memory.OutOfMemoryError, cupy_by_numpy.OutOfMemoryError.__mro__[1])
    for name in ("runtime.CUDARuntimeError", "driver.CUDADriverError"):
        assert issubclass(resolve(cp.cuda, name), RuntimeError)
    assert cp.cuda.compiler.CompileException.__mro__[1] is cupy_by_numpy.CompileException.__mro__[1]
