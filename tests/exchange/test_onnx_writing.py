"""Files of ONNX, run by the two programs that know best: ONNX Runtime, and the reference evaluator of ONNX itself.

What is right is what the oracle of the conformance suite says, within its threshold.
"""

import json
import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS, classifier, parameters_of, random_model
from onnx.reference import ReferenceEvaluator

from cnnkit import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    MaxPool2D,
    MissingDependency,
    Model,
    ModelError,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)
from cnnkit.conformance.explore import draw_model
from cnnkit.conformance.measure import compare
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.exchange import export_model, how_to_load
from cnnkit.exchange.to_onnx import to_onnx
from cnnkit.plan import MaxPool2DOp

EVERYTHING = Model(
    name="everything / at once",
    input_shape=(13, 11, 3),
    class_names=("a", "döner", "[c]"),
    layers=[
        Rescale(scale=1 / 255, offset=-0.5),
        Conv2D(filters=4, kernel_size=(3, 2), padding=((1, 2), (0, 1)), activation="relu"),
        Conv2D(filters=3, kernel_size=2, padding="same", strides=2, dilation=2, use_bias=False),
        MaxPool2D(pool_size=(3, 2), strides=(2, 1), padding=((2, 0), (0, 1))),
        AvgPool2D(pool_size=2, strides=1, padding=((1, 0), (0, 1))),
        Grayscale(),
        Tanh(),
        Sigmoid(),
        ReLU(),
        Flatten(),
        Dropout(rate=0.3),
        Dense(units=7, activation="tanh"),
        Dense(units=3),
        Softmax(),
    ],
)

CASES = (
    MODELS
    | {f"random {seed}": random_model(seed) for seed in range(12)}
    | {
        "everything": EVERYTHING,
        "strides and dilation": classifier(Conv2D(filters=2, kernel_size=2, strides=(2, 3), dilation=(3, 2))),
        "max pool padding": classifier(MaxPool2D(pool_size=3, strides=2, padding=((2, 1), (0, 2)))),
        "average pool padding": classifier(AvgPool2D(pool_size=3, strides=2, padding=((2, 1), (0, 2)))),
        "max pool after whose last window much padding is left": classifier(
            MaxPool2D(pool_size=2, strides=(5, 4), padding=((0, 4), (1, 2)))
        ),
        "average pool after whose last window much padding is left": classifier(
            AvgPool2D(pool_size=2, strides=(5, 4), padding=((0, 4), (1, 2)))
        ),
        "nothing at all": Model(input_shape=(2, 3, 1), layers=[Dropout(rate=0.5)]),
        "image twice": Model(input_shape=(4, 5, 2), layers=[Flatten(), Flatten()]),
        "image of one channel": Model(input_shape=(3, 4, 1), layers=[Tanh()]),
    }
)


def images_for(model, batch=5, seed=3, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(batch, *model.input_shape)).astype(dtype)


def in_onnxruntime(proto, images):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    [answer] = session.run(None, {"images": images})
    return answer


def in_reference(proto, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its sigmoid and its softmax overflow on the way
        [answer] = ReferenceEvaluator(proto).run(None, {"images": images})
    return answer


def is_misread_by_reference(model):
    """Whether onnx 1.23's evaluator takes a max pool's padding in another order than ONNX says, at strides of 1."""
    return any(
        isinstance(op, MaxPool2DOp) and max(op.strides) == 1 and op.padding[0][1] != op.padding[1][0]
        for op in model.plan().operations
    )


def right(answer, model, parameters, images, precision="float32"):
    """Whether `answer` is what the oracle says; returns its worst error in units of rounding."""
    assert answer.dtype == precision
    expected = expected_answer(Question(model, parameters, images, precision=precision))
    return compare("prediction", answer, expected.numbers["output"], precision)


# -------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("name", CASES)
def test_a_model_computes_in_onnx_what_it_says(name):
    model, parameters = CASES[name], parameters_of(CASES[name])
    proto = to_onnx(model, parameters)
    onnx.checker.check_model(proto, full_check=True)
    for batch in (1, 5):
        images = images_for(model, batch)
        right(in_onnxruntime(proto, images), model, parameters, images)
        if not is_misread_by_reference(model):
            right(in_reference(proto, images), model, parameters, images)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_model_does(seed):
    model, _ = draw_model(np.random.default_rng(seed), learns=False)
    parameters, images = parameters_of(model, seed), images_for(model, 2, seed)
    proto = to_onnx(model, parameters)
    onnx.checker.check_model(proto, full_check=True)
    right(in_onnxruntime(proto, images), model, parameters, images)
    if not is_misread_by_reference(model):
        right(in_reference(proto, images), model, parameters, images)


def test_no_image_has_no_answer_of_the_right_shape():
    proto = to_onnx(EVERYTHING, parameters_of(EVERYTHING))
    assert in_onnxruntime(proto, images_for(EVERYTHING, 0)).shape == (0, 3)


def test_bytes_of_images_are_scaled_by_the_model_itself():
    model = classifier(Rescale(scale=1 / 255))
    pixels = np.random.default_rng(0).integers(0, 256, (4, *model.input_shape), np.uint8)
    parameters = parameters_of(model)
    right(in_onnxruntime(to_onnx(model, parameters), pixels.astype(np.float32)), model, parameters, pixels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_go_through_as_arithmetic_says(value):
    layers = [
        Rescale(scale=-2.0, offset=1.0),
        Conv2D(filters=3, kernel_size=2, padding="same", activation="relu"),
        AvgPool2D(pool_size=2, strides=1, padding="same"),
        Sigmoid(),
        Grayscale(),
        Tanh(),
    ]
    model = Model(input_shape=(9, 8, 2), layers=layers)
    images = images_for(model, 2)
    images[0, 4, 3, 1] = value
    parameters = parameters_of(model)
    for count in range(1, len(layers) + 1):
        part = model.prefix(count - 1)
        kept = {spec.name: parameters[spec.name] for spec in part.plan().parameters}
        right(in_onnxruntime(to_onnx(part, kept), images), part, kept, images)


def test_nan_reaches_all_classes():
    model = classifier(Flatten(), Dense(units=4, activation="relu"))
    images = images_for(model, 2)
    images[1, 0, 0, 0] = np.nan
    answer = in_onnxruntime(to_onnx(model, parameters_of(model)), images)
    assert np.isnan(answer).all(axis=1).tolist() == [False, True]


@pytest.mark.parametrize(
    "name", ["everything", "conv dilation same", "average pool same", "hidden dense", "grayscale luma"]
)
def test_in_float64_numbers_are_those_of_float64(name):
    model, parameters = CASES[name], parameters_of(CASES[name], precision="float64")
    images = images_for(model, dtype=np.float64)
    proto = to_onnx(model, parameters, "float64")
    onnx.checker.check_model(proto, full_check=True)
    right(in_reference(proto, images), model, parameters, images, "float64")


# ------------------------------------------------------------------------------------------------ what is in the file


def operators(model):
    return [node.op_type for node in to_onnx(model, parameters_of(model)).graph.node]


def test_each_layer_becomes_its_operators_and_images_turn_as_seldom_as_can_be():
    assert operators(EVERYTHING) == [
        *("Mul", "Add", "Transpose", "Conv", "Relu", "Conv", "MaxPool", "AveragePool", "Conv", "Tanh", "Sigmoid"),
        *("Relu", "Transpose", "Flatten", "Gemm", "Tanh", "Gemm", "Softmax"),
    ]


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([Tanh()], ["Tanh"]),
        ([Flatten()], ["Flatten"]),
        ([Rescale(scale=2.0), Flatten()], ["Mul", "Flatten"]),
        ([Dropout(rate=0.5)], ["Identity"]),
        ([AvgPool2D(), Tanh()], ["Transpose", "AveragePool", "Tanh", "Transpose"]),
        ([Grayscale(), AvgPool2D(), Flatten()], ["Transpose", "Conv", "AveragePool", "Transpose", "Flatten"]),
    ],
)
def test_images_that_need_not_turn_do_not(layers, found):
    assert operators(Model(input_shape=(4, 4, 3), layers=layers)) == found


def test_input_and_output_say_their_names_types_and_shapes():
    proto = to_onnx(EVERYTHING, parameters_of(EVERYTHING))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    [images], [output] = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(float)", ["batch", 13, 11, 3])
    assert (output.name, output.type, output.shape) == ("probabilities", "tensor(float)", ["batch", 3])
    features = to_onnx(MODELS["nothing to learn"], {}).graph.output[0]
    assert features.name == "output"
    assert [d.dim_param or d.dim_value for d in features.type.tensor_type.shape.dim] == ["batch", 6, 5, 1]


@pytest.mark.parametrize(
    "name", ["everything", "conv same, even kernel and strides", "max pool padding", "average pool gaps"]
)
def test_onnx_infers_the_shapes_of_the_plan(name):
    model = CASES[name]
    proto = onnx.shape_inference.infer_shapes(to_onnx(model, parameters_of(model)), strict_mode=True, data_prop=True)
    found = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*proto.graph.value_info, *proto.graph.output]
    }
    kinds = {"Conv2DOp": "conv2d", "MaxPool2DOp": "max_pool2d", "AvgPool2DOp": "avg_pool2d", "DenseOp": "dense"}
    seen = 0
    for op in model.plan().operations:
        if type(op).__name__ in kinds:
            *size, last = op.output_shape
            assert found[f"{op.layer}.{kinds[type(op).__name__]}"] == ["batch", last, *size]
            seen += 1
    assert seen
    assert found["probabilities"] == ["batch", 3]


def test_parameters_have_their_names_and_kernels_the_layout_of_onnx():
    model = classifier(Conv2D(filters=4, kernel_size=(3, 2)))  # 3 is also the number of channels
    parameters = parameters_of(model)
    found = {one.name: onnx.numpy_helper.to_array(one) for one in to_onnx(model, parameters).graph.initializer}
    assert set(found) == set(parameters)
    np.testing.assert_array_equal(found["0.kernel"], parameters["0.kernel"].transpose(3, 2, 0, 1))
    for name in ("0.bias", "2.kernel", "2.bias"):
        np.testing.assert_array_equal(found[name], parameters[name])


@pytest.mark.parametrize(
    ("after", "written"),
    [(0, 0), (1, 1), (2, 2), (3, 1), (4, 1)],  # 1 pixel is what the last window needs, and 3 are too many for an engine
)
def test_padding_of_a_pool_is_written_as_it_is_where_engines_take_it(after, written):
    model = Model(
        input_shape=(6, 1, 1), layers=[MaxPool2D(pool_size=(3, 1), strides=(4, 1), padding=((0, after), (0, 0)))]
    )
    attributes = to_onnx(model, {}).graph.node[1].attribute
    assert [list(one.ints) for one in attributes if one.name == "pads"] == [[0, 0, written, 0]]


def test_any_runtime_of_the_last_years_takes_the_file():
    proto = to_onnx(EVERYTHING, parameters_of(EVERYTHING))
    assert [(used.domain, used.version) for used in proto.opset_import] == [("", 13)]
    assert proto.ir_version == 7  # of opset 13
    assert {node.domain for node in proto.graph.node} == {""}
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)


def test_the_model_travels_in_the_file_with_the_names_of_its_classes():
    proto = to_onnx(EVERYTHING, parameters_of(EVERYTHING))
    notes = {entry.key: entry.value for entry in proto.metadata_props}
    assert Model.from_json(notes["cnnkit.model"]) == EVERYTHING
    assert json.loads(notes["class_names"]) == ["a", "döner", "[c]"]
    assert "döner" in notes["class_names"]  # as people look it up in a viewer
    assert (proto.graph.name, proto.producer_name) == ("everything / at once", "cnnkit")
    nameless = to_onnx(MODELS["tanh"], parameters_of(MODELS["tanh"]))
    assert [entry.key for entry in nameless.metadata_props] == ["cnnkit.model"]
    assert nameless.graph.name == "cnnkit"


# ----------------------------------------------------------------------------------------------------------- the file


def test_the_file_is_what_is_written_for_the_same_model_with_the_same_bytes(tmp_path):
    parameters = parameters_of(EVERYTHING)
    one, other = (export_model(EVERYTHING, parameters, tmp_path / f"{name}.onnx") for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert onnx.load(one) == to_onnx(EVERYTHING, parameters)


def test_the_line_that_loads_it_does_so_where_there_is_no_cnnkit(tmp_path):
    path = export_model(EVERYTHING, parameters_of(EVERYTHING), tmp_path / "it's.onnx")
    code = f"""
import sys
for name in ("cnnkit", "onnx"):
    sys.modules[name] = None  # importing it is an error
import numpy, onnxruntime
{how_to_load(path)}
print(session.run(None, {{"images": numpy.zeros((2, 13, 11, 3), "float32")}})[0].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(2, 3)\n"


def test_more_numbers_than_a_file_holds_are_refused_before_any_is_copied():
    model = Model(name="huge", input_shape=(30_000,), layers=[Dense(units=9), Dense(units=30_000), Dense(units=20_000)])
    with pytest.raises(ModelError) as refused:
        to_onnx(model, {})
    [problem] = refused.value.problems
    assert problem.path == "layers[2]"
    assert "has most of 2,402,360,036 bytes of parameters, and a file of ONNX holds at most 2,147,483,647" in str(
        refused.value
    )
    just = Model(input_shape=(20_000,), layers=[Dense(units=26_830, use_bias=False)])  # 2,146,400,000: 1.1 MB below
    with pytest.raises(KeyError):  # looks for the parameters: not refused for its size
        to_onnx(just, {})
    above = Model(input_shape=(20_000,), layers=[Dense(units=26_832, use_bias=False)])
    with pytest.raises(ModelError, match="a file of ONNX holds at most"):
        to_onnx(above, {})
    with pytest.raises(ModelError, match="a file of ONNX holds at most"):
        to_onnx(Model(input_shape=(20_000,), layers=[Dense(units=20_000, use_bias=False)]), {}, "float64")


def test_without_onnx_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependency, match=r"cnnkit\[onnx\]"):
        export_model(MODELS["conv"], parameters_of(MODELS["conv"]), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
