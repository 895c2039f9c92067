"""What a graph of ONNX works out from its constants and from shapes of images, worked out as its file is read.

Exporters write the target of a Reshape as a few nodes on small arrays of whole numbers, and kernels behind a Transpose. No
array that is made here is larger than what it is made of, or than `LARGEST_MADE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import numpy as np

from cnnkit.exchange.onnx_graph import Node, Numbers, Unreadable, numbers, short

LARGEST_MADE: Final = 4096
"""Numbers in an array that is made rather than looked at in another way."""

_DTYPES: Final = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}


@final
class Batch:
    """The number of images, which a shape holds and a file leaves open. There is one: `BATCH`."""

    def __repr__(self) -> str:
        return "batch"


BATCH: Final = Batch()


def constant(node: Node) -> Numbers:
    """The array of a Constant. Raises `Unreadable`."""
    if len(node.attributes) == 1:
        match node.attributes:
            case {"value": held} if hasattr(held, "raw_data"):
                return numbers(held)
            case {"value_float": float() as number}:
                return np.array(number, np.float32)
            case {"value_floats": tuple() as many}:
                return np.array(many, np.float32)
            case {"value_int": int() as number}:
                return np.array(number, np.int64)
            case {"value_ints": tuple() as many}:
                return np.array(many, np.int64)
            case _:
                pass
    listed = ", ".join(map(short, sorted(node.attributes))) or "nothing"
    raise Unreadable(f"holds {listed}, and cnnkit reads plain numbers", "Export the model again")


def fold(node: Node, opset: int, inputs: Sequence[Numbers | None]) -> Numbers:
    """The first output of a node in `FOLDED` whose inputs are all known. Raises `Unreadable`."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(FOLDED[node.operator](_Call(node, opset, inputs)))
    except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError) as error:
        message = f"cannot be worked out from its constants ({short(str(error))})"
        raise Unreadable(message, "Export the model again") from error


class _Call:
    """A node with the arrays that go in. An error of Python or NumPy about them is caught by `fold`."""

    def __init__(self, node: Node, opset: int, inputs: Sequence[Numbers | None]) -> None:
        self.node, self.opset, self.inputs = node, opset, inputs

    def array(self, number: int) -> Numbers:
        array = self.inputs[number]
        if array is None:
            raise ValueError(f"input {number} is left out")
        if not isinstance(array, np.ndarray):
            raise ValueError(f"an input {number} that depends on the images")  # noqa: TRY004 - caught as the others are
        return array

    def attribute(self, name: str, default: Any) -> Any:
        return self.node.attributes.get(name, default)

    def listed(self, name: str, number: int, since: int) -> tuple[int, ...] | None:
        """Whole numbers that were an attribute before opset `since` and an input from it on; None where left out."""
        if self.opset < since:
            return self.attribute(name, None)  # type: ignore[no-any-return] # what is no tuple fails where it is used
        if number >= len(self.inputs) or self.inputs[number] is None:
            return None
        array = self.array(number)
        if array.dtype.kind not in "iu" or array.size > LARGEST_MADE:
            raise ValueError(f"{name} are no short list of whole numbers")
        return tuple(int(one) for one in array.reshape(-1))


def whole_numbers(node: Node, opset: int, inputs: Sequence[Numbers | None], name: str, since: int) -> Any:
    """The axes of a Squeeze, Unsqueeze or Reduce of images, from its attribute or its second input, or None."""
    try:
        return _Call(node, opset, inputs).listed(name, 1, since)
    except ValueError as error:
        raise Unreadable(f"has {short(str(error))}", "Export the model again") from error


def part_of_shape(node: Node, sizes: Numbers) -> Numbers:
    """What a Shape gives of all `sizes`: from `start` to `end`, where it has them."""
    return sizes[node.attributes.get("start") : node.attributes.get("end")]


def _bounded(count: int) -> None:
    if count > LARGEST_MADE:
        raise ValueError(f"it would make {count:,} numbers of constants")


def _cast(call: _Call) -> Numbers:
    array = call.array(0)
    if array.dtype == object:  # a shape, whose sizes are whole numbers anyway
        return array
    dtype = np.dtype(_DTYPES[call.attribute("to", None)]) if call.attribute("to", None) in _DTYPES else None
    if dtype is None:
        raise ValueError("it makes numbers of a type that cnnkit does not read")
    if array.dtype != dtype:
        _bounded(array.size)
    return array.astype(dtype, copy=False)


def _reshape(call: _Call) -> Numbers:
    array = call.array(0)
    sizes = call.listed("shape", 1, 5)
    if sizes is None:
        raise ValueError("its shape is left out")
    if not call.attribute("allowzero", 0):
        sizes = tuple(array.shape[axis] if size == 0 else size for axis, size in enumerate(sizes))
    if not array.flags.c_contiguous:  # NumPy would copy it
        _bounded(array.size)
    return array.reshape(sizes)


def _unsqueeze(call: _Call) -> Numbers:
    axes = call.listed("axes", 1, 13)
    if axes is None:
        raise ValueError("its axes are left out")
    return np.expand_dims(call.array(0), axes)


def _concat(call: _Call) -> Numbers:
    arrays = [call.array(number) for number in range(len(call.inputs))]
    _bounded(sum(array.size for array in arrays))
    if any(array.dtype == object for array in arrays):
        arrays = [array.astype(object) for array in arrays]
    return np.concatenate(arrays, axis=call.attribute("axis", None))


def _gather(call: _Call) -> Numbers:
    array, indices, axis = call.array(0), call.array(1), call.attribute("axis", 0)
    _bounded(array.size // max(array.shape[axis], 1) * indices.size)
    return np.take(array, indices, axis=axis)


def _slice(call: _Call) -> Numbers:
    starts, ends = call.listed("starts", 1, 10), call.listed("ends", 2, 10)
    axes, steps = call.listed("axes", 3, 10), call.listed("steps", 4, 10)
    if starts is None or ends is None:
        raise ValueError("where it starts and ends is left out")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    array = call.array(0)
    pieces = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0 and end < -array.shape[axis]:  # ONNX counts such an end as the place before the first
            pieces[axis] = slice(start, None, step)
            continue
        pieces[axis] = slice(start, end, step)
    return array[tuple(pieces)]


def _constant_of_shape(call: _Call) -> Numbers:
    sizes = call.array(0).reshape(-1).tolist()
    _bounded(math.prod(sizes))
    value = call.attribute("value", None)
    return np.full(sizes, np.float32(0) if value is None else numbers(value).reshape(-1)[0])


def _arithmetic(function: Callable[[Numbers, Numbers], Numbers]) -> Callable[[_Call], Numbers]:
    def work_out(call: _Call) -> Numbers:
        first, second = call.array(0), call.array(1)
        _bounded(math.prod(np.broadcast_shapes(first.shape, second.shape)))
        return np.asarray(function(first, second))

    return work_out


def _divided(first: Numbers, second: Numbers) -> Numbers:
    if first.dtype.kind == "f":
        return np.asarray(first / second)
    return np.asarray(first // second)


FOLDED: Final[dict[str, Callable[[_Call], Numbers]]] = {
    "Identity": lambda call: call.array(0),
    "Cast": _cast,
    "Reshape": _reshape,
    "Transpose": lambda call: call.array(0).transpose(call.attribute("perm", None)),
    "Unsqueeze": _unsqueeze,
    "Squeeze": lambda call: call.array(0).squeeze(call.listed("axes", 1, 13)),
    "Shape": lambda call: part_of_shape(call.node, np.array(call.array(0).shape, np.int64)),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Gather": _gather,
    "Slice": _slice,
    "Add": _arithmetic(np.add),
    "Sub": _arithmetic(np.subtract),
    "Mul": _arithmetic(np.multiply),
    "Div": _arithmetic(_divided),
}
"""What each operator makes of constants."""
