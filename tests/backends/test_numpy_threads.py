"""Threads change no number, and leave nothing behind: ours, those of BLAS, and those of whoever calls us."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from networks import CLASSIFIERS, batch, predictor, random_parameters, trainer
from threadpoolctl import threadpool_info, threadpool_limits

from cnnkit import SGD, Adam, Conv2D, Dense, Flatten, Model, Optimizer, Rescale, Softmax
from cnnkit.state import same_state

# A product of 64 x 1000 and 1000 x 64 numbers, which OpenBLAS sums in another order on two threads than on one.
WIDE = Model(
    input_shape=(10, 10, 111),
    layers=[
        Rescale(scale=0.01),
        Conv2D(filters=64, kernel_size=3, activation="relu"),
        Flatten(),
        Dense(units=3),
        Softmax(),
    ],
)
SMALL = CLASSIFIERS["deep"]


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def _two_blas_threads():
    """What the process has set before: something other than what the backend sets."""
    with threadpool_limits(2, user_api="blas"):
        assert set(blas_threads()) == {2}
        yield


@pytest.fixture
def _eager_switching():
    """Python switches between threads as often as it can, so that races happen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def everything(model, count, threads):
    """What a program answers, and the state after two steps, as bytes."""
    images, labels = batch(model, count, dtype=np.float32)
    program = trainer(model, Adam(0.01), precision="float32", threads=threads)
    loss, gradients = program.gradients(images, labels)
    probabilities = program.predict(images)
    frozen = predictor(model, random_parameters(model.plan()), precision="float32", threads=threads)
    losses = [loss, float(program.step(images, labels)), float(program.step(images[::-1], labels))]
    arrays = [probabilities, frozen.predict(images), *gradients.values(), *program.state().parameters.values()]
    return losses, [array.tobytes() for array in arrays]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64])
def test_every_number_of_threads_gives_the_same_bits(count):
    expected = everything(SMALL, count, 1)
    for threads in (2, 3, 5):
        assert everything(SMALL, count, threads) == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_of_blas_change_no_bit(threads):
    with threadpool_limits(1, user_api="blas"):
        expected = everything(WIDE, 9, 1)
    assert everything(WIDE, 9, threads) == expected


# ------------------------------------------------------------------------------------------------- the BLAS setting


class Watched(np.ndarray):
    """Images that call `watch` whenever some of them are read."""

    watch = None

    def __getitem__(self, key):
        if self.watch:
            self.watch(key)
        return np.asarray(self)[key]

    def __iter__(self):
        if self.watch:
            self.watch(None)
        return iter(np.asarray(self))


def watched(images, watch):
    view = images.view(Watched)
    view.watch = watch
    return view


CALLS = {
    "predict": lambda program, images, _labels: program.predict(images),
    "gradients": lambda program, images, labels: program.gradients(images, labels),
    "step": lambda program, images, labels: program.step(images, labels),
    "epoch": lambda program, images, labels: program.epoch(images, labels, np.arange(len(images)), 16),
}
EVERY_CALL = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@EVERY_CALL
@pytest.mark.parametrize("threads", [1, 2])
def test_blas_has_one_thread_while_a_program_runs_and_its_own_setting_afterwards(call, threads):
    seen = []
    images, labels = batch(SMALL, 20)
    call(trainer(SMALL, threads=threads), watched(images, lambda _: seen.append(blas_threads())), labels)
    assert seen
    assert {count for counts in seen for count in counts} == {1}
    assert set(blas_threads()) == {2}


@EVERY_CALL
@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_leaves_the_blas_setting_and_the_program_as_they_were(call, threads):
    def fail(_key):
        raise ZeroDivisionError("while images are read")

    program = trainer(SMALL, threads=threads)
    images, labels = batch(SMALL, 20)
    before = program.state()
    with pytest.raises(ZeroDivisionError, match="while images are read"):
        call(program, watched(images, fail), labels)
    assert set(blas_threads()) == {2}
    assert same_state(before, program.state())
    program.step(images, labels)
    sound = trainer(SMALL, threads=threads)
    sound.step(images, labels)
    assert same_state(program.state(), sound.state())


@EVERY_CALL
def test_when_one_thread_fails_the_others_have_ended_before_the_error_comes_out(call):
    """Or they would write into the buffers of whatever the program does next."""
    first, working = threading.Lock(), threading.Event()
    ended = []

    def watch(_key):
        if first.acquire(blocking=False):
            working.wait(5)
            raise ZeroDivisionError("the first")
        working.set()
        time.sleep(0.02)
        ended.append(True)

    images, labels = batch(SMALL, 16)
    program = trainer(SMALL, threads=2)
    with pytest.raises(ZeroDivisionError, match="the first"):
        call(program, watched(images, watch), labels)
    count = len(ended)
    time.sleep(0.1)
    assert 0 < count == len(ended)


def test_the_blas_setting_comes_back_when_programs_overlap_in_time():
    """The first to enter leaves before the last: its leaving must not end the other's protection."""
    inside, leave = threading.Event(), threading.Event()
    counts = []

    def hold(_key):
        inside.set()
        assert leave.wait(5)
        counts.append(blas_threads())

    images, labels = batch(SMALL, 1)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(trainer(SMALL).gradients, watched(images, hold), labels)
        assert inside.wait(5)
        trainer(SMALL).gradients(images, labels)
        leave.set()
        waiting.result()
    assert {count for each in counts for count in each} == {1}
    assert set(blas_threads()) == {2}


# -------------------------------------------------------------------------------------- one program, several callers


@pytest.mark.usefixtures("_eager_switching")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_program_called_from_several_threads_answers_each_rightly(threads):
    program = trainer(SMALL, threads=threads)
    frozen = predictor(SMALL, program.state().parameters, threads=threads)
    questions = [batch(SMALL, count, seed) for seed, count in enumerate((1, 9, 17, 4))]
    answers = [(program.gradients(*question), program.predict(question[0])) for question in questions]

    def ask(index):
        images, labels = questions[index]
        (loss, gradients), probabilities = answers[index]
        for _ in range(30):
            made_loss, made = program.gradients(images, labels)
            assert made_loss == loss
            for name, gradient in gradients.items():
                np.testing.assert_array_equal(made[name], gradient)
            np.testing.assert_array_equal(program.predict(images), probabilities)
            np.testing.assert_array_equal(frozen.predict(images), probabilities)

    with ThreadPoolExecutor(4) as callers:
        list(callers.map(ask, range(4)))
    assert set(blas_threads()) == {2}


@dataclass(frozen=True)
class Dawdling(Optimizer):
    """Takes half a step, waits, and takes the other half."""

    learning_rate: float = 0.1
    clip_global_norm: None = None
    slot_names = ()
    halfway: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def coefficients(self, _step):
        return ()

    def apply(self, p, g, _slots, _coefficients):
        p -= 0.05 * g
        self.halfway.set()
        assert self.go_on.wait(5)
        p -= 0.05 * g
        return p, ()


@pytest.mark.parametrize(
    "ask",
    [
        lambda program, images, _labels: program.predict(images).tobytes(),
        lambda program, images, labels: program.gradients(images, labels)[0],
        lambda program, _images, _labels: program.state().parameters["0.kernel"].tobytes(),
        lambda program, _images, _labels: program.state().step,
    ],
    ids=["predict", "gradients", "parameters", "step count"],
)
def test_nobody_sees_a_step_half_done(ask):
    optimizer = Dawdling()
    program = trainer(SMALL, optimizer)
    images, labels = batch(SMALL, 3)
    with ThreadPoolExecutor(2) as callers:
        stepping = callers.submit(program.step, images, labels)
        assert optimizer.halfway.wait(5)
        asking = callers.submit(ask, program, images, labels)
        time.sleep(0.05)
        optimizer.go_on.set()
        stepping.result()
        assert asking.result() == ask(program, images, labels)


@pytest.mark.usefixtures("_eager_switching")
def test_no_step_of_several_callers_is_lost():
    """Equal steps, so that their order does not matter."""
    images, labels = batch(SMALL, 2)
    optimizer = SGD(0.01, momentum=0.9)
    alone, shared = trainer(SMALL, optimizer), trainer(SMALL, optimizer)
    for _ in range(60):
        alone.step(images, labels)
    with ThreadPoolExecutor(3) as callers:
        for each in [callers.submit(shared.step, images, labels) for _ in range(60)]:
            each.result()
    assert same_state(shared.state(), alone.state())


def test_predictions_while_a_program_trains_are_those_of_a_whole_number_of_steps():
    images, labels = batch(SMALL, 3)
    alone = trainer(SMALL, SGD(0.05))
    known = [alone.predict(images).tobytes()]
    for _ in range(40):
        alone.step(images, labels)
        known.append(alone.predict(images).tobytes())
    shared = trainer(SMALL, SGD(0.05))
    with ThreadPoolExecutor(1) as other:
        training = other.submit(shared.epoch, np.tile(images, (40, 1, 1, 1)), np.tile(labels, 40), np.arange(120), 3)
        while not training.done():
            assert shared.predict(images).tobytes() in known
    assert shared.predict(images).tobytes() == known[-1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_program_with_threads_goes_on_in_a_forked_child():
    code = """
import os, signal, warnings
import numpy as np
import cnnkit
from cnnkit import Conv2D, Dense, Flatten, Model, SGD, Softmax
warnings.simplefilter("ignore")  # Python 3.12 warns of forks with threads
model = Model(input_shape=(12, 12, 1), layers=[Conv2D(filters=4, kernel_size=3), Flatten(), Dense(units=3), Softmax()])
optimizer = SGD(learning_rate=0.1)
program = cnnkit.get_backend("numpy", threads=2).compile_training(
    model.plan(), cnnkit.initial_state(model, optimizer), optimizer
)
images, labels = np.ones((400, 12, 12, 1), np.float32), np.arange(400) % 3
before = program.predict(images)
program.gradients(images, labels)
child = os.fork()
if child == 0:
    signal.alarm(20)
    same = np.array_equal(program.predict(images), before)
    program.step(images, labels)
    os._exit(0 if same else 3)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
