"""The operators that ONNX Runtime does not compute exactly, or not in float64, written with others that it does.

===============  ============================================  =====================================================
operator         what is wrong in ONNX Runtime 1.32            written as
===============  ============================================  =====================================================
`MaxPool`        in float32, NaN is lost, and minus infinity   the maximum of the pixels that all windows have in
                 becomes -3.4e38 where a window has padding    their first row, in their second, and so on; then of
                                                               columns in the same way
`AveragePool`    none for float64                              the sum, in the same way, by the number of pixels
`Conv`           none for float64                              pixels under the kernel side by side as channels, in
                                                               the same way, and a matrix product
===============  ============================================  =====================================================

Images have their channels first, as everywhere in ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

JOINED_BY: Final = {"MaxPool": "Max", "AveragePool": "Sum", "Conv": "Concat"}
"""What makes one of the pixels that windows have at their places."""

CHANNELS: Final = 1
HEIGHT: Final = 2
"""Axes of images; the width comes after the height."""


def exact(model: ModelProto) -> ModelProto:
    """`model`, changed to operators that ONNX Runtime computes as IEEE arithmetic says."""
    in_float64 = model.graph.input[0].type.tensor_type.elem_type == TensorProto.DOUBLE
    unwanted = set(JOINED_BY) if in_float64 else {"MaxPool"}
    rewriting = _Rewriting(model)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type in unwanted:
            rewriting.replace(node)
        else:
            model.graph.node.append(node)
    return model


class _Rewriting:
    """Appends what stands for a node to the graph; `value` is the name of what the last one appended gives."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
        self.shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in [*inferred.input, *inferred.value_info, *inferred.output]
        }
        self.numbers = {one.name: one for one in self.graph.initializer}
        self.dtype = helper.tensor_dtype_to_np_dtype(self.graph.input[0].type.tensor_type.elem_type)
        self.name = self.value = ""

    def replace(self, node: NodeProto) -> None:
        self.name, self.value = node.name, node.input[0]
        said = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        size, strides = said["kernel_shape"], said.get("strides", [1, 1])
        dilations, pads = said.get("dilations", [1, 1]), said.get("pads", [0, 0, 0, 0])
        image, output = self.shapes[node.input[0]][HEIGHT:], self.shapes[node.output[0]][HEIGHT:]
        if any(pads):
            self.pad(pads, -np.inf if node.op_type == "MaxPool" else 0.0)
        for axis in (0, 1):
            self.join(node.op_type, axis, size[axis], dilations[axis], strides[axis], output[axis])
        if node.op_type == "AveragePool":
            counts = [_pixels(image[axis], pads[axis], size[axis], strides[axis], output[axis]) for axis in (0, 1)]
            pixels = self.constant("pixels", np.outer(*counts).astype(self.dtype))
            self.append("Div", "mean", [self.value, pixels])
        elif node.op_type == "Conv":
            self.multiply(node, output)
        self.graph.node[-1].output[0] = node.output[0]

    def pad(self, pads: Sequence[int], value: float) -> None:
        top, left, bottom, right = pads
        sides = self.constant("pads", np.array([0, 0, top, left, 0, 0, bottom, right]))
        self.append("Pad", "padded", [self.value, sides, self.constant("padding", np.array(value, self.dtype))])

    def join(self, operator: str, axis: int, size: int, dilation: int, stride: int, windows: int) -> None:
        """Make one of the pixels at each of `size` places, along one axis, that `windows` windows have there."""
        whole, side = self.value, ("rows", "columns")[axis]
        along = self.constant(f"{side}.axis", np.array([HEIGHT + axis]))
        step = self.constant(f"{side}.step", np.array([stride]))
        values = []
        for place in range(size):
            first = place * dilation
            begin = self.constant(f"{side}.{place}.begin", np.array([first]))
            end = self.constant(f"{side}.{place}.end", np.array([first + (windows - 1) * stride + 1]))
            values.append(self.append("Slice", f"{side}.{place}", [whole, begin, end, along, step]))
        attributes = {"axis": CHANNELS} if operator == "Conv" else {}
        self.append(JOINED_BY[operator], side, values, **attributes)

    def multiply(self, node: NodeProto, output: Sequence[int]) -> None:
        """The kernel times what lies under it: `(filters, pixels) @ (batch, pixels, windows)`."""
        kernel = numpy_helper.to_array(self.numbers[node.input[1]])  # (filters, in_channels, height, width)
        matrix = kernel.transpose(0, 3, 2, 1).reshape(len(kernel), -1)  # pixels as `join` has laid them
        self.reshape("under", [0, matrix.shape[1], output[0] * output[1]])
        self.append("MatMul", "product", [self.constant("matrix", matrix), self.value])
        if len(node.input) > 2:
            bias = numpy_helper.to_array(self.numbers[node.input[2]])
            self.append("Add", "biased", [self.value, self.constant("bias", bias[:, np.newaxis])])
        self.reshape("image", [0, len(kernel), *output])

    def reshape(self, part: str, shape: Sequence[int]) -> None:
        """To a shape in which 0 stands for the size that is there."""
        self.append("Reshape", part, [self.value, self.constant(f"{part}.shape", np.array(shape))])

    def append(self, operator: str, part: str, inputs: Sequence[str], **attributes: Any) -> str:
        self.value = f"{self.name}.{part}"
        self.graph.node.append(helper.make_node(operator, inputs, [self.value], self.value, **attributes))
        return self.value

    def constant(self, part: str, value: NDArray[Any]) -> str:
        name = f"{self.name}.{part}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name


def _pixels(size: int, before: int, window: int, stride: int, windows: int) -> NDArray[np.int64]:
    """How many pixels, along one axis, each window holds that are not padding."""
    begins = np.arange(windows) * stride - before
    return np.minimum(begins + window, size) - np.maximum(begins, 0)
