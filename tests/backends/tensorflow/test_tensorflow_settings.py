"""What TensorFlow keeps for a whole process: each of these tests would spoil the process of the others."""

import numpy as np
import pytest

from cnnkit import BackendError, Conv2D, Flatten, Model

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
        backend = plugin.cnnkit_create_backend(None, "float32", options)
        program = backend.compile_training(model.plan(), initial_state(model, optimizer), optimizer)
        program.step(images, labels)
        program.gradients(images, labels)
        program.epoch(images, labels, np.arange(5), 2)
        program.predict(images)
        return program.state()
"""


def test_making_and_running_a_program_changes_no_setting_of_the_process(in_a_process_of_its_own):
    lines = in_a_process_of_its_own(
        TRAIN
        + """
    def settings():
        config = tf.config
        return {
            "environment": dict(os.environ),
            "log level": (tf.get_logger().level, logging.getLogger().level, logging.root.manager.disable),
            "seeds": (str(np.random.get_state()), random.getstate()),
            "threads": (
                config.threading.get_intra_op_parallelism_threads(),
                config.threading.get_inter_op_parallelism_threads(),
            ),
            "rounding": config.experimental.tensor_float_32_execution_enabled(),
            "placement": config.get_soft_device_placement(),
            "graph options": config.optimizer.get_experimental_options(),
            "compilation": config.optimizer.get_jit(),
            "eager": config.functions_run_eagerly(),
            "devices": config.get_visible_devices(),
            "warnings": list(warnings.filters),
        }

    tf.random.set_seed(3)
    right = [tf.random.uniform([]).numpy() for _ in range(2)]
    tf.random.set_seed(3)
    before, drawn = settings(), [tf.random.uniform([]).numpy()]
    train()
    after = settings()
    drawn.append(tf.random.uniform([]).numpy())
    print([name for name in before if before[name] != after[name]], drawn == right)
    try:
        tf.random.set_seed(None)
        tf.random.normal([2])
        print("not deterministic")
    except RuntimeError:
        print("deterministic")
    """
    )
    assert lines == ["[] True", "not deterministic"]


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
