"""Runs to report on, trained once, and a reader of pages that sees them as a screen reader does."""

import contextlib
import html.parser
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnkit.cli import main

HOSTILE = '<script>alert(1)</script> " onload="x" & | `x` $y$ @all \x00\u202e'
NAMES = (HOSTILE, "[b]mid*dle*[/b]", "<b>")

MODEL = """\
version = 1
name = "own & <i>odd</i>"
input_shape = [8, 8, 1]
layers = [
    { kind = "rescale", scale = 0.00392156862745098 },
    { kind = "conv2d", filters = 4, kernel_size = 3, activation = "relu" },
    { kind = "flatten" },
    { kind = "dense", units = 3 },
    { kind = "softmax" },
]
"""


def blocks(count, seed=0, noise=100):
    """uint8 images `(count, 8, 8, 1)` of three classes, twice as many of the first: a bright block says which."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4 % 3
    images = random.integers(0, noise, (count, 8, 8, 1), dtype=np.uint8)
    for row, label in enumerate(labels):
        images[row, 2 * label : 2 * label + 3, 2:6] += 80
    return images, labels


def save_blocks(path, names=NAMES, **settings):
    (x_train, y_train), (x_test, y_test) = blocks(64, **settings), blocks(40, seed=1, **settings)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=names)


@contextlib.contextmanager
def working_in(folder):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def cnnkit(*arguments):
    """Run the command in this process; what it ends with must be 0."""
    before, sys.argv = sys.argv, ["cnnkit", *map(str, arguments)]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code  # noqa: PT017 - the exit code is what is asked for
    finally:
        sys.argv = before


@pytest.fixture(scope="session")
def studio(tmp_path_factory):
    """A folder with runs: `run` (3 epochs, validation, mistakes), `one` (an epoch), `seed-1` and `seed-2`, as `seed-0`."""
    folder = tmp_path_factory.mktemp("studio")
    with working_in(folder):
        save_blocks("blocks.npz", noise=176)
        Path("own.toml").write_text(MODEL, encoding="utf-8")
        cnnkit("train", "own.toml", "blocks.npz", "--epochs", 3, "--validation", 0.25, "--seed", 3, "--out", "a run")
        cnnkit("train", "own.toml", "blocks.npz", "--limit", 32, "--out", "one", "--json")
        for seed in range(3):
            cnnkit("train", "own.toml", "blocks.npz", "--epochs", 2, "--seed", seed, "--out", f"seed-{seed}", "--json")
    return folder


@pytest.fixture
def run(studio, tmp_path):
    """A copy of the run with everything, to be changed as a test likes."""
    return Path(shutil.copytree(studio / "a run", tmp_path / "a run"))


@pytest.fixture
def train(tmp_path):
    """A function that trains a model (its text or a preset) on arrays and returns the run folder."""

    def trained(model, arrays, *arguments):
        with working_in(tmp_path):
            np.savez("data.npz", **arrays)
            if "\n" in model:
                Path("own.toml").write_text(model, encoding="utf-8")
                model = "own.toml"
            cnnkit("train", model, "data.npz", "--out", "run", "--json", *arguments)
        return tmp_path / "run"

    return trained


class Page(html.parser.HTMLParser):
    """What stands on a page: `tags` with their attributes, `text`, `tables` by their id, `headings`, `code`."""

    EMPTY = frozenset({"meta", "img", "br", "wbr", "link"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.stack, self.text, self.headings, self.code = [], [], "", [], []
        self.tables, self.captions, self.key = {}, {}, []
        self._table = ""
        self.feed(text)
        self.close()
        assert self.stack == [], "an element is not closed"

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert len(given) == len(attributes), f"an attribute is given twice: {attributes}"
        self.tags.append((tag, given))
        if tag not in self.EMPTY:
            self.stack.append(tag)
        if tag == "table":
            self._table = given["id"]
            self.tables[self._table] = []
            self.captions[self._table] = ""
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
        elif tag in ("h1", "h2", "h3"):
            self.headings.append([int(tag[1]), ""])
        elif tag == "pre":
            self.code.append("")
        elif tag in ("dt", "dd"):
            self.key.append("")

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" in self.stack:
            return
        self.text += data
        if "caption" in self.stack:
            self.captions[self._table] += data
        elif {"td", "th"} & set(self.stack):
            self.tables[self._table][-1][-1] += data
        if {"h1", "h2", "h3"} & set(self.stack):
            self.headings[-1][1] += data
        if "pre" in self.stack:
            self.code[-1] += data
        if {"dt", "dd"} & set(self.stack):
            self.key[-1] += data

    def facts(self):
        """All names and values of the lists of facts."""
        return dict(zip(self.key[::2], self.key[1::2], strict=True))

    def rows(self, table):
        """The rows of a table by what stands in front of them, as dicts from the headings to the cells."""
        rows = self.tables[table]
        head, *body = rows if rows[0][0] else rows[1:]  # a matrix has a row over its headings
        return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}

    def all(self, tag):
        """The attributes of all elements of a kind."""
        return [given for name, given in self.tags if name == tag]


@pytest.fixture
def read():
    """A function that reads a page from its file or its text."""
    return lambda page: Page(page.read_text(encoding="utf-8") if isinstance(page, Path) else page)
