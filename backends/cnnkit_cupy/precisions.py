"""The precisions of this backend, and what crosses the contract in each. It imports no CuPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from cnnkit.arrays import dtype_of

TF32: Final = "tf32"
ROUNDED: Final[Mapping[str, str]] = {TF32: "factors of products rounded to 10 bits"}


def dtype_outside(precision: str) -> np.dtype[Any]:
    """The dtype of arrays, on the GPU and outside."""
    return dtype_of("float32" if precision in ROUNDED else precision)
