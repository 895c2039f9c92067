"""What is seen of a run while it goes on, read from the screen that a terminal would make of it."""

import gc
import io
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import cnnkit
from cnnkit import EarlyStopping, EpochRecord, Progress, TrainingDisplay
from cnnkit.display import epoch_line

FIGURES = {"loss": 0.5, "accuracy": 0.75, "precision": 0.7, "recall": 0.6, "f1": 0.65}
RECORD = EpochRecord(1, 16, 0.001, 1.25, FIGURES, None, 10.0, 2.0, best=False)
PIECE = Progress(epoch=2, epochs=4, done=500, count=1000, running_loss=0.34567, seconds=5.0)
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def screen(written):
    """The lines that stand on a terminal after all of `written`; an unknown control sequence is an error."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+|\x1b", written):
        if piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\r":
            column = 0
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece == "\x1b[1A":
            row -= 1
        elif not piece.startswith("\x1b"):
            lines[row] = lines[row].ljust(column)[:column] + piece + lines[row][column + len(piece) :]
            column += len(piece)
        else:
            assert re.fullmatch(r"\x1b\[([\d;]*m|\?25[lh])", piece), repr(piece)
    return [line.rstrip() for line in lines]


def terminal(width=80, **settings):
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, **settings)


def seen_on(console):
    return screen(console.file.getvalue())


@pytest.fixture(scope="module")
def small():
    images = np.random.default_rng(0).random((30, 4, 4, 1), dtype=np.float32)
    layers = [cnnkit.Flatten(), cnnkit.Dense(units=3), cnnkit.Softmax()]
    return cnnkit.Model(input_shape=(4, 4, 1), layers=layers), cnnkit.Dataset(images, np.arange(30) % 3)


# ------------------------------------------------------------------------------------------------------ on a terminal


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (30, ["epoch 2/4 ━━━━━      500/1,000", "loss 0.3457,", "train accuracy 0.7500,"]),
        (40, ["epoch 2/4 ━━━━━━━━━━           500/1,000", "loss 0.3457, train accuracy 0.7500,"]),
        (80, [f"epoch 2/4 {'━' * 20:40} 500/1,000", "loss 0.3457, train accuracy 0.7500, 100 images/s, "]),
        (200, [f"epoch 2/4 {'━' * 20:40} 500/1,000 loss 0.3457, train accuracy 0.7500, 100 images/s, "]),
    ],
)
def test_the_bar_has_all_there_is_to_know_at_any_width(width, expected):
    console = terminal(width)
    with TrainingDisplay(console) as display:
        display(RECORD)
        display(PIECE)
        lines = seen_on(console)
    assert max(map(len, lines)) <= width
    bar = lines[next(number for number, line in enumerate(lines) if line.startswith("epoch 2/4")) :]
    for line, start in zip(bar, expected, strict=False):
        assert line.startswith(start.rstrip())
    assert " ".join(" ".join(bar).split()).endswith(
        "500/1,000 loss 0.3457, train accuracy 0.7500, 100 images/s, 0:07 left (run 0:31)"
    )


def test_a_screen_that_is_too_narrow_for_a_bar_has_its_figures():
    console = terminal(20)
    with TrainingDisplay(console) as display:
        display(PIECE)
        assert seen_on(console) == [
            "epoch 2/4,",
            "500/1,000,",
            "loss 0.3457,",
            "100 images/s,",
            "0:05 left (run 0:25)",
        ]


def test_a_run_of_one_epoch_has_one_time_that_is_left_and_long_times_have_hours():
    console = terminal()
    with TrainingDisplay(console) as display:
        display(Progress(1, 1, 100, 100_000, 0.5, 10.0))
        assert seen_on(console)[-1] == "loss 0.5000, 10 images/s, 2:46:30 left"


def test_the_accuracy_is_that_of_the_validation_set_where_there_is_one():
    console = terminal()
    with TrainingDisplay(console) as display:
        display(RECORD)
        display(PIECE)
        assert "train accuracy 0.7500" in seen_on(console)[-1]
        display(replace(RECORD, epoch=2, validation={**FIGURES, "accuracy": 0.625}))
        display(replace(PIECE, epoch=3))
        assert "validation accuracy 0.6250" in seen_on(console)[-1]
        assert "train" not in seen_on(console)[-1]


def test_the_lines_of_the_epochs_stay_and_the_bar_goes():
    console = terminal(200)
    with TrainingDisplay(console) as display:
        for epoch in (1, 2):
            display(replace(PIECE, epoch=epoch, epochs=2, done=1000, seconds=10.0))
            display(replace(RECORD, epoch=epoch))
            lines = seen_on(console)
            assert lines[epoch - 1] == (
                f"epoch {epoch}: running loss 1.2500; train loss 0.5000, accuracy 0.7500; 10.0 s, 100 images/s"
            )
        assert "".join(lines[2:]) == ""  # the bar has gone with the last epoch
    assert [line for line in seen_on(console) if line] == lines[:2]
    assert console.file.getvalue().count(HIDE) == console.file.getvalue().count(SHOW) == 1


def test_within_a_block_there_is_something_from_the_beginning_and_between_epochs():
    console = terminal()
    with TrainingDisplay(console) as display:
        assert seen_on(console) == ["waiting for the first images"]
        display(replace(PIECE, epoch=1))
        display(RECORD)
        assert any(line.startswith("epoch 1/4") for line in seen_on(console))
        assert not any("waiting" in line for line in seen_on(console))


def test_what_is_printed_stands_above_the_bar(monkeypatch):
    console = terminal()
    monkeypatch.setattr(sys, "stdout", console.file)
    monkeypatch.setattr(console.file, "isatty", lambda: True, raising=False)
    with TrainingDisplay(console) as display:
        display(PIECE)
        sys.stdout.write("a word from a callback\n")
        assert sys.stdout is not console.file
        assert seen_on(console)[0] == "a word from a callback"
        assert seen_on(console)[1].startswith("epoch 2/4")
    assert sys.stdout is console.file


def test_a_bar_is_not_drawn_for_every_piece_but_for_the_last():
    console = terminal()
    with TrainingDisplay(console) as display:
        display(PIECE)
        before = console.file.tell()
        for done in range(501, 600):
            display(replace(PIECE, done=done))
        assert console.file.tell() - before < 20 * 200  # some of them, if this machine was held up
        display(replace(PIECE, done=1000))
        assert "1,000/1,000" in seen_on(console)[0]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_terminal_clean(error):
    console, stdout, stderr = terminal(), sys.stdout, sys.stderr

    def train():
        with TrainingDisplay(console) as display:
            display(PIECE)
            raise error

    with pytest.raises(error):
        train()
    assert "".join(seen_on(console)) == ""
    assert console.file.getvalue().rindex(SHOW) > console.file.getvalue().rindex(HIDE)
    assert (sys.stdout, sys.stderr) == (stdout, stderr)


def test_without_a_block_the_bar_ends_by_itself_also_where_a_run_stops_early(small):
    console = terminal(200)
    run = cnnkit.fit(
        *small,
        epochs=9,
        optimizer=cnnkit.SGD(learning_rate=0.0),
        early_stopping=EarlyStopping(patience=1),
        callbacks=[TrainingDisplay(console)],
    )
    assert len(run.history) == 2
    written = console.file.getvalue()
    assert "30/30" in written
    assert [line.split(":")[0] for line in screen(written) if line] == ["epoch 1", "epoch 2"]
    assert seen_on(console)[0].endswith("images/s; best so far")
    assert written.count(HIDE) == written.count(SHOW) == 2


def test_without_a_block_what_an_error_leaves_goes_with_the_display():
    console, stderr = terminal(), sys.stderr
    display = TrainingDisplay(console)
    display(PIECE)
    assert SHOW not in console.file.getvalue()
    del display
    gc.collect()
    assert console.file.getvalue().rindex(SHOW) > console.file.getvalue().rindex(HIDE)
    assert "".join(seen_on(console)) == ""
    assert sys.stderr is stderr


def test_a_display_can_be_used_again(small):
    console = terminal(200)
    display = TrainingDisplay(console)
    for _ in range(2):
        with display:
            cnnkit.fit(*small, callbacks=[display])
    assert [line.split(":")[0] for line in seen_on(console) if line] == ["epoch 1", "epoch 1"]


# -------------------------------------------------------------------------------------------------- without a terminal


class Log(io.StringIO):
    """A file that remembers what had been flushed into it."""

    safe = ""

    def flush(self):
        self.safe = self.getvalue()


@pytest.mark.parametrize("width", [20, 200])
def test_without_a_terminal_there_is_one_whole_line_an_epoch_flushed_at_once(width):
    log = Log()
    with TrainingDisplay(Console(file=log, width=width)) as display:
        display(replace(PIECE, epoch=1))
        assert log.getvalue() == ""
        display(replace(RECORD, validation={**FIGURES, "loss": 0.25}, best=True))
        line = (
            "epoch 1: running loss 1.2500; train loss 0.5000, accuracy 0.7500; validation loss 0.2500, accuracy 0.7500; "
            "10.0 s, 100 images/s; best so far\n"
        )
        assert log.safe == line
    assert log.getvalue() == line


def test_images_per_second_are_left_out_where_nothing_told_of_the_images():
    assert epoch_line(replace(RECORD, train=None)) == "epoch 1: running loss 1.2500; 10.0 s"
    log = Log()
    display = TrainingDisplay(Console(file=log, width=200))
    display(replace(PIECE, epoch=7))
    display(RECORD)
    assert "images/s" not in log.getvalue()


def test_a_terminal_that_knows_no_control_sequences_gets_lines():
    console = terminal(200, _environ={"TERM": "dumb"})
    with TrainingDisplay(console) as display:
        display(PIECE)
        display(replace(RECORD, epoch=2))
    assert console.file.getvalue().count("\n") == 1
    assert "\x1b" not in console.file.getvalue()


@pytest.mark.parametrize("console", [terminal, lambda: Console(file=Log())], ids=["terminal", "file"])
def test_quiet_is_quiet(console):
    console = console()
    with TrainingDisplay(console, quiet=True) as display:
        display(PIECE)
        display(RECORD)
    assert console.file.getvalue() == ""


def test_the_standard_error_is_written_to_where_no_console_is_given(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # colours are wanted in a log; a bar is not
    monkeypatch.setenv("COLUMNS", "40")
    with TrainingDisplay() as display:
        display(PIECE)
        display(RECORD)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == epoch_line(RECORD) + "\n"


# ------------------------------------------------------------------------------------------- on a terminal of its own

SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
import cnnkit
images = np.zeros((3000, 4, 4, 1), np.float32)
model = cnnkit.Model(input_shape=(4, 4, 1), layers=[cnnkit.Flatten(), cnnkit.Dense(units=3), cnnkit.Softmax()])
def callback(event):
    print("told", flush=True)
    {then}
with cnnkit.TrainingDisplay() as display:
    cnnkit.fit(model, cnnkit.Dataset(images, np.arange(3000) % 3), callbacks=[display, callback])
"""


def on_a_pty(command, **settings):
    """What a command writes to a terminal of 80 columns that is its standard error; and the process, to be sent signals."""
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm", "COLUMNS": "80", "LINES": "25"},
        **{"stdout": subprocess.PIPE, **settings},
    )
    os.close(theirs)
    return process, ours


def read_all(descriptor, until=None):
    written = b""
    while until is None or until not in written:
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # Linux says so when the other side has gone
            break
        if not piece:
            break
        written += piece
    return written.decode()


def test_on_a_real_terminal_the_bar_goes_and_a_piped_output_gets_its_own():
    process, ours = on_a_pty([sys.executable, "-c", SCRIPT.format(then="")])
    written = read_all(ours)
    out = process.stdout.read()
    assert process.wait(timeout=60) == 0
    process.stdout.close()
    os.close(ours)
    assert out == b"told\n" * 4  # three pieces and an epoch
    assert "3,000/3,000" in written
    assert next(line.split(":")[0] for line in screen(written) if line) == "epoch 1"
    assert not any("3,000" in line for line in screen(written))
    assert written.rindex(SHOW) > written.rindex(HIDE)


def test_ctrl_c_on_a_real_terminal_leaves_it_clean():
    process, ours = on_a_pty([sys.executable, "-c", SCRIPT.format(then="time.sleep(30)")])
    assert process.stdout.readline() == b"told\n"
    before = read_all(ours, until=b"images/s")
    process.send_signal(signal.SIGINT)
    written = before + read_all(ours)
    process.wait(timeout=60)
    process.stdout.close()
    os.close(ours)
    assert HIDE in before
    assert written.rindex(SHOW) > written.rindex(HIDE)
    lines = [line for line in screen(written) if line]
    assert lines[0].startswith("Traceback")
    assert "Stopped in epoch 1 of 1, after 1,024 of 3,000 images" in lines[-1] + lines[-2]


def test_cnnkit_train_shows_the_bar_on_a_terminal_and_its_lines_above(tmp_path):
    command = [sys.executable, "-m", "cnnkit", "train", "mlp-1h", "digits", "--epochs", "2", "--validation", "0.2"]
    process, ours = on_a_pty([*command, "--out", "[bold]run:cat:"], cwd=tmp_path)
    written = read_all(ours)
    out = process.stdout.read().decode()
    process.stdout.close()
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert "epoch 2/2" in written
    assert re.search(r"validation accuracy \d\.\d{4}, [\d,]+ images/s, 0:00 left \(run 0:0\d\)", written)
    shown = " ".join(" ".join(screen(written)).split())
    assert re.match(r"epoch 1: running loss .* images/s epoch 2: running loss .* images/s", shown)
    assert "The run is in [bold]run:cat:. " in out
    assert (tmp_path / "[bold]run:cat:" / "model.safetensors").exists()
