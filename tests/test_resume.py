"""Runs that are killed, interrupted and resumed: they end in the bits in which the unbroken run ends.

Run as a script, this file is the process that gets killed (see `main`).
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import cnnkit.files
import cnnkit.history
import cnnkit.running
from cnnkit import checkpoints
from cnnkit.datasets import Dataset
from cnnkit.errors import CheckpointError, OptionError, TrainingError
from cnnkit.evaluation import evaluate
from cnnkit.history import EarlyStopping, EpochRecord, Progress
from cnnkit.model import Conv2D, Dense, Dropout, Flatten, Model, Rescale, Softmax
from cnnkit.optimizers import SGD, Adam
from cnnkit.plugins import get_backend
from cnnkit.state import same_state
from cnnkit.training import fit

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, and kills with SIGKILL")

MODEL = Model(
    name="tiny",
    input_shape=(6, 5, 1),
    layers=[
        Rescale(scale=1 / 255),
        Conv2D(filters=2, kernel_size=3, activation="relu"),
        Dropout(rate=0.3),
        Flatten(),
        Dense(units=3),
        Softmax(),
    ],
)
PIECES = 7
"""How many pieces an epoch of the runs below has."""


def data_of(seed=0):
    """Bright blocks whose place is the class, but for a third whose labels are noise."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 120, (250, 6, 5, 1), dtype=np.uint8)
    labels = random.integers(0, 3, 250)
    for row, label in enumerate(labels):
        images[row, 2 * label : 2 * label + 2] += 100
    labels[::3] = random.integers(0, 3, len(labels[::3]))
    return Dataset(images, labels)


def train(folder=None, **changes):
    """A run of several pieces and epochs that is stopped early; checkpoint_seconds=0 saves it after every piece."""
    settings = {
        "model": MODEL,
        "data": data_of(),
        "validation": 0.2,
        "optimizer": Adam(learning_rate=0.01),
        "batch_size": 8,
        "epochs": 12,
        "seed": 5,
        "early_stopping": EarlyStopping(patience=2, min_delta=0.05),
        "checkpoint_seconds": 1000,
        "out": folder,
        "resume": folder is not None,
        **changes,
    }
    with mock.patch.object(cnnkit.running, "PIECE_IMAGES", 32):
        return fit(**settings)


def forever(folder=None, **changes):
    """A run that is longer than the tests wait."""
    return train(folder, epochs=40, early_stopping=EarlyStopping(patience=60), **changes)


def without_seconds(history):
    return [replace(record, seconds_train=0.0, seconds_evaluate=0.0) for record in history]


def assert_same_end(run, unbroken):
    assert same_state(run.state, unbroken.state)
    assert without_seconds(run.history) == without_seconds(unbroken.history)
    assert (run.best_epoch, run.stopped_early) == (unbroken.best_epoch, unbroken.stopped_early)
    assert run.message == unbroken.message
    lines = (run.out / "history.jsonl").read_text().splitlines()
    assert [EpochRecord(**json.loads(line)) for line in lines] == list(run.history)
    assert same_state(checkpoints.load(run.out / "model.safetensors").state, unbroken.state)


@pytest.fixture(scope="module")
def unbroken():
    run = train()
    assert 1 < run.best_epoch < len(run.history) < 12  # there is something to go wrong about early stopping
    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ------------------------------------------------------------------------------- the process that is killed: main()

WATCHED = {module.__file__ for module in (cnnkit.running, checkpoints, cnnkit.files)}


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work):
    """The exit code of a process that does `work`: -9 if it was killed."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        finally:  # not a line of what stands around the fork may run twice
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def counting(act):
    """A trace function that calls `act` with the number of each line that is run of the modules that write a run."""
    seen = 0

    def trace(frame, _event, _argument):
        nonlocal seen
        if frame.f_code.co_filename not in WATCHED:
            return None
        seen += 1
        act(seen)
        return trace

    return trace


def traced(act, folder):
    sys.settrace(counting(act))
    try:
        train(folder, checkpoint_seconds=0)
    finally:
        sys.settrace(None)


def killed_at_lines(folder, count):
    """Kill `count` runs, each before another line of the code that trains and saves, evenly spread over all lines."""
    total = 0

    def note(seen):
        nonlocal total
        total = seen

    traced(note, folder / "unbroken")
    lines = [total * (2 * number + 1) // (2 * count) for number in range(count)]
    return [
        forked(lambda line=line, number=number: traced(lambda seen: seen == line and die(), folder / str(number)))
        for number, line in enumerate(lines)
    ]


def half_written(descriptor, _mode):
    """What `os.fdopen` returns to a process that dies with half of the file on the disk."""
    file = mock.MagicMock()
    file.__enter__.return_value.write = lambda data: (os.write(descriptor, data[: len(data) // 2]), die())
    return file


AT_WRITING = {
    "half of the file is on the disk": ("cnnkit.files.os.fdopen", half_written),
    "the file has not got its name": ("cnnkit.files.Path.replace", die),
    "the file has its name": ("cnnkit.files._sync_folder", die),
}


def killed_at_writing(folder):
    """Kill one run at each moment of AT_WRITING, while it writes its checkpoint in the middle of the second epoch."""

    def broken(path, target, death):
        def at(event):
            if isinstance(event, Progress) and (event.epoch, event.done) == (2, 96):
                (path.parent / f"{path.name}-before").mkdir()
                for name, data in contents(path).items():
                    (path.parent / f"{path.name}-before" / name).write_bytes(data)
                mock.patch(target, death).start()

        train(path, callbacks=[at], checkpoint_seconds=0)

    return [
        forked(lambda number=number, how=how: broken(folder / str(number), *how))
        for number, how in enumerate(AT_WRITING.values())
    ]


def main(what, folder, *arguments):
    folder = Path(folder)
    if what == "forever":
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        forever(folder, checkpoint_seconds=0)
    elif what == "lines":
        sys.stdout.write(json.dumps(killed_at_lines(folder, int(arguments[0]))))
    elif what == "writing":
        sys.stdout.write(json.dumps(killed_at_writing(folder)))


def run_main(*arguments):
    command = [sys.executable, "-P", __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


# ------------------------------------------------------------------------------------------------------------- killed


def test_a_run_killed_before_any_line_of_ours_resumes_to_the_same_end(tmp_path, unbroken):
    count = 16
    assert run_main("lines", tmp_path, count) == [-signal.SIGKILL] * count
    places = []
    for number in range(count):
        folder = tmp_path / str(number)
        assert not (folder / "model.safetensors").exists() or number == count - 1
        if (folder / "checkpoint.safetensors").exists():
            position = checkpoints.load(folder / "checkpoint.safetensors").progress["position"]
            places.append((position["epoch"], position["done"]))
        assert_same_end(train(folder), unbroken)
    assert places == sorted(places)
    assert len({epoch for epoch, _ in places}) >= 3
    assert len({done for _, done in places}) >= 3


def test_a_run_killed_while_it_writes_its_checkpoint_keeps_the_old_one_or_has_the_new_one(tmp_path, unbroken):
    assert run_main("writing", tmp_path) == [-signal.SIGKILL] * len(AT_WRITING)
    for number, when in enumerate(AT_WRITING):
        folder, before = tmp_path / str(number), contents(tmp_path / f"{number}-before")
        now = contents(folder)
        position = checkpoints.load(folder / "checkpoint.safetensors").progress["position"]
        if when == "the file has its name":
            assert (position["epoch"], position["done"]) == (1, 128)
        else:
            assert (position["epoch"], position["done"]) == (1, 96)
            assert {name: now[name] for name in before} == before
        assert_same_end(train(folder), unbroken)


def test_a_run_killed_again_and_again_at_any_time_resumes_to_the_same_end(tmp_path):
    for delay in (0.0, 0.02, 0.11, 0.2, 0.05):
        command = [sys.executable, "-P", __file__, "forever", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(delay)
            child.kill()
        assert child.returncode == -signal.SIGKILL
    position = checkpoints.load(tmp_path / "checkpoint.safetensors").progress["position"]
    assert (0, 0) < (position["epoch"], position["done"]) < (40, 0)
    assert_same_end(forever(tmp_path), forever())


# --------------------------------------------------------------------------------------------------------- interrupted


@pytest.fixture
def _ctrl_c():
    """Ctrl-C does what it does in a shell, also where the tests were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def interrupt():
    signal.raise_signal(signal.SIGINT)


def at_call(number, function, act=interrupt):
    """`function`, which at its call `number` (from 1) is preceded by `act`."""
    calls = 0

    def wrapped(*arguments, **settings):
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return function(*arguments, **settings)

    return wrapped


FINITE = cnnkit.running.TrainingRun._require_finite
INTERRUPTED = {
    # where Ctrl-C comes: (what is replaced, by what, where the run then stands, what the message says)
    "in the middle of a piece": (
        "cnnkit.running.TrainingRun._require_finite",
        lambda: at_call(10, FINITE),
        (1, 96),
        "Stopped in epoch 2 of 12, after 96 of 200 images. Saved in ",
    ),
    "in the last piece of an epoch": (
        "cnnkit.running.TrainingRun._require_finite",
        lambda: at_call(PIECES, FINITE),
        (0, 200),
        "Stopped in epoch 1 of 12, after 200 of 200 images. Saved in ",
    ),
    "while the training set is judged": (
        "cnnkit.running.evaluate",
        lambda: at_call(3, evaluate),
        (1, 200),
        "Stopped in epoch 2 of 12, after 200 of 200 images. Saved in ",
    ),
    "while the validation set is judged": (
        "cnnkit.running.evaluate",
        lambda: at_call(4, evaluate),
        (1, 200),
        "Stopped in epoch 2 of 12, after 200 of 200 images. Saved in ",
    ),
    "while a checkpoint is written": (
        "cnnkit.running.checkpoints.save",
        lambda: at_call(PIECES + 1, checkpoints.save),
        (1, 0),
        "Stopped after epoch 1 of 12. Saved in ",
    ),
}


@pytest.mark.usefixtures("_ctrl_c")
@pytest.mark.parametrize("place", INTERRUPTED)
@pytest.mark.parametrize("checkpoint_seconds", [0, 1000])
def test_ctrl_c_anywhere_saves_the_run_says_where_and_loses_nothing(tmp_path, unbroken, place, checkpoint_seconds):
    target, replacement, place_in_run, message = INTERRUPTED[place]
    if "checkpoint" in place and checkpoint_seconds:
        replacement = lambda: at_call(1, checkpoints.save)  # noqa: E731 - the first one is at the epoch's end
    with mock.patch(target, replacement()), pytest.raises(KeyboardInterrupt) as stopped:
        train(tmp_path, checkpoint_seconds=checkpoint_seconds)
    assert str(stopped.value).startswith(message)
    assert f"{tmp_path / 'checkpoint.safetensors'}; resume to go on from there." in str(stopped.value)
    position = checkpoints.load(tmp_path / "checkpoint.safetensors").progress["position"]
    assert (position["epoch"], position["done"]) == place_in_run
    assert_same_end(train(tmp_path), unbroken)


@pytest.mark.usefixtures("_ctrl_c")
@pytest.mark.parametrize("kind", [Progress, EpochRecord])
def test_ctrl_c_in_a_callback_saves_the_run_too(tmp_path, unbroken, kind):
    def stop(event):
        if isinstance(event, kind) and event.epoch == 2:
            interrupt()

    with pytest.raises(KeyboardInterrupt, match=r"Stopped .*Saved in .*; resume to go on from there"):
        train(tmp_path, callbacks=[stop])
    position = checkpoints.load(tmp_path / "checkpoint.safetensors").progress["position"]
    assert (position["epoch"], position["done"]) == ((1, 32) if kind is Progress else (2, 0))
    assert_same_end(train(tmp_path), unbroken)


@pytest.mark.usefixtures("_ctrl_c")
def test_a_second_ctrl_c_stops_at_once_and_leaves_the_old_checkpoint(tmp_path, unbroken):
    def twice():
        interrupt()
        interrupt()
        pytest.fail("the second one was held back")

    patch = mock.patch("cnnkit.running.TrainingRun._require_finite", at_call(10, FINITE, twice))
    with patch, pytest.raises(KeyboardInterrupt) as stopped:
        train(tmp_path, checkpoint_seconds=0)
    assert str(stopped.value) == ""
    position = checkpoints.load(tmp_path / "checkpoint.safetensors").progress["position"]
    assert (position["epoch"], position["done"]) == (1, 64)
    assert_same_end(train(tmp_path), unbroken)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_without_a_folder_says_that_nothing_was_saved():
    patch = mock.patch("cnnkit.running.TrainingRun._require_finite", at_call(2, FINITE))
    with (
        patch,
        pytest.raises(KeyboardInterrupt, match=r"after 64 of 200 images. Nothing was saved, since the run has no"),
    ):
        train()


def test_where_ctrl_c_is_ignored_training_ignores_it_too(unbroken):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with mock.patch("cnnkit.running.TrainingRun._require_finite", at_call(2, FINITE)):
            run = train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert same_state(run.state, unbroken.state)


def test_training_works_in_a_thread_which_no_signal_reaches(unbroken):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(train()))
    thread.start()
    thread.join()
    assert same_state(runs[0].state, unbroken.state)


# ------------------------------------------------------------------------------------------------------------- resumed

SGD_03 = SGD(learning_rate=0.3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two epochs that is not stopped early."""
    folder = tmp_path_factory.mktemp("finished")
    train(folder, epochs=2)
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": data_of(1)}, r"train was \{.*sha256.*validation was"),
        ({"data": Dataset(data_of().images, (data_of().labels + 1) % 3)}, "train was"),
        ({"validation": 0.3}, "train was .*validation was"),
        ({"validation": None}, "validation was .*now null"),
        ({"validation": data_of(1)}, "train was .*validation was"),
        ({"seed": 6}, "; seed was 5, now 6|: seed was 5, now 6"),
        ({"batch_size": 16}, r"other settings: batch_size was 8, now 16\. Resume it with its own, or choose another"),
        ({"optimizer": Adam(learning_rate=0.02)}, 'optimizer was .*"learning_rate": 0.01'),
        ({"optimizer": SGD_03}, 'optimizer was .*now {"kind": "sgd"'),
        ({"early_stopping": None}, 'early_stopping was {"patience": 2.*now null'),
        ({"precision": "float64"}, 'precision was "float32", now "float64"'),
        ({"model": Model(input_shape=(6, 5, 1), layers=[Dropout(rate=0.1), *MODEL.layers])}, "model was"),
        ({"model": Model(input_shape=(6, 5, 1), layers=MODEL.layers)}, 'model was .*"name": "tiny"'),
    ],
)
def test_resuming_with_other_settings_names_them_and_changes_no_file(finished, changes, message):
    before = contents(finished)
    with pytest.raises(TrainingError, match=message):
        train(finished, epochs=2, **changes)
    assert contents(finished) == before


def test_resuming_with_more_epochs_goes_on(tmp_path, unbroken):
    train(tmp_path, epochs=2)
    assert_same_end(train(tmp_path), unbroken)


def test_resuming_on_more_threads_is_no_other_setting(tmp_path, unbroken):
    train(tmp_path, epochs=2)
    assert_same_end(train(tmp_path, options={"threads": 2}), unbroken)


def test_a_run_that_was_stopped_early_stays_stopped(tmp_path, unbroken):
    first = train(tmp_path)
    again = train(tmp_path, epochs=50)
    assert again.history == first.history
    assert_same_end(again, unbroken)


def test_resuming_a_finished_run_does_nothing_and_returns_it(tmp_path):
    first, events = train(tmp_path, epochs=2), []
    before = contents(tmp_path)
    again = train(tmp_path, epochs=2, callbacks=[events.append])
    assert_same_end(again, first)
    assert events == []
    assert same_state(again.state, first.state)
    assert again.history == first.history  # with its seconds: it is the same run
    assert contents(tmp_path)["checkpoint.safetensors"] == before["checkpoint.safetensors"]


def test_resuming_with_fewer_epochs_than_are_done_keeps_them(tmp_path):
    first = train(tmp_path, epochs=3)
    assert train(tmp_path, epochs=1).history == first.history


def test_resuming_where_nothing_is_begins_anew(tmp_path, unbroken):
    folder = tmp_path / "not" / "there"
    assert_same_end(train(folder), unbroken)
    assert sorted(contents(folder)) == ["checkpoint.safetensors", "history.jsonl", "model.safetensors"]


@pytest.mark.parametrize("left", ["checkpoint.safetensors", "model.safetensors", "history.jsonl"])
def test_a_folder_with_a_run_is_not_begun_in_again(tmp_path, left):
    (tmp_path / left).write_bytes(b"mine")
    with pytest.raises(TrainingError, match=r"already holds a run. Go on with it with resume=True, or choose another"):
        train(tmp_path, resume=False)
    assert contents(tmp_path) == {left: b"mine"}


def test_a_damaged_checkpoint_is_not_trained_over(tmp_path):
    train(tmp_path, epochs=1)
    path = tmp_path / "checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="is damaged"):
        train(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("progress", [None, {"epoch": 3}])
def test_a_checkpoint_that_is_no_run_is_not_resumed(tmp_path, finished, progress):
    found = checkpoints.load(finished / "model.safetensors")
    path = tmp_path / "checkpoint.safetensors"
    checkpoints.save(path, found.model, found.state, optimizer=found.optimizer, progress=progress)
    with pytest.raises(TrainingError, match=r"is no checkpoint of a run, only of a model. Choose another folder"):
        train(tmp_path)


def test_a_folder_that_cannot_be_made_is_told_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"the folder .*file cannot be made: File exists. Choose another one"):
        train(tmp_path / "file", resume=False)


def test_without_a_folder_there_is_nothing_to_resume():
    with pytest.raises(OptionError, match="resume is True without out"):
        train(resume=True)


def test_a_run_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(epochs=1)
    assert list(tmp_path.iterdir()) == []


if __name__ == "__main__":
    main(*sys.argv[1:])


# ------------------------------------------------------------------------------ processes of which one leads the others


def following():
    """A backend of a process that trains with others as one, and does not lead them."""
    backend = get_backend("numpy")
    backend.leads = False
    return backend


def test_a_process_that_does_not_lead_trains_and_writes_nothing(tmp_path, unbroken):
    run = train(tmp_path / "run", backend=following(), checkpoint_seconds=0)
    assert same_state(run.state, unbroken.state)
    assert not (tmp_path / "run").exists()


def test_a_process_that_does_not_lead_resumes_from_what_another_wrote_and_leaves_it_as_it_is(tmp_path, unbroken):
    train(tmp_path / "run", epochs=1)
    (tmp_path / "run" / "history.jsonl").unlink()  # whoever leads would write it anew
    before = contents(tmp_path / "run")
    run = train(tmp_path / "run", backend=following(), checkpoint_seconds=0)
    assert same_state(run.state, unbroken.state)
    assert without_seconds(run.history) == without_seconds(unbroken.history)
    assert contents(tmp_path / "run") == before


def test_a_process_that_does_not_lead_may_begin_where_another_has_begun(tmp_path, unbroken):
    """In a shared folder the one that leads may have written already when another comes."""
    train(tmp_path / "run", epochs=1)
    before = contents(tmp_path / "run")
    run = train(tmp_path / "run", backend=following(), resume=False)
    assert same_state(run.state, unbroken.state)
    assert contents(tmp_path / "run") == before


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_in_a_process_that_does_not_lead_says_who_saves(tmp_path):
    train(tmp_path / "run", epochs=1)
    before = contents(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt, match=r"Another process writes .*checkpoint\.safetensors; resume"):
        train(tmp_path / "run", backend=following(), callbacks=[lambda _: interrupt()])
    assert contents(tmp_path / "run") == before
