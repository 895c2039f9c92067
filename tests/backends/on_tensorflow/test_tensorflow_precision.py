"""The two precisions that round more than float32: TF32 products, which only a GPU has, and layers in float16."""

import threading
import time

import numpy as np
import pytest

import cnnkit
from cnnkit import (
    SGD,
    Adam,
    AvgPool2D,
    BackendError,
    BackendOptionError,
    Conv2D,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Model,
    Rescale,
    Softmax,
    TrainingError,
    initial_parameters,
    initial_state,
)

NETWORK = Model(
    input_shape=(10, 8, 2),
    layers=[
        Rescale(scale=1 / 255),
        Conv2D(filters=4, kernel_size=3, padding="same", dilation=2, activation="relu"),
        MaxPool2D(),
        Conv2D(filters=3, kernel_size=(3, 2), padding=((1, 0), (0, 1)), activation="tanh"),
        AvgPool2D(padding="same"),
        Flatten(),
        Dropout(rate=0.25),
        Dense(units=5),
        Softmax(),
    ],
)
HALF = 2**-11
"""The unit roundoff of float16."""


def drawn(count=12):
    rng = np.random.default_rng(2)
    return rng.integers(0, 256, (count, 10, 8, 2), dtype=np.uint8), rng.integers(0, 5, count)


def scores(kernel, precision="mixed_float16", optimizer=SGD(learning_rate=0.5)):  # noqa: B008 - it is frozen
    """A program that trains `images @ kernel`, and nothing else, under a softmax."""
    from cnnkit_tensorflow.backend import TensorFlowBackend

    kernel = np.asarray(kernel, np.float32)
    model = Model(input_shape=(len(kernel),), layers=[Dense(units=kernel.shape[1], use_bias=False), Softmax()])
    state = initial_state(model, optimizer)
    state.parameters["0.kernel"][:] = kernel
    return TensorFlowBackend(precision).compile_training(model.plan(), state, optimizer)


# ---------------------------------------------------------------------------------------------------- who may have TF32


@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_cpu_has_no_tf32_and_says_so(device):
    with pytest.raises(BackendOptionError, match=r"precision is 'tf32' on cpu, but a CPU has no TF32\. Use a GPU"):
        cnnkit.get_backend("tensorflow", device=device, precision="tf32")


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"device_name": "A", "compute_capability": (8, 0)}, ""),
        ({"device_name": "H", "compute_capability": (9, 0)}, ""),
        ({"device_name": "T", "compute_capability": (7, 5)}, "came with compute capability 8.0, and that of T is 7.5"),
        ({}, "came with compute capability 8.0, and that of the GPU is unknown"),
    ],
    ids=str,
)
def test_a_gpu_has_tf32_from_compute_capability_8_on(tf, monkeypatch, about, reason):
    from cnnkit_tensorflow import settings

    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["first", kind])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", {"GPU": about}.__getitem__)
    assert settings.why_no_tf32("/GPU:1").endswith(reason)
    assert bool(settings.why_no_tf32("/GPU:1")) is bool(reason)


def test_an_unknown_precision_lists_those_of_tensorflow_too():
    with pytest.raises(cnnkit.OptionError, match="expected 'float32', 'float64', 'tf32' or 'mixed_float16'"):
        cnnkit.get_backend("tensorflow", precision="float16")


# ------------------------------------------------------------------------------- TF32 is allowed while its program runs


@pytest.fixture
def allowed(tf):
    """A function that says whether TensorFlow may use TF32 now. What was allowed before comes back after the test."""
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    before = enabled()
    yield enabled
    tf.config.experimental.enable_tensor_float_32_execution(before)


def watched(program, allowed, wait=0.0):
    """A list that grows by what is allowed whenever `program` is at its work."""
    found = []
    for graphs, name in ((program.predicting, "predict"), (program.graphs, "step"), (program.graphs, "epoch")):
        function = getattr(graphs, name)

        def seen(*tensors, function=function):
            found.append(allowed())
            time.sleep(wait)
            found.append(allowed())
            return function(*tensors)

        object.__setattr__(graphs, name, seen)
    return found


@pytest.fixture
def own_graphs():
    """Graphs are kept by plan, and those that a test has put under watch are not for others."""
    from cnnkit_tensorflow import graphs

    graphs.graphs_of.cache_clear()
    yield
    graphs.graphs_of.cache_clear()


@pytest.mark.usefixtures("own_graphs")
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("precision", "inside"), [("tf32", True), ("float32", False), ("mixed_float16", False)])
def test_tf32_is_allowed_inside_of_its_own_programs_and_then_as_before(tf, allowed, precision, inside, before):
    tf.config.experimental.enable_tensor_float_32_execution(before)
    program = scores(np.ones((2, 2)), precision)
    images, labels = np.ones((3, 2), np.float32), np.array([0, 1, 0])
    found = watched(program, allowed)
    program.predict(images)
    program.step(images, labels)
    program.epoch(images, labels, np.arange(3), 2)
    assert set(found) == {inside}
    assert len(found) == 6
    assert allowed() is before
    assert program.predict(images).dtype == program.state().parameters["0.kernel"].dtype == np.float32


@pytest.mark.usefixtures("own_graphs")
def test_programs_with_and_without_tf32_in_two_threads_take_turns(tf, allowed):
    tf.config.experimental.enable_tensor_float_32_execution(True)
    found = {precision: watched(scores(np.ones((2, 2)), precision), allowed, 1e-3) for precision in ("tf32", "float32")}
    programs = {precision: scores(np.ones((2, 2)), precision) for precision in found}
    images, labels = np.ones((3, 2), np.float32), np.array([0, 1, 0])

    def work(program):
        for _ in range(30):
            program.step(images, labels)
            program.predict(images)

    threads = [threading.Thread(target=work, args=(program,), daemon=True) for program in programs.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert {precision: set(seen) for precision, seen in found.items()} == {"tf32": {True}, "float32": {False}}
    assert [len(seen) for seen in found.values()] == [120, 120]
    assert allowed()


def test_whoever_waits_for_a_turn_comes_before_those_who_arrive_later(allowed):  # noqa: ARG001 - gives back what was
    from cnnkit_tensorflow import settings

    order, inside, leave = [], threading.Event(), threading.Event()

    def come(name, tf32):
        with settings.undisturbed("/CPU:0", tf32=tf32):
            order.append(name)
            if name == "first":
                inside.set()
                assert leave.wait(30)

    threads = []
    for waiting, (name, tf32) in enumerate([("first", False), ("second", True), ("third", False)]):
        threads.append(threading.Thread(target=come, args=(name, tf32), daemon=True))
        threads[-1].start()
        assert inside.wait(30)
        deadline = time.monotonic() + 10
        while len(settings._rounding.queue) < waiting and time.monotonic() < deadline:
            time.sleep(1e-3)
    assert order == ["first"]
    leave.set()
    for thread in threads:
        thread.join(30)
    assert order == ["first", "second", "third"]


def test_one_thread_cannot_be_inside_with_and_without_tf32_at_once(allowed):
    from cnnkit_tensorflow.settings import undisturbed

    before = allowed()
    with undisturbed("/CPU:0"):
        other = undisturbed("/CPU:0", tf32=True)
        with pytest.raises(BackendError, match="with TF32 and one without are inside of each other"), other:
            pass
        with undisturbed("/CPU:0"):
            assert not allowed()
    with undisturbed("/CPU:0", tf32=True):
        assert allowed()
    assert allowed() is before


# ------------------------------------------------------------------------------------------------------- mixed_float16


def test_mixed_precision_gives_float32_that_is_right_to_the_digits_of_float16(make_backend):
    optimizer, (images, labels) = SGD(learning_rate=0.1), drawn()
    found = {}
    for precision in ("float32", "mixed_float16"):
        state = initial_state(NETWORK, optimizer, seed=3)
        program = make_backend(precision).compile_training(NETWORK.plan(), state, optimizer)
        loss, gradients = program.gradients(images, labels)
        found[precision] = {"output": program.predict(images), "loss": np.float32(loss), **gradients}
    for name, right in found["float32"].items():
        rounded = found["mixed_float16"][name]
        assert rounded.dtype == right.dtype == np.float32
        # Rounded numbers may be in another order, and then another pixel is the maximum of its window.
        tolerance = 0.05 if name.startswith("1.") else 20 * HALF
        assert 0 < np.linalg.norm(rounded - right) < tolerance * np.linalg.norm(right), name


@pytest.mark.parametrize("images", ["uint8", "float32"])
@pytest.mark.usefixtures("own_graphs")
def test_layers_compute_in_float16_and_what_is_around_them_in_float32(make_backend, monkeypatch, images):
    from cnnkit_tensorflow import mixed

    seen = {}
    run_layer = mixed.run_layer

    def noted(op, x, run, **how):
        y, back = run_layer(op, x, run, **how)
        kinds = seen.setdefault(type(op).__name__.removesuffix("Op"), set())
        kinds |= {x.dtype.name, y.dtype.name}

        def noted_back(dy):
            dx = back(dy)
            kinds.update({dy.dtype.name, dx.dtype.name})
            return dx

        return y, noted_back

    monkeypatch.setattr(mixed, "run_layer", noted)
    optimizer = Adam()
    program = make_backend("mixed_float16").compile_training(
        NETWORK.plan(), initial_state(NETWORK, optimizer), optimizer
    )
    pixels, labels = drawn()
    program.step(pixels.astype(images), labels)
    program.predict(pixels.astype(images))
    single, half = {"float32"}, {"float16"}
    assert seen == {"Rescale": single, "Softmax": single} | dict.fromkeys(
        ("Conv2D", "MaxPool2D", "AvgPool2D", "Flatten", "Dropout", "Dense", "Activation"), half
    )
    state = program.state()
    slots = [array for slot in state.slots.values() for array in slot.values()]
    assert {array.dtype.name for array in (*state.parameters.values(), *slots)} == {"float32"}


def test_a_step_that_float16_would_lose_is_kept(make_backend):
    del make_backend
    images, labels = np.ones((1, 1), np.float32), np.array([0])
    program = scores([[1.0, 1.0]], optimizer=SGD(learning_rate=1e-5))  # a step of 5e-6, where float16 has 1 and 1.001
    for _ in range(100):
        program.step(images, labels)
    assert program.state().parameters["0.kernel"] == pytest.approx(np.array([[1.0005, 0.9995]]), abs=1e-6)


def test_a_gradient_that_float16_would_lose_is_kept():
    program = scores([[0.0, 0.0], [9.0, 0.0]])
    _, gradients = program.gradients(np.array([[1e-4, 1.0]], np.float32), np.array([0]))
    wrong = 1 / (1 + np.exp(9.0))  # the probability of the other class: 1.2e-4
    assert np.float16(1e-4 * wrong) == 0
    assert gradients["0.kernel"] == pytest.approx(wrong * np.array([[-1e-4, 1e-4], [-1, 1]]), rel=4 * HALF)


def test_clipping_and_the_update_see_gradients_without_the_scale():
    images, labels = np.array([[3.0]], np.float32), np.array([0])
    for limit, step in ((None, 0.75), (100.0, 0.75), (np.sqrt(0.5), 0.25)):  # the gradient is (-1.5, 1.5)
        program = scores([[0.0, 0.0]], optimizer=SGD(learning_rate=0.5, clip_global_norm=limit))
        program.step(images, labels)
        assert program.state().parameters["0.kernel"] == pytest.approx(np.array([[step, -step]]), rel=4 * HALF)


def test_a_gradient_too_large_for_float16_is_infinite_in_the_parameters_and_ends_a_fit():
    images, labels = np.array([[6e4]], np.float32), np.array([0])
    program = scores([[0.0, 0.0]])
    _, gradients = program.gradients(images, labels)
    assert np.array_equal(gradients["0.kernel"], [[-np.inf, np.inf]])
    program.step(images, labels)
    assert np.array_equal(program.state().parameters["0.kernel"], [[np.inf, -np.inf]])
    assert program.state().step == 1
    model = Model(input_shape=(1,), layers=[Dense(units=2, use_bias=False), Softmax()])
    with pytest.raises(TrainingError, match=r"not finite|NaN|infinite"):
        cnnkit.fit(
            model,
            Dataset(images.repeat(4, 0), np.array([0, 1, 0, 1])),
            backend="tensorflow",
            precision="mixed_float16",
            batch_size=1,
            epochs=2,
        )


def test_pixels_beyond_float16_are_rescaled_before_they_are_rounded(tf, make_backend):
    model = Model(input_shape=(1,), layers=[Rescale(scale=1e-6), Dense(units=1, use_bias=False)])
    program = make_backend("mixed_float16").compile(model.plan(), {"1.kernel": np.ones((1, 1), np.float32)})
    images = np.array([[1e6], [np.nan]], np.float32)
    assert program.predict(images) == pytest.approx(np.array([[1.0], [np.nan]]), nan_ok=True)
    assert program.graphs.predict(program.vector, tf.constant(images)).dtype == tf.float32


def test_xla_compiles_mixed_precision_to_the_same_digits(make_backend):
    images, labels = drawn()
    outputs = []
    for xla in (False, True):
        optimizer = SGD(learning_rate=0.1, momentum=0.9)
        backend = make_backend("mixed_float16", xla=xla)
        program = backend.compile_training(NETWORK.plan(), initial_state(NETWORK, optimizer), optimizer)
        program.epoch(images, labels, np.arange(12), 5)
        outputs.append(program.predict(images))
    assert np.abs(outputs[0] - outputs[1]).max() < 20 * HALF


def test_digits_are_learned_as_well_as_in_float32():
    train, test = cnnkit.load_dataset("digits")
    preset = cnnkit.load_preset("seed-tf").for_data(train.image_shape, train.classes)
    accuracies = {}
    for precision in ("float32", "mixed_float16"):
        run = cnnkit.fit(
            preset.model, train, backend="tensorflow", precision=precision, batch_size=32, epochs=6, train_metrics=False
        )
        assert {array.dtype.name for array in run.state.parameters.values()} == {"float32"}
        accuracies[precision] = cnnkit.evaluate(
            run.model, run.state.parameters, test, "tensorflow", precision=precision
        ).accuracy
    assert accuracies["float32"] > 0.9
    assert abs(accuracies["mixed_float16"] - accuracies["float32"]) < 0.02


def test_a_state_of_mixed_precision_goes_on_in_numpy(make_backend):
    optimizer, (images, labels) = Adam(learning_rate=0.01), drawn()
    state = initial_state(NETWORK, optimizer)
    for backend in (make_backend("mixed_float16"), cnnkit.get_backend("numpy"), make_backend("mixed_float16")):
        program = backend.compile_training(NETWORK.plan(), state, optimizer)
        program.step(images, labels)
        state = program.state()
    assert state.step == 3
    assert all(np.isfinite(array).all() for array in state.parameters.values())
    assert not np.array_equal(state.parameters["1.kernel"], initial_parameters(NETWORK)["1.kernel"])
