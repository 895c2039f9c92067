"""`cnnkit train` says what memory a backend will take, where the backend knows; and what a limit would have to be."""

import re
from pathlib import Path

import pytest

from cnnkit import Adam, Model, get_backend

BATCHED = ("--backend", "numpy-batched", "--set", "threads=2")


def told(done):
    return re.findall(r"^memory: at most ([\d,]+) MB \((.*)\) beside the images$", done.out, re.MULTILINE)


def test_what_training_takes_is_said_before_it_begins(cnnkit, model_file, npz):
    last = '{ kind = "dense", units = 3 }'
    large = Path(model_file).read_text(encoding="utf-8").replace(last, f'{{ kind = "dense", units = 2048 }}, {last}')
    Path(model_file).write_text(large, encoding="utf-8")
    done = cnnkit("train", model_file, npz, *BATCHED, "--optimizer", "adam", "--out", "run")
    assert done.code == 0, done.err
    ((size, note),) = told(done)
    plan = Model.from_toml(large).plan()
    expected = get_backend("numpy-batched", threads=2).estimate_memory(plan, Adam(), 1)
    assert int(size.replace(",", "")) == -(-expected.bytes // 1_000_000) > 10
    assert note == "2 threads, 32 images at a time each"
    assert done.out.index("memory: at most") < done.out.index("accuracy")


@pytest.mark.parametrize("said", [("--json", *BATCHED), ("--backend", "numpy")])
def test_nothing_is_said_in_json_or_where_it_is_not_known(cnnkit, model_file, npz, said):
    done = cnnkit("train", model_file, npz, *said, "--out", "run")
    assert done.code == 0, done.err
    assert "memory: at most" not in done.out + done.err


def test_a_limit_that_nothing_fits_into_is_one_sentence_and_leaves_no_run(cnnkit, model_file, npz):
    done = cnnkit("train", model_file, npz, *BATCHED, "--set", "memory_limit=1 kB", "--out", "run")
    assert done.code == 1
    assert re.search(r"but memory_limit is 1 kB\. Give a limit of at least [\d,]+ kB, or a smaller model\.", done.err)
    assert not Path("run").exists()
