"""All parameters in one vector, so that an optimizer's step is one step for all of them.

A layer sees its part of the vector through views: cnnkit's names and shapes for states, PyTorch's shapes for arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from cnnkit.arrays import Array, Parameters, Shape
from cnnkit.plan import Plan
from torch import Tensor

ALIGNMENT: Final = 16
"""Each parameter begins at a multiple of so many numbers: vector instructions like it. What lies between stays zero."""

DTYPES: Final[Mapping[str, torch.dtype]] = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class _Place:
    start: int
    shape: Shape

    def view(self, vector: Tensor) -> Tensor:
        """The parameter in cnnkit's shape.

        The kernels of a convolution lie filter by filter, `(filters, kernel_height, kernel_width, in_channels)`, which
        is what PyTorch means by channels last.
        """
        part = vector[self.start : self.start + math.prod(self.shape)]
        if len(self.shape) < 4:
            return part.view(self.shape)
        return part.view(self.shape[3], *self.shape[:3]).permute(1, 2, 3, 0)


@final
class Layout:
    """Where each parameter of a plan lies in a vector."""

    def __init__(self, plan: Plan, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.places: dict[str, _Place] = {}
        self.size = 0
        for spec in plan.parameters:
            self.places[spec.name] = _Place(self.size, spec.shape)
            self.size += -(-spec.size // ALIGNMENT) * ALIGNMENT

    def zeros(self) -> Tensor:
        """A new vector of zeros."""
        return torch.zeros(self.size, dtype=DTYPES[self.dtype.name], device="cpu")

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The parameters in `vector`, in cnnkit's names and shapes, as views of it."""
        return {name: place.view(vector) for name, place in self.places.items()}

    def pack(self, parameters: Parameters) -> Tensor:
        """A new vector that holds a copy of `parameters`."""
        vector = self.zeros()
        for name, view in self.views(vector).items():
            np.copyto(view.numpy(), parameters[name], casting="same_kind")
        return vector

    def unpack(self, vector: Tensor) -> dict[str, Array]:
        """Copies of the parameters in `vector`, in cnnkit's names and shapes, C order."""
        return {name: np.array(view.numpy(), order="C") for name, view in self.views(vector).items()}
