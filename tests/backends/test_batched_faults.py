"""Faults that `numpy-batched` once had: memory that no estimate told of, and threads that went on after an error."""

import time
import tracemalloc

import numpy as np
import pytest
from batched import backend, trainer
from hypothesis import given
from hypothesis import strategies as st
from networks import batch, random_parameters

from cnnkit import (
    SGD,
    Adam,
    BackendOptionError,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Model,
    OutOfMemory,
    Softmax,
    fresh_state,
    initial_state,
)
from cnnkit_batched.memory import read_bytes, stand_in
from cnnkit_batched.sizing import FEW_CALLS, NETWORKS, SLICE, _largest, length
from cnnkit_batched.team import Team


def convolutions(*layers, input_shape):
    return Model(input_shape=input_shape, layers=[*layers, Flatten(), Dense(units=5), Softmax()])


HUNGRY = {
    "many classes": Model(input_shape=(8,), layers=[Dense(units=30_000), Softmax()]),
    "many parameters": Model(
        input_shape=(400,), layers=[Dense(units=3000, activation="relu"), Dense(units=2), Softmax()]
    ),
    "much dropout": convolutions(
        Conv2D(filters=16, kernel_size=3), Dropout(rate=0.5), MaxPool2D(pool_size=5), input_shape=(40, 40, 1)
    ),
    "many blocks": convolutions(
        Conv2D(filters=2, kernel_size=21, padding="same", activation="relu"),
        Conv2D(filters=2, kernel_size=15, padding="same", activation="relu"),
        input_shape=(36, 36, 3),
    ),
    "large images": convolutions(Conv2D(filters=1, kernel_size=5, strides=4), input_shape=(224, 224, 3)),
}


@pytest.mark.parametrize("share", [None, 0.4])
@pytest.mark.parametrize("optimizer", [Adam(), SGD(0.1, clip_global_norm=1.0)], ids=["adam", "clipped"])
@pytest.mark.parametrize("name", HUNGRY)
def test_a_program_takes_no_more_memory_than_was_estimated(name, optimizer, share):
    model = HUNGRY[name]
    plan, state = model.plan(), initial_state(model, optimizer)
    images, labels = batch(model, 2 * SLICE + 3, dtype=np.float32)
    images = (images * 10).astype(np.uint8)
    limit = None
    if share is not None:
        limit = int(share * backend("float32").estimate_memory(plan, optimizer, 1).bytes)
        try:
            backend("float32", memory_limit=limit).estimate_memory(plan, optimizer, 1)
        except OutOfMemory as error:  # a model of parameters, above all
            limit = error.asked
    chosen = backend("float32", threads=2, memory_limit=limit)
    estimate = chosen.estimate_memory(plan, optimizer, 1).bytes
    order = np.arange(len(images))
    tracemalloc.start()
    try:
        program = chosen.compile_training(plan, state, optimizer)
        program.epoch(images, labels, order, len(images))
        program.epoch(images, labels, order[:9], 5)
        for count in (3, 2, 1):  # the answer is the caller's, and small
            program.predict(images[:count])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= estimate + 2_000_000  # the calls of small networks, which are not counted
    assert limit is None or estimate <= limit


def test_what_an_update_makes_on_the_way_is_in_the_estimate():
    """Arrays of a piece of the parameters: more than all that is not counted."""
    model, optimizer = HUNGRY["many parameters"], Adam()
    state = initial_state(model, optimizer, precision="float64")
    images, labels = batch(model, SLICE)
    estimate = backend().estimate_memory(model.plan(), optimizer, 1).bytes
    tracemalloc.start()
    try:
        program = backend().compile_training(model.plan(), state, optimizer)
        program.step(images, labels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= estimate


def test_a_thread_keeps_no_more_calls_than_are_in_the_estimate():
    model = HUNGRY["many blocks"]
    images, labels = batch(model, SLICE, dtype=np.float32)
    program = trainer(model, precision="float32")
    member = program.workers.members[0]
    program.gradients(images, labels)
    longest = sum(map(length, member.networks.values()))
    assert longest > 2 * FEW_CALLS
    kept = []
    for count in range(SLICE, SLICE - 7, -1):
        program.gradients(images[:count], labels[:count])
        kept.append(len(member.networks))
        assert sum(map(length, member.networks.values())) <= NETWORKS * longest
    assert max(kept) >= NETWORKS


def test_a_limit_is_kept_by_a_model_that_has_no_memory_for_all_images_at_once():
    """An image has 40 GB here; no machine promises the memory of 32 of them."""
    model = Model(input_shape=(10**10,), layers=[Dense(units=1), Softmax()])
    estimate = backend("float32", memory_limit="900 GB").estimate_memory(model.plan(), SGD(0.1), 64)
    assert 300 * 10**9 < estimate.bytes <= 900 * 10**9
    with pytest.raises(OutOfMemory, match=r"one image at a time, but memory_limit is 100,000 MB\."):
        backend("float32", memory_limit="100 GB").estimate_memory(model.plan(), SGD(0.1), 64)


def test_nobody_can_write_where_an_array_only_stands_in():
    array = stand_in((3, 10**9, 4), np.float32)
    assert array.flags.c_contiguous
    assert array.shape == (3, 10**9, 4)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0, 0] = 1.0


@pytest.mark.parametrize("spare", [0, 1])
def test_the_error_names_a_limit_that_will_do_and_does_not_round_it_to_the_limit_that_will_not(spare):
    model = Model(
        input_shape=(30, 30, 1), layers=[Conv2D(filters=2, kernel_size=3), Flatten(), Dense(units=2), Softmax()]
    )
    optimizer = SGD(0.1)
    state = fresh_state(random_parameters(model.plan()), optimizer)
    with pytest.raises(OutOfMemory, match="memory_limit is 1 kB") as caught:
        backend(memory_limit=1999).compile_training(model.plan(), state, optimizer)
    asked = caught.value.asked
    assert f"at least {-(-asked // 1000):,} kB" in str(caught.value)
    named = str(caught.value).split("at least ")[1].split(", or")[0]
    for limit in (asked + spare, named):
        backend(memory_limit=limit).compile_training(model.plan(), state, optimizer)
    with pytest.raises(OutOfMemory):
        backend(memory_limit=asked - 1).compile_training(model.plan(), state, optimizer)


@given(st.integers(1, 40), st.integers(0, 45))
def test_the_search_finds_the_largest_that_fits(most, limit):
    assert _largest(lambda count: count <= limit, most) == min(most, limit)


@pytest.mark.parametrize("limit", [1, 3, 12])
def test_the_search_tries_nothing_that_is_more_than_twice_too_large(limit):
    tried = []
    _largest(lambda count: (tried.append(count), count <= limit)[1], 32)
    assert max(tried) <= 2 * limit
    assert len(tried) <= 9


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1,234 kB", 1_234_000),
        ("0.7 GB", 700_000_000),
        ("4.35 MB", 4_350_000),  # 4.35 * 10**6 is 4349999.999999999
        (10**400, 10**400),
    ],
)
def test_a_limit_is_read_as_it_is_written(text, count):
    assert read_bytes("numpy-batched", text) == count


@pytest.mark.parametrize("text", ["1,23 MB", ",5", "1,2345"])
def test_a_comma_elsewhere_is_no_number(text):
    with pytest.raises(BackendOptionError, match="memory_limit is"):
        read_bytes("numpy-batched", text)


def test_threads_that_began_are_waited_for_when_another_cannot_be_started(monkeypatch):
    team = Team(4)
    team.share(lambda _member, _number: None, 8)  # the pool is there
    submit, started, ended = team.others.submit, [], []

    def fail_third(*given):
        started.append(True)
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        return submit(*given)

    def work(_member, number):
        time.sleep(0.02)
        ended.append(number)

    monkeypatch.setattr(team.others, "submit", fail_third)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        team.share(work, 12)
    assert sorted(ended) == list(range(12))


@pytest.mark.parametrize("count", [1, 1 << 15, (1 << 15) + 1, 100_000])
def test_the_norm_of_a_gradient_is_that_of_all_its_pieces(count):
    """One step from parameters of 0, on an image of ones: the gradient is a half everywhere, and half of it is negative."""
    model = Model(input_shape=(count,), layers=[Dense(units=2, use_bias=False), Softmax()])
    optimizer = SGD(1.0, clip_global_norm=1.0)
    zeros = {"0.kernel": np.zeros((count, 2))}
    program = backend().compile_training(model.plan(), fresh_state(zeros, optimizer), optimizer)
    program.step(np.ones((1, count)), np.array([0]))
    step = program.state().parameters["0.kernel"]
    np.testing.assert_allclose(np.linalg.norm(step), min(1.0, np.sqrt(count / 2)), rtol=1e-12)
