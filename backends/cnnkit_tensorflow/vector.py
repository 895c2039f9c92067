"""All parameters in one vector, so that an optimizer's rule runs once for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
import tensorflow as tf

from cnnkit.arrays import Array, Parameters
from cnnkit.plan import Plan

ALIGNMENT: Final = 16
"""Each parameter begins at a multiple of so many numbers. TensorFlow takes an aligned slice without copying it."""


@final
class Layout:
    """Where each parameter stands in the vector. What lies between them is zero and stays zero."""

    def __init__(self, plan: Plan) -> None:
        self.shapes = {spec.name: spec.shape for spec in plan.parameters}
        self.starts: dict[str, int] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            self.starts[name] = self.size
            self.size += -(-math.prod(shape) // ALIGNMENT) * ALIGNMENT

    def pack(self, parameters: Parameters, dtype: np.dtype[Any]) -> Array:
        """A new vector on the host that holds a copy of `parameters`."""
        vector = np.zeros(self.size, dtype)
        for name, view in self.unpack(vector).items():
            np.copyto(view, parameters[name], casting="same_kind")
        return vector

    def unpack(self, vector: Any) -> dict[str, Any]:
        """The parameters in `vector`, a NumPy array or a tensor: views of an array, slices of a tensor."""
        parts = {name: vector[start : start + math.prod(self.shapes[name])] for name, start in self.starts.items()}
        reshape = np.reshape if isinstance(vector, np.ndarray) else tf.reshape
        return {name: reshape(part, self.shapes[name]) for name, part in parts.items()}

    def join(self, arrays: Mapping[str, Any], dtype: Any) -> Any:
        """A vector tensor made of one tensor for each parameter."""
        parts = []
        for name, shape in self.shapes.items():
            parts.append(tf.reshape(arrays[name], [-1]))
            gap = -math.prod(shape) % ALIGNMENT
            if gap:
                parts.append(tf.zeros([gap], dtype))
        return tf.concat(parts, 0)
