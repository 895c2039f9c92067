"""The command line, called in this process as the `cnnkit` command calls it, and small things to call it on."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cnnkit.cli import common, main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self):
        """The standard output, which must be one JSON object and nothing else. NaN, which is no JSON, is refused."""

        def refuse(name):
            raise ValueError(f"{name} is not JSON")

        assert self.code == 0, self.err
        found = json.loads(self.out, parse_constant=refuse)
        assert isinstance(found, dict)
        return found


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    """A folder of its own to work in, no settings of the user's, a wide screen."""
    for name in list(os.environ):
        if name.startswith("CNNKIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CNNKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(common.console, "_width", None)  # or it is as wide as the terminal in which the process began
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def cnnkit(monkeypatch, capsys):
    """A function that runs `cnnkit` with arguments and returns its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cnnkit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Result(ended.value.code or 0, printed.out, printed.err)

    return run


def blocks(count, seed=0):
    """uint8 images `(count, 8, 8, 1)` of three classes: noise, and a bright block whose place is the class."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = random.integers(0, 100, (count, 8, 8, 1), dtype=np.uint8)
    for row, label in enumerate(labels):
        images[row, 2 * label : 2 * label + 3, 2:6] += 120
    return images, labels


@pytest.fixture(scope="session")
def npz(tmp_path_factory):
    """An .npz file with 60 images to learn from and 30 to be judged on, of three named classes."""
    path = tmp_path_factory.mktemp("data") / "blocks.npz"
    (x_train, y_train), (x_test, y_test) = blocks(60), blocks(30, seed=1)
    names = ["top", "[middle]", ":bottom:"]  # which a terminal library might read as styles and pictures
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=names)
    return path


MODEL_TOML = """\
version = 1
name = "own"
input_shape = [8, 8, 1]
layers = [
    { kind = "rescale", scale = 0.00392156862745098 },
    { kind = "conv2d", filters = 4, kernel_size = 3, activation = "relu" },
    { kind = "flatten" },
    { kind = "dropout", rate = 0.1 },
    { kind = "dense", units = 3 },
    { kind = "softmax" },
]
"""


@pytest.fixture
def model_file():
    """A model file in the folder that the test works in."""
    Path("own.toml").write_text(MODEL_TOML, encoding="utf-8")
    return "own.toml"
