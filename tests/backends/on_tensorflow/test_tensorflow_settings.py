"""What TensorFlow keeps for a whole process: each of these tests would spoil the process of the others."""

import os

import numpy as np
import pytest

from cnnkit import SGD, BackendError, Conv2D, Dense, EpochTotals, Flatten, Model, Softmax, initial_state

TRAIN = """
    import logging, os, random, warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf
    import numpy as np
    from cnnkit import SGD, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Model, Softmax, initial_state
    from cnnkit_tensorflow import plugin

    layers = [Conv2D(filters=2, kernel_size=3), MaxPool2D(), Flatten(), Dropout(rate=0.5), Dense(units=3), Softmax()]
    model, optimizer = Model(input_shape=(6, 6, 1), layers=layers), SGD(learning_rate=0.1)
    images, labels = np.ones((5, 6, 6, 1), np.float32), np.arange(5) % 3

    def train(**options):
        return train_in("float32", **options)

    def train_in(precision, **options):
        backend = plugin.cnnkit_create_backend(None, precision, options)
        outside = "float64" if precision == "float64" else "float32"
        state = initial_state(model, optimizer, precision=outside)
        program = backend.compile_training(model.plan(), state, optimizer)
        program.step(images, labels)
        program.gradients(images, labels)
        program.epoch(images, labels, np.arange(5), 2)
        program.predict(images)
        return program.state()
"""


SETTINGS = """
    import faulthandler, gc, locale, random, signal, sys, threading, warnings
    from pathlib import Path

    def deterministic():
        from tensorflow.python.framework.config import is_op_determinism_enabled
        return is_op_determinism_enabled()

    def handlers():
        return {number: signal.getsignal(number) for number in signal.valid_signals()}

    def levels():
        names = ["", "absl", "tensorflow", "cnnkit", "jax", "keras"]
        return [(name, logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names]

    def settings():
        from absl import logging as absl_logging
        config = tf.config
        return {
            "environment": dict(os.environ),
            "log levels": (levels(), logging.root.manager.disable, absl_logging.get_verbosity()),
            "seeds": (str(np.random.get_state()), random.getstate(), tf.random.get_global_generator().state.numpy().tolist()),
            "threads": (
                config.threading.get_intra_op_parallelism_threads(),
                config.threading.get_inter_op_parallelism_threads(),
            ),
            "threads of python": sorted(thread.name for thread in threading.enumerate()),
            "rounding": config.experimental.tensor_float_32_execution_enabled(),
            "determinism": deterministic(),
            "placement": (config.get_soft_device_placement(), tf.debugging.get_log_device_placement()),
            "graph options": config.optimizer.get_experimental_options(),
            "compilation": config.optimizer.get_jit(),
            "eager": (tf.executing_eagerly(), config.functions_run_eagerly()),
            "synchronous": config.experimental.get_synchronous_execution(),
            "devices": (config.get_visible_devices(), config.list_logical_devices()),
            "policy": config.experimental.get_device_policy(),
            "warnings": (list(warnings.filters), warnings.showwarning),
            "numbers": (np.geterr(), np.geterrcall(), str(np.get_printoptions())),
            "keras": sorted(name for name in sys.modules if name.partition(".")[0] in ("keras", "tf_keras")),
            "signals": handlers(),
            "folder": (os.getcwd(), sorted(path.name for path in Path().iterdir())),
            "interpreter": (sys.path[:], sys.excepthook, sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold()),
            "output": (sys.stdout, sys.stderr, faulthandler.is_enabled(), locale.setlocale(locale.LC_ALL)),
        }
"""


@pytest.mark.parametrize("how", ["'float32'", "'float64'", "'mixed_float16'", "'float32', xla=True"])
def test_making_and_running_a_program_changes_no_setting_of_the_process(in_a_process_of_its_own, how):
    lines = in_a_process_of_its_own(
        TRAIN
        + SETTINGS
        + f"""
    tf.random.set_seed(3)
    right = [tf.random.uniform([]).numpy() for _ in range(2)]
    tf.random.set_seed(3)
    before, drawn = settings(), [tf.random.uniform([]).numpy()]
    train_in({how})
    after = settings()
    drawn.append(tf.random.uniform([]).numpy())
    print([name for name in before if before[name] != after[name]], drawn == right)
    """
    )
    assert lines == ["[] True"]


def test_a_whole_run_by_name_changes_no_more_than_an_import_of_tensorflow_does(in_a_process_of_its_own):
    """TensorFlow's own import sets environment variables and brings filters of warnings; and it draws random numbers."""
    settings = (
        """
    import json, logging, os, random, sys, threading, warnings
    import numpy as np
    import cnnkit
    images, labels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 8, 8, 1), np.arange(64) % 10
    train = test = cnnkit.Dataset(images, labels)  # made here: whoever reads digits imports what TensorFlow imports too
    """
        + SETTINGS
        + """
    def settings_of_python():
        return {
            "seeds": (str(np.random.get_state()), random.getstate()),
            "numbers": (np.geterr(), np.geterrcall()),
            "signals": handlers(),
            "log levels": (logging.getLogger().level, logging.getLogger().handlers[:], logging.root.manager.disable),
            "folder": (os.getcwd(), sorted(path.name for path in Path().iterdir())),
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "interpreter": (sys.path[:], sys.excepthook, sys.getrecursionlimit(), gc.get_threshold(), sys.stdout),
        }

    random.seed(5)
    np.random.seed(5)
    before = settings_of_python()
    """
    )
    imported = in_a_process_of_its_own(
        settings
        + """
    import tensorflow as tf
    print(json.dumps([dict(os.environ), list(map(str, warnings.filters)), levels()], default=str))
    """
    )
    lines = in_a_process_of_its_own(
        settings
        + """
    backend = cnnkit.get_backend("tensorflow")
    model = cnnkit.load_preset("mlp-1h").for_data(train.image_shape, train.classes).model
    run = cnnkit.fit(model, train, backend=backend)
    cnnkit.evaluate(model, run.state.parameters, test.limit(9), backend)
    cnnkit.predict(model, run.state.parameters, test.images[:9], backend)
    after = settings_of_python()
    print(json.dumps([dict(os.environ), list(map(str, warnings.filters)), levels()], default=str))
    print([name for name in before if before[name] != after[name]], random.random() == random.Random(5).random())
    """
    )
    assert lines == [*imported, "[] True"]


def test_a_program_can_be_made_where_another_has_already_chosen(in_a_process_of_its_own):
    """What was set by others before stays as they set it: also what is not TensorFlow's own choice."""
    lines = in_a_process_of_its_own(
        TRAIN
        + SETTINGS
        + """
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.set_soft_device_placement(False)
    tf.config.optimizer.set_jit(False)
    tf.config.optimizer.set_experimental_options({"constant_folding": False})
    tf.get_logger().setLevel("ERROR")
    np.seterr(all="raise")
    before = settings()
    train()
    after = settings()
    print([name for name in before if before[name] != after[name]], after["threads"], after["rounding"])
    """
    )
    assert lines == ["[] (2, 1) False"]


def test_threads_are_set_before_tensorflow_runs_and_refused_after(in_a_process_of_its_own):
    lines = in_a_process_of_its_own(
        TRAIN
        + """
    from cnnkit import BackendOptionError
    train(threads=1)
    train(threads=1)
    train()
    print(tf.config.threading.get_intra_op_parallelism_threads(), tf.config.threading.get_inter_op_parallelism_threads())
    try:
        train(threads=2)
    except BackendOptionError as error:
        print(error)
    """
    )
    assert lines[0] == "1 1"
    assert "threads is 2, but TensorFlow runs already in this process, on 1," in lines[1]
    assert len(lines) == 2


def test_determinism_is_switched_on_where_it_is_asked_for(in_a_process_of_its_own):
    lines = in_a_process_of_its_own(
        TRAIN
        + """
    from cnnkit.state import same_state
    print(same_state(train(deterministic=True), train(deterministic=True)))
    try:
        tf.random.normal([2])  # TensorFlow refuses what has no seed where all must be deterministic
    except RuntimeError as error:
        print("determinism" in str(error))
    """
    )
    assert lines == ["True", "True"]


# ------------------------------------------------------------------------------------ settings that are given back


@pytest.fixture
def program(tf, make_backend):  # noqa: ARG001 - TensorFlow first, or the reason why not
    model = Model(input_shape=(4, 4, 1), layers=[Conv2D(filters=1, kernel_size=1, use_bias=False), Flatten()])
    return make_backend().compile(model.plan(), {"0.kernel": np.full((1, 1, 1, 1), 2, np.float32)})


IMAGES = np.arange(32, dtype=np.float32).reshape(2, 4, 4, 1)


@pytest.mark.parametrize("allowed", [True, False])
def test_rounding_of_float32_products_is_off_while_a_program_runs_and_then_as_before(tf, program, monkeypatch, allowed):
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    inside = []
    predict = program.graphs.predict
    monkeypatch.setattr(program.graphs, "predict", lambda *tensors: (inside.append(enabled()), predict(*tensors))[1])
    before = enabled()
    try:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
        program.predict(IMAGES)
        assert inside == [False]
        assert enabled() is allowed
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def test_rounding_is_given_back_after_an_error_and_by_the_last_who_leaves(tf):
    from cnnkit_tensorflow.settings import undisturbed

    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    before = enabled()
    try:
        tf.config.experimental.enable_tensor_float_32_execution(True)
        with undisturbed("/CPU:0"):
            with pytest.raises(ZeroDivisionError), undisturbed("/CPU:0"):
                _ = 1 / 0
            assert not enabled()
        assert enabled()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


@pytest.mark.parametrize("call", ["gradients", "step", "epoch"])
def test_what_comes_out_while_the_caller_traces_a_function_is_a_number_of_python(tf, make_backend, call):
    model = Model(input_shape=(4, 4, 1), layers=[Flatten(), Dense(units=3), Softmax()])
    state = initial_state(model, SGD(learning_rate=0.1))
    program = make_backend().compile_training(model.plan(), state, SGD(learning_rate=0.1))
    more = (np.arange(2), 2) if call == "epoch" else ()
    results = []

    @tf.function
    def caller():
        results.append(getattr(program, call)(IMAGES, np.zeros(2, int), *more))

    caller()
    number = {"gradients": lambda result: result[0], "step": float, "epoch": lambda result: result.loss_sum}[call]
    assert type(number(results[0])) is float
    assert type(results[0]) in (float, tuple, EpochTotals)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_a_fork_of_a_process_that_tensorflow_runs_in_is_told_so_and_does_not_hang(in_a_process_of_its_own):
    lines = in_a_process_of_its_own(
        TRAIN
        + """
    def in_a_fork(call):
        sys.stdout.flush()
        if os.fork() == 0:
            signal.alarm(60)  # who hangs is ended without a word
            try:
                call()
                print("done", flush=True)
            except BackendError as error:
                print(str(error)[:66], flush=True)
            finally:
                os._exit(0)
        os.wait()

    import signal, sys
    from cnnkit import BackendError
    in_a_fork(train)
    program = plugin.cnnkit_create_backend(None, "float32", {}).compile(model.plan(), train().parameters)
    in_a_fork(train)
    in_a_fork(lambda: program.predict(images))
    print(program.predict(images).shape)
    """
    )
    refused = "backend 'tensorflow' was called in a fork of a process in which it had"
    assert lines == ["done", refused[:66], refused[:66], "(5, 3)"]


def test_a_program_runs_while_the_caller_traces_a_function(tf, program):
    outputs = []

    @tf.function
    def caller():
        outputs.append(program.predict(IMAGES))

    caller()
    assert np.array_equal(outputs[0], 2 * IMAGES.reshape(2, 16))


def test_a_graph_in_which_nothing_runs_is_an_error_that_says_so(tf, program):
    with tf.Graph().as_default(), pytest.raises(BackendError, match=r"inside of a tf\.Graph\(\)"):
        program.predict(IMAGES)


def test_a_program_runs_where_the_caller_has_graphs_switched_off(tf, program):
    tf.config.run_functions_eagerly(True)
    try:
        assert np.array_equal(program.predict(IMAGES), 2 * IMAGES.reshape(2, 16))
    finally:
        tf.config.run_functions_eagerly(False)
