"""All parameters in one vector, so that an optimizer's rule runs over them once; a layer's kernel and biases are one matrix."""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np

from cnnkit.arrays import Array, Parameters
from cnnkit.plan import Conv2DOp, DenseOp, Plan
from cnnkit_batched.engine import A, Engine
from cnnkit_batched.layers import Weights

ALIGNMENT: Final = 16
"""Each layer begins at a multiple of so many numbers, so that its matrix is as well aligned as the vector. What lies between
is zero and stays zero."""


@final
class Layout:
    """Where each layer's matrix stands in the vector: `(size, filters)`, and one more row where it has biases."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.places: dict[int, tuple[int, int, int, bool]] = {}
        self.size = 0
        for op in plan.operations:
            if not isinstance(op, (Conv2DOp, DenseOp)):
                continue
            if isinstance(op, Conv2DOp):
                rows, filters = op.kernel_size[0] * op.kernel_size[1] * op.input_shape[2], op.filters
            else:
                rows, filters = op.input_shape[0], op.units
            has_bias = op.bias is not None
            self.places[op.layer] = self.size, rows, filters, has_bias
            self.size += -(-(rows + has_bias) * filters // ALIGNMENT) * ALIGNMENT

    def weights(self, engine: Engine, layer: int, vector: A, gradient: A | None) -> Weights:
        """The part of `layer` in the vector of parameters, and in that of their gradients, which may be None."""
        start, rows, filters, has_bias = self.places[layer]

        def part(whole: A) -> A:
            return engine.reshaped(whole[start : start + (rows + has_bias) * filters], (rows + has_bias, filters))

        return Weights(part(vector), None if gradient is None else part(gradient), rows, has_bias)

    def pack(self, parameters: Parameters, dtype: np.dtype[Any]) -> Array:
        """A new vector that holds a copy of `parameters`."""
        vector = np.zeros(self.size, dtype)
        for name, view in self._views(vector).items():
            np.copyto(view, parameters[name], casting="same_kind")
        return vector

    def unpack(self, vector: Array) -> dict[str, Array]:
        """Copies of the parameters in `vector`, in cnnkit's names and shapes."""
        return {name: view.copy() for name, view in self._views(vector).items()}

    def _views(self, vector: Array) -> dict[str, Array]:
        views = {}
        at = 0
        for spec in self.plan.parameters:
            if spec.name.endswith(".kernel"):
                at = self.places[spec.layer][0]
            views[spec.name] = vector[at : at + spec.size].reshape(spec.shape)
            at += spec.size
        return views
