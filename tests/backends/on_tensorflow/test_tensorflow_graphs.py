"""How often graphs are traced, and what stays on the device between two epochs."""

import sys
import threading

import numpy as np
import pytest

from cnnkit import SGD, Adam, Dense, Dropout, Flatten, Model, Softmax, initial_state
from cnnkit.state import same_state

# Units that no other test has: graphs are kept by plan.
MODEL = Model(input_shape=(3, 4, 1), layers=[Flatten(), Dense(units=7), Dropout(rate=0.5), Dense(units=3), Softmax()])


def drawn(count, dtype=np.uint8):
    images = np.random.default_rng(count).integers(0, 256, (count, 3, 4, 1)).astype(dtype)
    return images, np.arange(count) % 3


def count_calls(monkeypatch, owner, name, calls=None):
    """A list that grows by `name` whenever the function of that name is called."""
    function, calls = getattr(owner, name), [] if calls is None else calls

    def counted(*given):
        calls.append(name)
        return function(*given)

    monkeypatch.setattr(owner, name, counted)
    return calls


@pytest.fixture
def tracings(monkeypatch):
    """A list that grows by one name whenever TensorFlow traces a way through the layers."""
    from cnnkit_tensorflow import graphs, network

    graphs.graphs_of.cache_clear()
    return count_calls(monkeypatch, network, "learn", count_calls(monkeypatch, network, "predict"))


def training(backend, optimizer, model=MODEL):
    return backend.compile_training(
        model.plan(), initial_state(model, optimizer, precision=backend.precision), optimizer
    )


def test_no_size_of_a_batch_is_traced_again(tracings, make_backend):
    program = training(make_backend(), Adam())
    images, labels = drawn(11)
    for count in (4, 11, 1, 3):
        program.predict(images[:count])
        program.gradients(images[:count], labels[:count])
        program.step(images[:count], labels[:count])
        program.epoch(images, labels, np.arange(11), count)  # its last batch is smaller
    assert sorted(tracings) == ["learn"] * 3 + ["predict"]


def test_bytes_and_floats_are_traced_apart(tracings, make_backend):
    program = training(make_backend(), Adam())
    for dtype in (np.uint8, np.float32, np.uint8, np.float32, ">f4"):
        program.predict(drawn(5, dtype)[0])
    assert tracings == ["predict"] * 2


def test_a_plan_that_is_compiled_again_is_not_traced_again(tracings, make_backend):
    images, labels = drawn(5)
    for _ in range(3):
        program = training(make_backend(), SGD(learning_rate=0.1), Model.from_dict(MODEL.to_dict()))
        program.step(images, labels)
        make_backend().compile(MODEL.plan(), program.state().parameters).predict(images)
        program.predict(images)
    assert sorted(tracings) == ["learn", "predict"]


def test_another_optimizer_or_precision_is_traced_anew(tracings, make_backend):
    for optimizer in (SGD(learning_rate=0.1), SGD(learning_rate=0.2), Adam()):
        for precision in ("float32", "float64"):
            training(make_backend(precision), optimizer).step(*drawn(5))
    assert tracings == ["learn"] * 6


def test_the_data_of_an_epoch_stay_on_the_device_until_others_come(make_backend):
    program = training(make_backend(), SGD(learning_rate=0.1))
    images, labels = drawn(9)
    program.epoch(images, labels, np.arange(4), 2)
    first = program.data.tensors
    program.epoch(images, labels, np.arange(4, 9), 2)
    assert program.data.tensors is first
    program.epoch(images, labels.copy(), np.arange(4), 2)
    assert program.data.tensors is not first


def test_data_do_not_outlive_the_callers_by_a_reference(make_backend):
    program = training(make_backend(), SGD(learning_rate=0.1))
    images, labels = drawn(9)
    before = sys.getrefcount(images), sys.getrefcount(labels)
    program.epoch(images, labels, np.arange(9), 2)
    assert (sys.getrefcount(images), sys.getrefcount(labels)) == before


@pytest.mark.parametrize("batch_size", [2, 3, 20])
def test_an_epoch_whose_masks_come_in_parts_is_the_same_epoch(make_backend, monkeypatch, batch_size):
    from cnnkit_tensorflow import masks as module

    images, labels = drawn(11)
    order = np.random.default_rng(0).permutation(11)
    states, calls = [], {}
    for limit in (1 << 20, 5 * 7, 1):  # bytes; a mask has 7 for each image
        monkeypatch.setattr(module, "PART_BYTES", limit)
        program = training(make_backend(), Adam())
        calls[limit] = count_calls(monkeypatch, program.graphs, "epoch")
        assert program.epoch(images, labels, order, batch_size).count == 11
        states.append(program.state())
        monkeypatch.undo()
    assert all(same_state(state, states[0]) for state in states)
    assert states[0].step == len(calls[1]) == -(-11 // batch_size)
    assert len(calls[1 << 20]) == 1


def test_masks_that_cannot_be_drawn_end_an_epoch_after_whole_steps_and_it_goes_on_from_there(make_backend, monkeypatch):
    from cnnkit_tensorflow import masks as module

    images, labels = drawn(11)
    whole, program = training(make_backend(), Adam()), training(make_backend(), Adam())
    whole.epoch(images, labels, np.arange(11), 2)
    draw, threads = module.dropout_kept, threading.active_count()

    def fails_later(seed, step, *more):
        if step == 3:
            raise MemoryError("no room for masks")
        return draw(seed, step, *more)

    monkeypatch.setattr(module, "PART_BYTES", 1)
    monkeypatch.setattr(module, "dropout_kept", fails_later)
    with pytest.raises(MemoryError, match="no room for masks"):
        program.epoch(images, labels, np.arange(11), 2)
    monkeypatch.undo()
    assert (program.state().step, threading.active_count()) == (3, threads)
    program.epoch(images, labels, np.arange(6, 11), 2)
    assert same_state(program.state(), whole.state())


def test_a_thread_trains_on_with_dropout_when_the_main_thread_has_ended(in_a_process_of_its_own):
    lines = in_a_process_of_its_own(
        """
        import threading
        import numpy as np
        from cnnkit import SGD, Dense, Dropout, Flatten, Model, Softmax, initial_state
        from cnnkit_tensorflow import masks, plugin
        masks.PART_BYTES = 1
        layers = [Flatten(), Dropout(rate=0.5), Dense(units=3), Softmax()]
        model = Model(input_shape=(3, 4, 1), layers=layers)
        backend = plugin.cnnkit_create_backend(None, "float32", {})
        program = backend.compile_training(model.plan(), initial_state(model, SGD(0.1)), SGD(0.1))

        def train():
            threading.main_thread().join()
            print(program.epoch(np.ones((9, 3, 4, 1), np.float32), np.zeros(9, int), np.arange(9), 2).count)

        threading.Thread(target=train).start()
        """
    )
    assert lines == ["9"]


def test_the_mask_is_the_one_that_the_core_draws(make_backend):
    from cnnkit import dropout_mask

    program = training(make_backend("float64"), SGD(learning_rate=0.1))
    [kept] = program.masks.draw(5, 7, 3)
    rows = [dropout_mask(program.seed, 5 + step, 2, (size, 7), 0.5) for step, size in enumerate((3, 3, 1))]
    assert np.array_equal(kept * 2.0, np.concatenate(rows))
