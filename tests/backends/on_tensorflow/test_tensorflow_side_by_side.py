"""Several programs in one process: none sees another, and a graph is traced once, whatever comes through it."""

import threading
from itertools import cycle

import numpy as np
import pytest

import cnnkit
from cnnkit import (
    SGD,
    Adam,
    Conv2D,
    Dataset,
    Dense,
    Dropout,
    EarlyStopping,
    Flatten,
    MaxPool2D,
    Model,
    Rescale,
    Softmax,
    initial_state,
)
from cnnkit.state import same_state


def network(filters):
    layers = [
        Rescale(scale=1 / 255),
        Conv2D(filters=filters, kernel_size=3, activation="relu"),
        MaxPool2D(),
        Flatten(),
        Dropout(rate=0.5),
        Dense(units=3),
        Softmax(),
    ]
    return Model(input_shape=(8, 7, 1), layers=layers)


def drawn(count, seed=0, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 8, 7, 1)).astype(dtype), rng.integers(0, 3, count)


class Trainee:
    """One program at its work, piece by piece; what it computed is its `results`."""

    def __init__(self, filters, precision, optimizer, seed):
        from cnnkit_tensorflow.backend import TensorFlowBackend

        self.images, self.labels = drawn(14, seed)
        model = network(filters)
        array_precision = "float64" if precision == "float64" else "float32"
        state = initial_state(model, optimizer, seed, array_precision)
        self.program = TensorFlowBackend(precision).compile_training(model.plan(), state, optimizer)
        self.results = []

    def pieces(self):
        for order in np.random.default_rng(1).permutation(14).reshape(2, 7):
            yield self.results.append(self.program.epoch(self.images, self.labels, order, 3))
            yield self.results.append(float(self.program.step(self.images[:5], self.labels[:5])))
            yield self.results.append(self.program.predict(self.images))
            yield self.results.append(self.program.gradients(self.images, self.labels)[1])

    def work(self):
        for _ in self.pieces():
            pass
        return self

    def assert_as(self, other):
        assert same_state(self.program.state(), other.program.state())
        for mine, others in zip(self.results, other.results, strict=True):
            if isinstance(mine, dict):
                assert all(np.array_equal(mine[name], others[name]) for name in mine)
            else:
                assert np.array_equal(mine, others) if isinstance(mine, np.ndarray) else mine == others


TRAINEES = [
    (2, "float32", Adam(), 0),
    (2, "float32", Adam(), 1),  # the same graphs, other numbers
    (2, "float32", SGD(learning_rate=0.1), 0),
    (2, "float64", Adam(), 0),
    (2, "mixed_float16", Adam(), 0),
    (2, "tf32", Adam(), 0),  # on a CPU, where only the switch differs
    (3, "float32", Adam(), 0),
]


@pytest.fixture(scope="module")
def alone():
    """Each trainee after working by itself."""
    return [Trainee(*how).work() for how in TRAINEES]


def test_these_programs_differ(alone):
    outputs = [trainee.results[2] for trainee in alone if trainee.results[2].dtype == np.float32]
    without_tf32 = [outputs[index] for index in (0, 1, 2, 3, 5)]
    assert len({output.tobytes() for output in without_tf32}) == 5


def test_programs_that_take_turns_compute_what_each_computes_alone(alone):
    trainees = [Trainee(*how) for how in TRAINEES]
    at_work = [trainee.pieces() for trainee in trainees]
    for pieces in cycle(at_work):
        if next(pieces, "done") == "done" and pieces is at_work[-1]:
            break
    for trainee, by_itself in zip(trainees, alone, strict=True):
        trainee.assert_as(by_itself)


@pytest.mark.parametrize("traced", [True, False], ids=["traced", "not-yet-traced"])
def test_programs_in_threads_of_their_own_compute_what_each_computes_alone(alone, traced):
    from cnnkit_tensorflow import graphs

    if not traced:
        graphs.graphs_of.cache_clear()
    trainees = [Trainee(*how) for how in TRAINEES]
    begin = threading.Barrier(len(trainees))
    done = []

    def work(trainee):
        begin.wait(60)
        done.append(trainee.work())

    threads = [threading.Thread(target=work, args=(trainee,), daemon=True) for trainee in trainees]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(done) == len(trainees)
    for trainee, by_itself in zip(trainees, alone, strict=True):
        trainee.assert_as(by_itself)


def test_one_program_predicts_in_several_threads_at_once_what_it_predicts_alone(alone):
    program = alone[0].program
    batches = [drawn(count, seed=count)[0] for count in (1, 3, 8, 20)]
    right = [program.predict(batch) for batch in batches]
    begin, found = threading.Barrier(4), {}

    def work(index):
        begin.wait(60)
        found[index] = [program.predict(batches[(index + later) % 4]) for later in range(12)]

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for index, outputs in found.items():
        assert all(np.array_equal(output, right[(index + later) % 4]) for later, output in enumerate(outputs))
    assert len(found) == 4


def test_steps_of_several_threads_on_one_program_are_all_taken(make_backend):
    optimizer = SGD(learning_rate=0.0)
    program = make_backend().compile_training(network(2).plan(), initial_state(network(2), optimizer), optimizer)
    images, labels = drawn(4)
    threads = [
        threading.Thread(target=lambda: [program.step(images, labels) for _ in range(10)], daemon=True)
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert program.state().step == 40


def test_a_backend_with_another_option_leaves_a_program_as_it_is(make_backend):
    """XLA's graphs are others than those without, also for the same plan in the same place."""
    images, _ = drawn(5)
    plan, parameters = network(2).plan(), cnnkit.initial_parameters(network(2))
    program = make_backend().compile(plan, parameters)
    before = program.predict(images)
    compiled = make_backend(xla=True).compile(plan, parameters)
    compiled.predict(images)
    assert np.array_equal(program.predict(images), before)
    [graph] = program.graphs.traced.values()
    [other] = compiled.graphs.traced.values()
    assert (graph.function_def.attr["_XlaMustCompile"].b, other.function_def.attr["_XlaMustCompile"].b) == (False, True)


# ------------------------------------------------------------------------------------------------- traced once a shape


@pytest.fixture
def tracings(monkeypatch):
    """A list that grows by a name whenever Python goes through the layers, as it does only to trace a graph."""
    from cnnkit_tensorflow import graphs, network

    graphs.graphs_of.cache_clear()
    names = []

    def note(name):
        function = getattr(network, name)
        monkeypatch.setattr(network, name, lambda *given: (names.append(name), function(*given))[1])

    note("predict")
    note("learn")
    return names


@pytest.mark.parametrize("precision", ["float32", "float64", "mixed_float16"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32], ids=lambda dtype: dtype.__name__)
def test_a_fit_traces_one_step_and_one_prediction_and_the_next_fit_nothing(tracings, precision, dtype):
    train, held_out = Dataset(*drawn(23, 1, dtype)), Dataset(*drawn(9, 2, dtype))
    for batch_size, count in ((5, 23), (23, 23), (64, 23), (1, 7)):  # last batches of 3, 23, 23 and 1
        run = cnnkit.fit(
            network(4),
            train.limit(count),
            held_out,
            backend="tensorflow",
            precision=precision,
            batch_size=batch_size,
            epochs=3,
            early_stopping=EarlyStopping(patience=3),
        )
        cnnkit.evaluate(run.model, run.state.parameters, held_out, "tensorflow", precision=precision)
        assert len(run.history) == 3
        assert sorted(tracings) == ["learn", "predict"]  # the prediction is of the scores


def test_bytes_and_numbers_of_one_model_are_traced_once_each(tracings):
    for dtype in (np.uint8, np.float32, np.uint8, np.float32, np.float64):  # float64 is float32 for a float32 program
        run = cnnkit.fit(network(4), Dataset(*drawn(11, 1, dtype)), backend="tensorflow", batch_size=4, epochs=2)
        cnnkit.predict(run.model, run.state.parameters, drawn(3, 2, dtype)[0], "tensorflow")
    assert sorted(tracings) == ["learn"] * 2 + ["predict"] * 4  # of scores to judge, and of probabilities


def test_xla_is_given_one_graph_for_all_sizes_of_a_batch(tracings, make_backend):
    optimizer, (images, labels) = Adam(), drawn(11)
    backend = make_backend(xla=True)
    program = backend.compile_training(network(4).plan(), initial_state(network(4), optimizer), optimizer)
    for batch_size in (4, 3, 11):
        program.epoch(images, labels, np.arange(11), batch_size)
        program.predict(images[:batch_size])
    assert sorted(tracings) == ["learn", "predict"]
    assert all(
        tensor.shape[0] is None
        for graph in (*program.graphs.traced.values(), *program.predicting.traced.values())
        for tensor in graph.inputs
        if tensor.shape.rank == 4
    )
