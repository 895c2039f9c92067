"""What is put in the place of an operator: that it is, and that it is right where the conformance suite does not look."""

import cnnkit
import numpy as np
import onnx
import pytest
from cnnkit import AvgPool2D, Conv2D, Flatten, MaxPool2D, Model, ReLU
from cnnkit.exchange.to_onnx import to_onnx

from cnnkit_onnxruntime.backend import CHUNK
from cnnkit_onnxruntime.rewriting import exact

MODEL = Model(
    input_shape=(9, 8, 2),
    layers=[
        Conv2D(filters=3, kernel_size=(3, 2), strides=(1, 2), dilation=(2, 1), padding=((1, 2), (0, 3))),
        MaxPool2D(pool_size=(3, 2), strides=2, padding=((1, 2), (0, 1))),
        AvgPool2D(pool_size=2, strides=(2, 1), padding=((0, 1), (1, 0))),
    ],
)


def drawn(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("precision", "rewritten"),
    [("float32", {"MaxPool"}), ("float64", {"Conv", "MaxPool", "AveragePool"})],
)
def test_only_operators_that_are_not_exact_are_rewritten(precision, rewritten):
    before = to_onnx(MODEL, cnnkit.initial_parameters(MODEL), precision)
    operators = {node.op_type for node in before.graph.node}
    after = exact(before)
    onnx.checker.check_model(after, full_check=True)
    kept = {node.op_type for node in after.graph.node}
    assert {"Conv", "MaxPool", "AveragePool"} <= operators
    assert {"Conv", "MaxPool", "AveragePool"} - kept == rewritten


def test_a_model_without_such_operators_stays_as_it_is():
    plain = Model(input_shape=(3, 4, 1), layers=[ReLU(), Flatten()])
    assert exact(to_onnx(plain, {})) == to_onnx(plain, {})


@pytest.mark.parametrize("count", range(1, 4))
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_each_layer_has_the_numbers_of_numpy_in_whole_chunks_and_behind_the_last(precision, count):
    model = MODEL.prefix(count - 1)
    parameters = cnnkit.initial_parameters(model)
    parameters["0.bias"][:] = 0.5, -1, 2
    images = drawn((CHUNK + 3, *model.input_shape))
    found, right = (
        cnnkit.get_backend(name, precision=precision).compile(model.plan(), parameters).predict(images)
        for name in ("onnxruntime", "numpy")
    )
    assert found.dtype == precision
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-5 if precision == "float32" else 1e-14)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_window_of_minus_infinity_beside_padding_stays_minus_infinity(precision):
    model = Model(input_shape=(3, 3, 1), layers=[MaxPool2D(pool_size=2, strides=1, padding="same")])
    images = np.full((1, 3, 3, 1), -np.inf, np.float32)
    images[0, 0, 0, 0] = np.nan
    answer = cnnkit.get_backend("onnxruntime", precision=precision).compile(model.plan(), {}).predict(images)[0, ..., 0]
    assert np.isnan(answer[0, 0])
    assert (answer.ravel()[1:] == -np.inf).all()


def test_threads_are_those_that_were_asked_for():
    plan = Model(input_shape=(2,), layers=[ReLU()]).plan()
    for threads, set_to in ((1, 1), (2, 2), (None, 0)):  # 0 leaves it to ONNX Runtime
        program = cnnkit.get_backend("onnxruntime", threads=threads).compile(plan, {})
        assert program.session.get_session_options().intra_op_num_threads == set_to
