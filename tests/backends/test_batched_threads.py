"""Threads of `numpy-batched` change no number, and leave nothing behind: ours, those of BLAS, those of whoever calls."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from batched import predictor, trainer
from networks import CLASSIFIERS, batch, random_parameters
from threadpoolctl import threadpool_info, threadpool_limits

from cnnkit import SGD, Adam, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Model, Optimizer, Rescale, Softmax
from cnnkit.state import same_state

SMALL = CLASSIFIERS["deep"]  # with dropout

# More parameters than a thread updates at once, and products that OpenBLAS sums in another order on two threads.
WIDE = Model(
    input_shape=(12, 12, 11),
    layers=[
        Rescale(scale=0.25),
        Conv2D(filters=32, kernel_size=3, padding="same", activation="relu"),
        MaxPool2D(pool_size=2),
        Conv2D(filters=64, kernel_size=3, activation="relu"),
        Flatten(),
        Dropout(rate=0.3),
        Dense(units=40, activation="tanh"),
        Dense(units=3),
        Softmax(),
    ],
)


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def _two_blas_threads():
    """What the process has set before: something other than what the backend sets."""
    with threadpool_limits(2, user_api="blas"):
        assert blas_threads() == {2}
        yield


@pytest.fixture
def _eager_switching():
    """Python switches between threads as often as it can, so that races happen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@dataclass(frozen=True)
class Elsewhere(Optimizer):
    """Changes nothing in place; the gradient's own array becomes the slot."""

    learning_rate: float = 0.1
    clip_global_norm: float | None = None
    slot_names = ("velocity",)

    def coefficients(self, step):
        return (self.learning_rate / (1 + step),)

    def apply(self, p, g, slots, coefficients):
        g += 0.9 * slots[0]
        return p - coefficients[0] * g, (g,)


# --------------------------------------------------------------------------------------------------------- the same bits


def bits(state):
    arrays = [state.parameters, *state.slots.values()]
    return [array.tobytes() for group in arrays for array in group.values()]


def after_an_epoch(model, optimizer, threads, count=150, batch_size=70):
    """Loss, state and predictions after batches of 70, 70 and 10, as bytes."""
    images, labels = batch(model, count, dtype=np.float32)
    program = trainer(model, optimizer, precision="float32", threads=threads)
    order = np.random.default_rng(3).permutation(count)
    totals = program.epoch(images, labels, order, batch_size)
    state = program.state()
    frozen = predictor(model, state.parameters, precision="float32", threads=threads)
    return totals, bits(state), program.predict(images).tobytes(), frozen.predict(images[:75]).tobytes()


@pytest.mark.parametrize(
    "optimizer",
    [SGD(0.05), Adam(0.01), SGD(0.05, momentum=0.9, clip_global_norm=0.1), Elsewhere(), Elsewhere(0.1, 0.1)],
    ids=["sgd", "adam", "clipped", "not in place", "clipped, not in place"],
)
@pytest.mark.parametrize("model", [SMALL, WIDE], ids=["small", "wide"])
def test_every_number_of_threads_ends_an_epoch_with_the_same_bits(model, optimizer):
    expected = after_an_epoch(model, optimizer, 1)
    for threads in (2, 3, 5):
        assert after_an_epoch(model, optimizer, threads) == expected


def test_batches_of_every_size_have_the_same_bits_on_every_number_of_threads():
    """The programs go on: each meets all sizes, growing and in turn."""
    images, labels = batch(SMALL, 70, dtype=np.float32)
    programs = [trainer(SMALL, Adam(0.01), precision="float32", threads=threads) for threads in (1, 2, 3, 5)]
    for count in range(1, 71):
        answers = set()
        for program in programs:
            loss, gradients = program.gradients(images[:count], labels[:count])
            stepped = program.step(images[-count:], labels[-count:])
            predicted = program.predict(images[:count])
            found = (np.float64(loss), np.float64(stepped), predicted, *gradients.values())
            answers.add(b"".join(array.tobytes() for array in found))
        assert len(answers) == 1, f"a batch of {count}"
    assert len({tuple(bits(program.state())) for program in programs}) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_of_blas_change_no_bit(threads):
    with threadpool_limits(1, user_api="blas"):
        expected = after_an_epoch(WIDE, Adam(0.01), 1)
    assert after_an_epoch(WIDE, Adam(0.01), threads) == expected


# ------------------------------------------------------------------------------------------------- the BLAS setting


class Watched(np.ndarray):
    """Images that call `watch` whenever some of them are read."""

    watch = None

    def __getitem__(self, key):
        if self.watch:
            self.watch()
        return np.asarray(self)[key]

    def take(self, *given, **named):
        if self.watch:
            self.watch()
        return np.asarray(self).take(*given, **named)


def watched(images, watch):
    view = images.view(Watched)
    view.watch = watch
    return view


CALLS = {
    "predict": lambda program, images, _labels: program.predict(images),
    "gradients": lambda program, images, labels: program.gradients(images, labels),
    "step": lambda program, images, labels: program.step(images, labels),
    "epoch": lambda program, images, labels: program.epoch(images, labels, np.arange(len(images)), 80),
}
EVERY_CALL = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@EVERY_CALL
@pytest.mark.parametrize("threads", [1, 2])
def test_blas_has_one_thread_while_a_program_runs_and_its_own_setting_afterwards(call, threads):
    seen = []
    images, labels = batch(SMALL, 80)
    call(trainer(SMALL, threads=threads), watched(images, lambda: seen.append(blas_threads())), labels)
    assert len(seen) >= 3  # slices
    assert set.union(*seen) == {1}
    assert blas_threads() == {2}


@EVERY_CALL
@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_leaves_the_blas_setting_and_the_program_as_they_were(call, threads):
    calls = []

    def fail_late():
        calls.append(1)
        if len(calls) >= 2:
            raise ZeroDivisionError("while images are read")

    program, sound = trainer(SMALL, threads=threads), trainer(SMALL, threads=threads)
    images, labels = batch(SMALL, 80)
    before = program.state()
    with pytest.raises(ZeroDivisionError, match="while images are read"):
        call(program, watched(images, fail_late), labels)
    assert blas_threads() == {2}
    assert same_state(before, program.state())
    np.testing.assert_array_equal(program.predict(images[:9]), sound.predict(images[:9]))
    program.step(images, labels)
    sound.step(images, labels)
    assert same_state(program.state(), sound.state())


@EVERY_CALL
def test_the_error_of_another_thread_comes_out_when_all_have_ended(call):
    """Or they would write into the memory of whatever the program does next."""
    caller, failed, ended = threading.current_thread(), threading.Event(), []

    def fail_elsewhere():
        if threading.current_thread() is not caller:
            failed.set()
            raise ZeroDivisionError("in another thread")
        assert failed.wait(5)
        time.sleep(0.05)
        ended.append(True)

    program, sound = trainer(SMALL, threads=2), trainer(SMALL, threads=2)
    images, labels = batch(SMALL, 80)
    with pytest.raises(ZeroDivisionError, match="in another thread"):
        call(program, watched(images, fail_elsewhere), labels)
    count = len(ended)
    assert count > 0
    time.sleep(0.1)
    assert len(ended) == count
    assert blas_threads() == {2}
    program.step(images, labels)
    sound.step(images, labels)
    assert same_state(program.state(), sound.state())


@EVERY_CALL
def test_an_error_of_the_caller_waits_for_the_other_threads(call):
    caller, working, ended = threading.current_thread(), threading.Event(), []

    def watch():
        if threading.current_thread() is caller:
            assert working.wait(5)
            raise ZeroDivisionError("in the caller")
        working.set()
        time.sleep(0.05)
        ended.append(True)

    images, labels = batch(SMALL, 80)
    with pytest.raises(ZeroDivisionError, match="in the caller"):
        call(trainer(SMALL, threads=2), watched(images, watch), labels)
    count = len(ended)
    time.sleep(0.15)
    assert 0 < count == len(ended)


@dataclass(frozen=True)
class Failing(SGD):
    """Fails, once."""

    failures: list = field(default_factory=lambda: [True])

    def apply(self, p, g, slots, coefficients):
        if self.failures and self.failures.pop():
            raise ZeroDivisionError("in the update")
        return super().apply(p, g, slots, coefficients)


def test_an_error_in_the_update_comes_out_and_the_next_step_begins_anew():
    images, labels = batch(WIDE, 40)
    program = trainer(WIDE, Failing(learning_rate=0.0, clip_global_norm=1.0), threads=2)
    sound = trainer(WIDE, SGD(learning_rate=0.0), threads=2)
    expected = sound.gradients(images, labels)
    with pytest.raises(ZeroDivisionError, match="in the update"):
        program.step(images, labels)
    assert program.state().step == 0
    loss, gradients = program.gradients(images, labels)
    assert loss == expected[0]
    for name, gradient in expected[1].items():
        np.testing.assert_array_equal(gradients[name], gradient)
    program.step(images, labels)
    assert program.state().step == 1
    assert blas_threads() == {2}


# ---------------------------------------------------------------------------------------------- programs side by side


@pytest.mark.usefixtures("_eager_switching")
@pytest.mark.parametrize("threads", [1, 2])
def test_two_programs_in_two_threads_compute_what_each_computes_alone(threads):
    images, labels = batch(SMALL, 100, dtype=np.float32)
    order = np.random.default_rng(0).permutation(100)

    def work(seed):
        program = trainer(SMALL, Adam(0.01), precision="float32", threads=threads, seed=seed)
        losses = [program.epoch(images, labels, order, 30).loss_sum for _ in range(10)]
        return losses, program.predict(images).tobytes(), bits(program.state())

    alone = [work(0), work(1)]
    assert alone[0] != alone[1]
    begin = threading.Barrier(2)
    with ThreadPoolExecutor(2) as callers:
        together = list(callers.map(lambda seed: (begin.wait(5), work(seed))[1], (0, 1)))
    assert together == alone
    assert blas_threads() == {2}


@pytest.mark.usefixtures("_eager_switching")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_program_called_from_several_threads_answers_each_rightly(threads):
    program = trainer(SMALL, threads=threads)
    frozen = predictor(SMALL, program.state().parameters, threads=threads)
    questions = [batch(SMALL, count, seed) for seed, count in enumerate((1, 33, 70, 4))]
    answers = [(program.gradients(*question), program.predict(question[0])) for question in questions]

    def ask(index):
        images, labels = questions[index]
        (loss, gradients), probabilities = answers[index]
        for _ in range(20):
            made_loss, made = program.gradients(images, labels)
            assert made_loss == loss
            for name, gradient in gradients.items():
                np.testing.assert_array_equal(made[name], gradient)
            np.testing.assert_array_equal(program.predict(images), probabilities)
            np.testing.assert_array_equal(frozen.predict(images), probabilities)

    with ThreadPoolExecutor(4) as callers:
        list(callers.map(ask, range(4)))
    assert blas_threads() == {2}


@pytest.mark.usefixtures("_eager_switching")
def test_no_step_of_several_callers_is_lost():
    """Equal steps, so that their order does not matter."""
    images, labels = batch(SMALL, 40)
    optimizer = SGD(0.01, momentum=0.9)
    alone, shared = trainer(SMALL, optimizer, threads=2), trainer(SMALL, optimizer, threads=2)
    for _ in range(30):
        alone.step(images, labels)
    with ThreadPoolExecutor(3) as callers:
        for each in [callers.submit(shared.step, images, labels) for _ in range(30)]:
            each.result()
    assert same_state(shared.state(), alone.state())


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


def test_threads_end_with_their_program():
    before = threading.active_count()
    images, labels = batch(SMALL, 80)
    programs = [trainer(SMALL, threads=3) for _ in range(4)]
    for program in programs:
        program.step(images, labels)
        program.predict(images)
    assert threading.active_count() > before
    del program, programs
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_program_goes_on_in_a_forked_child_and_in_its_parent(threads):
    code = f"""
import os, signal, warnings
import numpy as np
import cnnkit
from cnnkit import Conv2D, Dense, Flatten, Model, SGD, Softmax
warnings.simplefilter("ignore")  # Python 3.12 warns of forks with threads
model = Model(input_shape=(12, 12, 1), layers=[Conv2D(filters=4, kernel_size=3), Flatten(), Dense(units=3), Softmax()])
optimizer = SGD(learning_rate=0.1)
def new():
    return cnnkit.get_backend("numpy-batched", threads={threads}).compile_training(
        model.plan(), cnnkit.initial_state(model, optimizer), optimizer
    )
def same(one, other):
    return all(np.array_equal(array, other.state().parameters[name]) for name, array in one.state().parameters.items())
images, labels = np.random.default_rng(0).random((400, 12, 12, 1), np.float32), np.arange(400) % 3
sound, program = new(), new()
before = program.predict(images)
program.gradients(images, labels)
sound.step(images, labels)
child = os.fork()
if child == 0:
    signal.alarm(20)
    unchanged = np.array_equal(program.predict(images), before)
    program.step(images, labels)
    os._exit(0 if unchanged and same(program, sound) else 3)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(program.predict(images), before)
program.step(images, labels)
assert same(program, sound)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_many_threads_more_than_slices_are_no_harm():
    images, labels = batch(SMALL, 3)
    few, many = trainer(SMALL, threads=1), trainer(SMALL, threads=16)
    few.step(images, labels)
    many.step(images, labels)
    assert same_state(few.state(), many.state())
    parameters = random_parameters(SMALL.plan())
    np.testing.assert_array_equal(
        predictor(SMALL, parameters, threads=16).predict(images), predictor(SMALL, parameters).predict(images)
    )
