"""What others write into files of ONNX, and what a stranger may have put there.

Two judges that know nothing of cnnkit say what a graph computes: ONNX's reference evaluator, and ONNX Runtime.
"""

import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from models import MODELS, parameters_of, random_model
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from cnnkit import CheckpointError, Dense, Flatten, Model, ModelError, ReLU, Softmax, initial_parameters, predict
from cnnkit.exchange import export_model, import_model
from cnnkit.exchange.from_onnx import read_onnx
from cnnkit.exchange.onnx_layers import OPERATORS

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(5)


def numbers(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def node(operator, *inputs, **attributes):
    """A node; arrays among its inputs become initialisers."""
    return operator, inputs, attributes


def graph(nodes, shape, kind=FLOAT, opset=17, batch="batch", domain=""):
    """A model of nodes one behind the other. An input None is the one before; the output is `y`."""
    made, tensors, last = [], [], "x"
    for index, (operator, inputs, attributes) in enumerate(nodes):
        names = []
        for number, value in enumerate(inputs):
            if isinstance(value, np.ndarray):
                names.append(f"{index}.{number}")
                tensors.append(numpy_helper.from_array(value, names[-1]))
            else:
                names.append(last if value is None else value)
        own = attributes.pop("domain", domain)
        output = attributes.pop("output", "y" if index == len(nodes) - 1 else f"v{index}")
        made.append(helper.make_node(operator, names, [output], f"n{index}", domain=own, **attributes))
        last = output
    source = helper.make_tensor_value_info("x", kind, [batch, *shape])
    target = helper.make_tensor_value_info("y", FLOAT, None)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(
        helper.make_graph(made, "main_graph", [source], [target], tensors), opset_imports=opsets, ir_version=8
    )


@pytest.fixture
def saved(tmp_path):
    """A function that writes a model, or bytes, and returns the path."""

    def save(model):
        path = tmp_path / "model.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return save


def agree(path, layout):
    """The model at `path`, after seeing that both judges predict the same on images that lie as `layout` says."""
    model, parameters = import_model(path)
    images = numbers(3, *model.input_shape)
    theirs = images.transpose(0, 3, 1, 2) if layout == "first" else images[..., 0] if layout == "grey" else images
    found = predict(model, parameters, images, backend="numpy")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: theirs}
    for expected in (ReferenceEvaluator(str(path)).run(None, feed)[0], session.run(None, feed)[0]):
        lies = expected.transpose(0, 2, 3, 1) if expected.ndim == 4 and layout != "last" else expected
        assert found.shape == lies.shape
        assert np.allclose(found, lies, rtol=1e-4, atol=1e-4 * np.abs(lies).max())
    return model


# ------------------------------------------------------------------------------------------------ files of our own


@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_ours_comes_back_exactly(name, tmp_path):
    model = MODELS[name]
    parameters = parameters_of(model)
    back, numbers_back = import_model(export_model(model, parameters, tmp_path / "model.onnx"))
    assert back == model
    assert list(numbers_back) == list(parameters)
    assert all(np.array_equal(numbers_back[key], parameters[key]) for key in parameters)


@pytest.mark.parametrize("shape", [(9, 9, 5), (3, 5, 4), (4, 3, 3), (1, 7, 2)])
def test_a_file_of_ours_comes_back_exactly_where_no_operator_tells_how_its_images_lie(shape, tmp_path):
    model = Model(input_shape=shape, layers=[ReLU(), Flatten(), Dense(units=3), Softmax()])
    parameters = initial_parameters(model, seed=0)
    found, numbers = import_model(export_model(model, parameters, tmp_path / "m.onnx"))
    assert found == model
    assert all(np.array_equal(numbers[name], array) for name, array in parameters.items())


def test_deep_models_of_many_layers_come_back_exactly(tmp_path):
    for seed in range(12):
        model = random_model(seed)
        parameters = parameters_of(model)
        back, numbers_back = import_model(export_model(model, parameters, tmp_path / "m.onnx", overwrite=True))
        assert back == model
        assert all(np.array_equal(numbers_back[key], parameters[key]) for key in parameters)


def edited(tmp_path, name, edit):
    """The model of a file of ours that somebody has edited, and its path."""
    path = export_model(MODELS[name], parameters_of(MODELS[name]), tmp_path / "model.onnx", overwrite=True)
    proto = onnx.load(path)
    edit(proto)
    onnx.save(proto, path)
    return path


def change(node_type, **attributes):
    def edit(proto):
        found = next(one for one in proto.graph.node if one.op_type == node_type)
        for name, value in attributes.items():
            kept = [one for one in found.attribute if one.name != name]
            del found.attribute[:]
            found.attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def rename(node_type, other):
    def edit(proto):
        next(one for one in proto.graph.node if one.op_type == node_type).op_type = other

    return edit


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("conv padding and dilation", change("Conv", pads=[0, 0, 3, 2])),
        ("names", rename("Relu", "Tanh")),
        ("max pool same", change("MaxPool", pads=[1, 0, 0, 1])),
        ("max pool overlapping", rename("MaxPool", "AveragePool")),
        ("rescale", rename("Mul", "Div")),
    ],
)
def test_a_file_whose_graph_was_edited_is_what_the_graph_says_now(name, edit, tmp_path):
    model = agree(edited(tmp_path, name, edit), "last")
    assert model.plan().operations != MODELS[name].plan().operations
    assert model.class_names is None


def rewritten(tmp_path, name, tensor, array):
    """A file of ours in which somebody has put other numbers into one array."""

    def edit(proto):
        for index, one in enumerate(proto.graph.initializer):
            if one.name == tensor:
                proto.graph.initializer[index].CopyFrom(numpy_helper.from_array(np.asarray(array, np.float32), tensor))

    return edited(tmp_path, name, edit)


def test_numbers_that_were_edited_are_those_of_the_graph(tmp_path):
    path = rewritten(tmp_path, "names", "2.bias", [1, 2, 3])
    model, parameters = import_model(path)
    assert model == MODELS["names"]  # it computes with other numbers, and has the same layers
    assert parameters["2.bias"].tolist() == [1, 2, 3]


def test_a_rescale_or_grayscale_that_was_edited_is_not_the_old_one(tmp_path):
    model, _ = import_model(rewritten(tmp_path, "rescale", "0.scale", 0.5))
    assert model.layers[0].scale == 0.5
    model, parameters = import_model(rewritten(tmp_path, "grayscale luma", "0.weights", np.ones((1, 3, 1, 1))))
    assert model.layers[0].kind == "conv2d"
    assert parameters["0.kernel"].ravel().tolist() == [1, 1, 1]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", '{"version": 99}', '{"version": 1, "layers": 3}'])
def test_metadata_that_say_nothing_leave_the_graph(text, tmp_path):
    def edit(proto):
        next(entry for entry in proto.metadata_props if entry.key == "cnnkit.model").value = text

    model, _ = import_model(edited(tmp_path, "names", edit))
    assert model.plan().parameters == MODELS["names"].plan().parameters
    assert model.class_names is None


def test_names_of_classes_alone_are_taken_where_they_fit(saved):
    for names, expected in (('["a", "b", "c"]', ("a", "b", "c")), ('["a"]', None), ("[1, 2, 3]", None), ("{", None)):
        proto = graph([node("Gemm", None, numbers(4, 3)), node("Softmax", None)], (4,))
        helper.set_model_props(proto, {"class_names": names})
        assert import_model(saved(proto))[0].class_names == expected


# ------------------------------------------------------------------------------------------------ files of others

W = numbers(4, 3, 3, 2)  # (filters, channels, height, width)
B = numbers(4)
POSITIVE = np.abs(numbers(4)) + np.float32(0.5)
FIRST, LAST = (3, 9, 7), (9, 7, 3)
FLAT = [node("Flatten", None)]


def then_dense(*nodes, features, units=5):
    """The nodes, and behind them what flattens and weighs every feature differently, so that an order shows."""
    return [*nodes, node("Flatten", None), node("Gemm", None, numbers(features, units), numbers(units))]


CASES = {
    "conv": (then_dense(node("Conv", None, W, B), features=4 * 7 * 6), FIRST),
    "conv strides dilations pads": (
        then_dense(node("Conv", None, W, strides=[2, 1], dilations=[1, 2], pads=[2, 0, 1, 3]), features=4 * 5 * 8),
        FIRST,
    ),
    "same upper": (then_dense(node("Conv", None, W, B, auto_pad="SAME_UPPER"), features=4 * 9 * 7), FIRST),
    "same lower": (then_dense(node("Conv", None, W, B, auto_pad="SAME_LOWER"), features=4 * 9 * 7), FIRST),
    "valid": (then_dense(node("Conv", None, W, B, auto_pad="VALID"), features=4 * 7 * 6), FIRST),
    "same upper, strides": (
        then_dense(node("Conv", None, W, auto_pad="SAME_UPPER", strides=[2, 2]), features=4 * 5 * 4),
        FIRST,
    ),
    "pad": (
        then_dense(
            node("Pad", None, np.array([0, 0, 1, 2, 0, 0, 0, 1]), np.array(0, np.float32)),
            node("Conv", None, W, pads=[1, 0, 0, 0]),
            features=4 * 9 * 9,
        ),
        FIRST,
    ),
    "max pool": (then_dense(node("MaxPool", None, kernel_shape=[3, 2], strides=[2, 1]), features=3 * 4 * 6), FIRST),
    "max pool pads": (
        then_dense(node("MaxPool", None, kernel_shape=[3, 2], strides=[2, 3], pads=[1, 0, 0, 1]), features=3 * 4 * 3),
        FIRST,
    ),
    "max pool same lower": (
        then_dense(node("MaxPool", None, kernel_shape=[2, 2], auto_pad="SAME_LOWER"), features=3 * 9 * 7),
        FIRST,
    ),
    "max pool ceil": (
        then_dense(node("MaxPool", None, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1), features=3 * 4 * 4),
        FIRST,
    ),
    "max pool ceil, whose last window would begin in the padding": (
        [node("MaxPool", None, kernel_shape=[2, 2], strides=[3, 1], pads=[0, 0, 1, 0], ceil_mode=1)],
        FIRST,
    ),
    "average pool": (
        then_dense(node("AveragePool", None, kernel_shape=[3, 2], strides=[3, 2]), features=3 * 3 * 3),
        FIRST,
    ),
    "average pool pads": (
        then_dense(
            node("AveragePool", None, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), features=3 * 5 * 4
        ),
        FIRST,
    ),
    "average pool that would count no padding": (
        then_dense(node("AveragePool", None, kernel_shape=[3, 3], count_include_pad=1), features=3 * 7 * 5),
        FIRST,
    ),
    "global average": (then_dense(node("GlobalAveragePool", None), features=3), FIRST),
    "global max": (then_dense(node("GlobalMaxPool", None), features=3), FIRST),
    "mean over the image": (
        [node("ReduceMean", None, axes=[2, 3], keepdims=0), node("Gemm", None, numbers(3, 2))],
        FIRST,
    ),
    "squeezed": ([node("GlobalMaxPool", None), node("Squeeze", None, np.array([2, 3]))], FIRST),
    "grayscale": (then_dense(node("ReduceMean", None, axes=[1]), features=63), FIRST),
    "activations": (
        then_dense(
            node("Conv", None, W, B), node("Relu", None), node("Tanh", None), node("Sigmoid", None), features=168
        ),
        FIRST,
    ),
    "gemm transposed, alpha, beta": (
        [
            *FLAT,
            node("Gemm", None, numbers(5, 189), numbers(5), transB=1, alpha=0.5, beta=2.0),
            node("Gemm", None, numbers(5, 3), numbers(1, 3)),
            node("Softmax", None, axis=1),
        ],
        FIRST,
    ),
    "matmul and add": ([*FLAT, node("MatMul", None, numbers(189, 4)), node("Add", None, numbers(4))], FIRST),
    "add first": ([*FLAT, node("MatMul", None, numbers(189, 4)), node("Add", numbers(4), None)], FIRST),
    "one unit, bias of one number": (
        [*FLAT, node("MatMul", None, numbers(189, 1)), node("Add", None, numbers(1))],
        FIRST,
    ),
    "batch norm": (
        then_dense(
            node("Conv", None, W, B),
            node("BatchNormalization", None, B, numbers(4), numbers(4), POSITIVE, epsilon=0.01),
            node("Relu", None),
            features=168,
        ),
        FIRST,
    ),
    "batch norm behind a convolution without a bias": (
        [node("Conv", None, W), node("BatchNormalization", None, B, numbers(4), numbers(4), POSITIVE)],
        FIRST,
    ),
    "batch norm of features": (
        [
            *then_dense(features=189, units=4),
            node("BatchNormalization", None, B, numbers(4), numbers(4), POSITIVE),
            node("Dropout", None),
        ],
        FIRST,
    ),
    "affine by channel": (
        [
            node("Conv", None, W),
            node("Mul", None, numbers(4, 1, 1)),
            node("Sub", None, numbers(1, 4, 1, 1)),
            node("Div", None, POSITIVE.reshape(4, 1, 1)),
        ],
        FIRST,
    ),
    "rescale": (
        [node("Sub", None, np.array(0.5, np.float32)), node("Div", None, numbers(1)), node("Conv", None, W)],
        FIRST,
    ),
    "rescale from the left": (
        [node("Sub", np.array(1, np.float32), None), node("Mul", numbers(1), None), node("Conv", None, W)],
        FIRST,
    ),
    "reshape to features": (
        [node("Conv", None, W), node("Reshape", None, np.array([-1, 168])), node("MatMul", None, numbers(168, 2))],
        FIRST,
    ),
    "reshape with the batch kept": (
        [node("Conv", None, W), node("Reshape", None, np.array([0, -1])), node("MatMul", None, numbers(168, 2))],
        FIRST,
    ),
    "reshape worked out": (
        [
            node("Conv", None, W, output="c"),
            node("Shape", "c", output="s"),
            node("Gather", "s", np.array(0), output="b"),
            node("Unsqueeze", "b", np.array([0]), output="u"),
            node("Concat", "u", np.array([-1]), axis=0, output="t"),
            node("Reshape", "c", "t"),
            node("MatMul", None, numbers(168, 2)),
        ],
        FIRST,
    ),
    "kernel behind a transpose": (
        [
            node("Flatten", "x", output="f"),
            node("Transpose", numbers(3, 189), perm=[1, 0], output="k"),
            node("MatMul", "f", "k"),
        ],
        FIRST,
    ),
    "channels last": (
        [
            node("Transpose", None, perm=[0, 3, 1, 2]),
            node("Conv", None, W, B),
            node("Transpose", None, perm=[0, 2, 3, 1]),
            node("Add", None, numbers(4)),
            node("Relu", None),
            *then_dense(features=168),
        ],
        LAST,
    ),
    "one channel last, moved by a reshape": (
        [
            node("Reshape", None, np.array([-1, 1, 9, 7])),
            node("Conv", None, numbers(4, 1, 2, 2)),
            *then_dense(features=4 * 8 * 6),
        ],
        (9, 7, 1),
    ),
    "grey": ([node("Unsqueeze", None, np.array([1])), node("Conv", None, numbers(2, 1, 2, 2))], (9, 7)),
    "features only": ([node("Gemm", None, numbers(6, 2)), node("Softmax", None)], (6,)),
}


def layout_of(shape):
    return {1: "last", 2: "grey"}.get(len(shape), "first" if shape[0] <= 3 else "last")


def copied(nodes):
    return [(operator, inputs, dict(attributes)) for operator, inputs, attributes in nodes]


@pytest.mark.parametrize("name", CASES)
def test_a_graph_of_somebody_elses_predicts_what_onnx_says(name, saved):
    nodes, shape = CASES[name]
    layout = {1: "last", 2: "grey"}.get(len(shape), "first" if shape[0] == 3 else "last")
    assert agree(saved(graph(copied(nodes), shape)), layout).input_shape[:2] in ((9, 7), (6,))


def test_bytes_that_are_cast_first_may_go_in(saved):
    path = saved(graph([node("Cast", None, to=FLOAT), node("Conv", None, W)], FIRST, kind=TensorProto.UINT8))
    images = RNG.integers(0, 256, (2, 9, 7, 3), np.uint8)
    model, parameters = import_model(path)
    expected = ReferenceEvaluator(str(path)).run(None, {"x": images.transpose(0, 3, 1, 2)})[0]
    found = predict(model, parameters, images, backend="numpy")
    assert np.allclose(found.transpose(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
def test_what_was_an_attribute_in_one_opset_and_an_input_in_another_is_read(opset, saved):
    axes = {"axes": [1]} if opset < 13 else {}
    pads = {"pads": [0, 0, 1, 2, 0, 0, 0, 1]} if opset < 11 else {}
    nodes = [
        node("Pad", None, *([] if pads else [np.array([0, 0, 1, 2, 0, 0, 0, 1])]), mode="constant", **pads),
        node("Conv", None, W),
        node(
            "ReduceMean",
            None,
            *([np.array([2, 3])] if opset >= 18 else []),
            **({} if opset >= 18 else {"axes": [2, 3]}),
        ),
        node("Flatten", None),
        node("Softmax", None),
    ]
    assert agree(saved(graph(nodes, FIRST, opset=opset)), "first").plan().is_classifier
    grey = [
        node("Unsqueeze", None, *([] if axes else [np.array([1])]), **axes),
        node("Conv", None, numbers(2, 1, 2, 2)),
    ]
    agree(saved(graph(grey, (9, 7), opset=opset)), "grey")


def test_nodes_that_the_output_does_not_need_are_left_aside(saved):
    proto = graph([node("Relu", None)], FIRST)
    proto.graph.node.append(helper.make_node("Gelu", ["x"], ["unused"], "gelu"))
    assert import_model(saved(proto))[0].layers == (ReLU(),)


def test_an_array_is_read_where_it_is_not_raw_and_where_it_is_an_input_too(saved):
    proto = graph([node("Gemm", None, numbers(4, 3))], (4,))
    kernel = proto.graph.initializer[0]
    plain = helper.make_tensor(kernel.name, FLOAT, [4, 3], numpy_helper.to_array(kernel).ravel().tolist())
    kernel.CopyFrom(plain)
    proto.graph.input.append(helper.make_tensor_value_info(plain.name, FLOAT, [4, 3]))
    agree(saved(proto), "last")


def test_nan_among_the_weights_stays(saved):
    kernel = numbers(4, 3)
    kernel[1, 2] = np.nan
    _, parameters = import_model(saved(graph([node("Gemm", None, kernel)], (4,))))
    assert np.array_equal(parameters["0.kernel"], kernel, equal_nan=True)


def test_a_bias_of_one_number_behind_a_matmul_is_the_bias_of_the_layer(saved):
    nodes = [node("MatMul", None, numbers(4, 1)), node("Add", None, numbers(1))]
    assert import_model(saved(graph(nodes, (4,))))[0].layers == (Dense(units=1),)


# --------------------------------------------------------------------------------------------- what we have no word for

REFUSED = {
    "Gelu": ([node("Gelu", None)], r"node\[0\] \(Gelu 'n0'\) has no layer in cnnkit"),
    "LogSoftmax": ([*FLAT, node("LogSoftmax", None)], r"LogSoftmax 'n1'\) .* Export the model with Softmax there"),
    "QLinearConv": ([node("QLinearConv", None)], "before it is quantised"),
    "If": ([node("If", None)], "without control flow"),
    "a custom domain": ([node("Relu", None, domain="my.own")], "is an operator of 'my.own'"),
    "groups": ([node("Conv", None, numbers(3, 1, 2, 2), group=3)], r"group = 3; cnnkit has only 1"),
    "a kernel for other channels": ([node("Conv", None, numbers(2, 4, 2, 2))], "gets images of 3 channels"),
    "another kernel_shape": ([node("Conv", None, W, kernel_shape=[2, 2])], r"kernel_shape \(2, 2\), and a kernel"),
    "a kernel that is too large": ([node("Conv", None, numbers(2, 3, 10, 2))], r"Conv 'n0'\) kernel_size is \(10, 2\)"),
    "negative pads": ([node("Conv", None, W, pads=[-1, 0, 0, 0])], "has pads"),
    "an attribute that nobody knows": ([node("Relu", None, slope=2)], "has the attribute slope"),
    "an attribute of another type": ([node("Conv", None, W, strides="x")], "strides of another type"),
    "counted padding": (
        [node("AveragePool", None, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        "counts its padding in the mean",
    ),
    "a dilated pool": ([node("MaxPool", None, kernel_shape=[2, 2], dilations=[2, 2])], "has dilations above 1"),
    "batch norm first": (
        [node("BatchNormalization", None, *(np.ones(3, np.float32) for _ in range(4)))],
        "stands behind the input; cnnkit has no layer of its own",
    ),
    "batch norm behind an activation": (
        [node("Conv", None, W), node("Relu", None), node("BatchNormalization", None, B, B, B, POSITIVE)],
        "stands behind node.0. .Conv 'n0'",
    ),
    "training": (
        [node("Conv", None, W), node("BatchNormalization", None, B, B, B, POSITIVE, training_mode=1)],
        "training_mode = 1",
    ),
    "one number a channel at the input": ([node("Mul", None, numbers(3, 1, 1))], "has numbers that differ by channel"),
    "one number a pixel": ([node("Add", None, numbers(9, 7))], "has a constant of 9 x 7"),
    "softmax over the batch": ([*FLAT, node("Softmax", None, axis=0)], "softmax over the batch"),
    "softmax of an image": ([node("Softmax", None, axis=1)], "takes .batch, classes., and gets .batch, channels"),
    "softmax within": (
        [*FLAT, node("Gemm", None, numbers(189, 4)), node("Softmax", None), node("Relu", None)],
        "only at the end",
    ),
    "an order that shows": (FLAT, r"outputs are features in the order \(channels, height, width\)"),
    "a pad of ones": (
        [node("Pad", None, np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.array(1, np.float32)), node("Conv", None, W)],
        "another way than with zeros",
    ),
    "a pad before a pool": (
        [node("Pad", None, np.array([0, 0, 1, 1, 0, 0, 1, 1])), node("MaxPool", None, kernel_shape=[2, 2])],
        r"Pad 'n0'\) stands before node\[1\] \(MaxPool",
    ),
    "a pad at the end": ([node("Pad", None, np.array([0, 0, 1, 1, 0, 0, 1, 1]))], "stands before the end of the graph"),
    "a residual": ([node("Relu", None, output="r"), node("Add", "r", "x")], r"Add 'n1'\) joins two paths"),
    "a second path": (
        [node("Relu", "x", output="a"), node("Tanh", "x", output="b"), node("Concat", "a", "b", axis=1)],
        r"Tanh 'n1'\) is a second path",
    ),
    "a dense layer of an image": ([node("MatMul", None, numbers(7, 2))], "takes .batch, features., and gets"),
    "a dense layer for other features": (
        [*FLAT, node("Gemm", None, numbers(188, 2))],
        "for 188 features and 2 units, and gets 189",
    ),
    "a kernel from the left": ([node("MatMul", numbers(9, 9), None)], "from the left"),
    "a transposed batch": ([node("Transpose", None, perm=[1, 0, 2, 3])], "moves the batch's"),
    "images that were mixed": (
        [node("Reshape", None, np.array([-1, 63])), node("MatMul", None, numbers(63, 2))],
        "makes 63 of 3 x 9 x 7",
    ),
    "half the batch": ([node("Reshape", None, np.array([2, -1]))], r"target \(2, -1\), which mixes the images"),
    "a double kernel": ([*FLAT, node("Gemm", None, np.ones((189, 2)))], "a kernel of float64"),
    "a half kernel": (
        [*FLAT, node("Gemm", None, np.ones((189, 2), np.float16))],
        "as FLOAT16; cnnkit reads models in FLOAT",
    ),
    "axes that are images": ([node("Squeeze", "x", "x")], "Squeeze 'n0'"),
    "pads that are images": ([node("Relu", None), node("Pad", np.ones(8, np.float32), None)], "Pad 'n1'"),
    "images as an integer": ([node("Cast", None, to=TensorProto.INT32)], "another type than FLOAT"),
    "what grows from constants": (
        [node("Concat", *[np.zeros(4000, np.float32)] * 3, axis=0, output="c"), node("Add", "x", "c")],
        "would make 12,000 numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_layer_is_refused_with_its_place(name, saved):
    nodes, message = REFUSED[name]
    with pytest.raises(ModelError, match=r"model\.onnx(?s:.*)" + message):
        import_model(saved(graph(copied(nodes), FIRST)))


def test_all_nodes_that_have_no_layer_are_said_at_once(saved):
    nodes = [
        node("Conv", None, numbers(3, 1, 2, 2), group=3),
        node("Elu", None),
        node("Relu", None),
        node("Gelu", None),
    ]
    with pytest.raises(ModelError, match="has 3 problems") as refused:
        import_model(saved(graph(nodes, FIRST)))
    assert [problem.path for problem in refused.value.problems] == [
        "node[0] (Conv 'n0')",
        "node[1] (Elu 'n1')",
        "node[3] (Gelu 'n3')",
    ]


def test_a_function_of_the_files_own_does_not_pass_for_an_operator(saved):
    proto = graph([node("Relu", None)], FIRST)
    body = [helper.make_node("Neg", ["a"], ["b"])]
    proto.functions.append(helper.make_function("ai.onnx", "Relu", ["a"], ["b"], body, proto.opset_import))
    with pytest.raises(ModelError, match="is a function that the file defines itself"):
        import_model(saved(proto))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda proto: proto.graph.input.append(helper.make_tensor_value_info("z", FLOAT, [1])), None),
        (
            lambda proto: proto.graph.output.append(helper.make_tensor_value_info("x", FLOAT, [1])),
            "outputs are 'y', 'x'",
        ),
        (
            lambda proto: proto.graph.input[0].type.tensor_type.shape.dim[2].Clear(),
            r"has the shape \['\?', 3, '\?', 7\]",
        ),
        (lambda proto: proto.graph.input[0].type.tensor_type.ClearField("shape"), "has the shape not known"),
        (lambda proto: setattr(proto.graph.input[0].type.tensor_type, "elem_type", 10), "is neither FLOAT nor UINT8"),
        (lambda proto: setattr(proto.opset_import[0], "version", 6), "opset is version 6"),
        (lambda proto: setattr(proto.opset_import[0], "version", 99), "opset is version 99"),
    ],
)
def test_what_is_wrong_with_the_graph_as_a_whole_is_said(change, message, saved):
    proto = graph([node("Conv", None, W)], FIRST)
    change(proto)
    if message is None:
        assert import_model(saved(proto))[0].input_shape == (9, 7, 3)
        return
    with pytest.raises(ModelError, match=message):
        import_model(saved(proto))


def test_two_inputs_are_refused_beside_what_else_is_wrong(saved):
    proto = graph([node("Add", "x", "z"), node("Gelu", None)], FIRST)
    proto.graph.input.append(helper.make_tensor_value_info("z", FLOAT, ["batch", *FIRST]))
    with pytest.raises(ModelError, match=r"(?s)inputs are 'x', 'z'; a model of cnnkit has one.*Gelu 'n1'"):
        import_model(saved(proto))


# ----------------------------------------------------------------------------------------------------- files of strangers


def test_numbers_in_another_file_are_not_followed(saved, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(4 * W.size))
    for place in ("secret", "../secret", str(tmp_path / "secret")):
        proto = graph([node("Conv", None, W)], FIRST)
        kernel = proto.graph.initializer[0]
        kernel.ClearField("raw_data")
        kernel.data_location = TensorProto.EXTERNAL
        kernel.external_data.add(key="location", value=place)
        with pytest.raises(ModelError, match=r"in another file, and cnnkit follows no name.*external_data=False"):
            import_model(saved(proto))


@pytest.mark.parametrize(
    "dims", [[4, 3, 3, 3], [1 << 40, 1 << 40], [-4, -3, 3, 2], [0], [1] * 70, [1 << 62, 3], [4, 3, 3, 2, 1 << 33]]
)
def test_an_array_that_promises_other_numbers_than_it_holds_is_refused(dims, saved):
    proto = graph([node("Conv", None, W)], FIRST)
    proto.graph.initializer[0].dims[:] = dims
    with pytest.raises(ModelError, match=r"Conv 'n0'\) has its array '0\.1' of the shape"):
        import_model(saved(proto))


def test_a_large_image_is_not_made(saved):
    """Its features are more than any memory holds."""
    nodes = [node("Flatten", None), node("Gemm", None, numbers(5, 2))]
    with pytest.raises(ModelError, match="for 5 features and 2 units, and gets"):
        import_model(saved(graph(nodes, (3, 1 << 40, 1 << 20))))


def test_one_array_that_serves_a_thousand_layers_does_not_fill_the_memory(saved):
    proto = graph([node("Gemm", None, numbers(1000, 1000))], (1000,))
    first = proto.graph.node[0].input[1]
    proto.graph.node[0].output[0] = "v0"
    for index in range(300):
        output = "y" if index == 299 else f"v{index + 1}"
        proto.graph.node.append(helper.make_node("Gemm", [f"v{index}", first], [output]))
    with pytest.raises(CheckpointError, match=r"more than .* bytes of parameters"):
        import_model(saved(proto))


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x00" * 40, b"PK\x03\x04", b"\x08\x08", b"\x3a\x7f"])
def test_what_is_no_file_of_onnx_is_said_to_be_none(data, saved):
    with pytest.raises(CheckpointError, match=r"model\.onnx cannot be imported: it is no file of ONNX"):
        import_model(saved(data))


def test_nothing_there_and_a_folder_are_errors(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    for name, message in (("none.onnx", "there is no such file"), ("folder.onnx", "it is a folder")):
        with pytest.raises(CheckpointError, match=f"cannot read .*{name}: {message}"):
            import_model(tmp_path / name)


def test_graphs_deep_in_one_another_are_damage(saved):
    deep = b""
    for _ in range(300):  # a graph in an attribute of a node of a graph
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            length, size = b"", len(deep)
            while True:
                length += bytes([size & 127 | (128 if size > 127 else 0)])
                size >>= 7
                if not size:
                    break
            deep = tag + length + deep
    proto = graph([node("Relu", None)], FIRST)
    with pytest.raises(CheckpointError, match="no file of ONNX, or damaged"):
        import_model(saved(proto.SerializeToString() + b"\x3a" + bytes([len(deep) & 127 | 128, len(deep) >> 7]) + deep))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda graph: graph.node[1].input.__setitem__(0, "nowhere"), "needs 'nowhere', which no node before it gives"),
        (lambda graph: graph.node.reverse(), "which no node before it gives"),
        (lambda graph: graph.node[1].output.__setitem__(0, "x"), None),
        (lambda graph: graph.initializer.append(graph.initializer[0]), "two arrays called '0.1'"),
        (lambda graph: graph.node[0].attribute.extend(list(graph.node[0].attribute)), "has strides twice"),
        (lambda graph: [graph.node.add(op_type="Relu") for _ in range(20_000)], "20,002 nodes"),
    ],
)
def test_a_graph_that_contradicts_itself_is_damaged(change, message, saved):
    proto = graph([node("Conv", None, W, strides=[1, 1]), node("Relu", None)], FIRST)
    change(proto.graph)
    with pytest.raises(CheckpointError, match=message or "needs 'y', which no node before it gives"):
        import_model(saved(proto))


def test_a_name_that_is_no_text_is_damage(saved):
    data = graph([node("Relu", None)], FIRST).SerializeToString()
    for name in (b"n0", b"Relu"):
        with pytest.raises(CheckpointError, match="a name in it is no text"):
            import_model(saved(data.replace(name, b"\xff" * len(name))))


def test_a_file_cut_off_anywhere_or_with_any_byte_changed_is_never_a_foreign_error(saved, tmp_path):
    nodes, shape = CASES["reshape worked out"]
    whole = [
        graph(copied(nodes), shape).SerializeToString(),
        export_model(MODELS["names"], parameters_of(MODELS["names"]), tmp_path / "ours.onnx").read_bytes(),
    ]
    rng, outcomes = random.Random(3), {"read": 0, "refused": 0}  # noqa: S311 - damage that is the same each time
    for _ in range(400):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.choice([1, 1, 2, 5])):
            place = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[place] ^= 1 << rng.randrange(8)
                case 1:
                    data[place : place + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\x80" * 8])
                case 2:
                    data[place:place] = rng.randbytes(rng.randrange(1, 9))
                case _:
                    del data[place : place + rng.choice([1, 2, 20, len(data)])]
            data = data or bytearray(1)
        try:
            read_onnx(saved(bytes(data)))
            outcomes["read"] += 1
        except (CheckpointError, ModelError) as error:
            assert "model.onnx" in str(error)  # noqa: PT017 - many errors, all of them ours
            outcomes["refused"] += 1
    assert outcomes["read"] > 20
    assert outcomes["refused"] > 200


def test_any_field_of_any_node_and_array_may_hold_anything(saved):
    """What parses is changed further in: names, attributes, sizes, types."""
    rng, refused = random.Random(4), 0  # noqa: S311 - as above
    odd = [0, -1, 1, 2, 7, 1 << 40, -(1 << 63), (1 << 63) - 1]
    for _ in range(300):
        nodes, shape = CASES[rng.choice(list(CASES))]
        proto = graph(copied(nodes), shape)
        made, tensors = rng.choice(proto.graph.node), proto.graph.initializer
        match rng.randrange(7):
            case 0:
                made.op_type = rng.choice(["Conv", "Gemm", "Slice", "Reshape", "Pad", "Concat", "Squeeze", "Transpose"])
            case 1:
                made.input[:] = rng.sample(list(made.input), len(made.input))
            case 2 if made.attribute:
                made.attribute.add().CopyFrom(
                    helper.make_attribute(rng.choice(["axis", "to", "perm", "pads", "axes"]), rng.choice(odd))
                )
            case 3 if made.attribute and made.attribute[0].ints:
                made.attribute[0].ints[rng.randrange(len(made.attribute[0].ints))] = rng.choice(odd)
            case 4 if tensors:
                tensor = rng.choice(tensors)
                tensor.CopyFrom(
                    numpy_helper.from_array(np.array([rng.choice(odd) for _ in range(rng.randrange(4))]), tensor.name)
                )
            case 5 if tensors:
                rng.choice(tensors).data_type = rng.randrange(25)
            case _:
                del made.input[rng.randrange(len(made.input)) :]
        try:
            read_onnx(saved(proto))
        except (CheckpointError, ModelError):
            refused += 1
    assert 100 < refused < 300


def test_every_operator_that_is_read_is_on_the_page():
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "export-and-import.md"
    section = page.read_text(encoding="utf-8").partition("## From ONNX")[2].partition("\n## ")[0]
    assert [name for name in OPERATORS if f"`{name}`" not in section] == []
