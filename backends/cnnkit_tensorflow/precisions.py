"""The precisions of this backend beside float32 and float64: their names, what they round, and what crosses the contract.

It imports no TensorFlow, for the plugin tells these names before a backend is created.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from cnnkit.arrays import dtype_of

TF32: Final = "tf32"
MIXED_FLOAT16: Final = "mixed_float16"

ROUNDED: Final[Mapping[str, str]] = {
    TF32: "products rounded to 10 bits",
    MIXED_FLOAT16: "layers in float16, which has 10 bits; parameters, softmax, loss and updates in float32",
}


def dtype_outside(precision: str) -> np.dtype[Any]:
    """The dtype of the arrays that cross the contract: of the precisions of our own float32."""
    return dtype_of("float32" if precision in ROUNDED else precision)
