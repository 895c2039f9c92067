"""How wrong a number is, in units of what rounding alone would do to it.

A value `y` that the oracle works out in float64 comes with its `scale`, and rounding in a precision with unit roundoff
`u` is expected to move it by about `u * scale`. For a dot product the scale is `sum(|w| * |x|)`, the factor of the
classical bound (Higham, "Accuracy and stability of numerical algorithms", 2002, section 3.1); behind the first layer
the scales of the inputs are carried along to first order. The error of an answer is `|answer - y| / (u * scale)`.

One threshold holds for every size of every case: docs/decisions/0006 has the measurement behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import dtype_of

F64 = NDArray[np.float64]

THRESHOLD: Final = 128.0
"""Errors above this many units turn a case red, in every precision and at every size."""


@dataclass(frozen=True)
class Numbers:
    """What is right, and the scale of its rounding errors: two float64 arrays of the same shape."""

    value: F64
    scale: F64

    @classmethod
    def exact(cls, value: Any) -> Numbers:
        """Numbers that every engine holds without error, as inputs are."""
        array = np.asarray(value, np.float64)
        return cls(array, np.zeros_like(array))

    def __getitem__(self, rows: Any) -> Numbers:
        return Numbers(self.value[rows], self.scale[rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both arrays."""
        return self.value.shape


class Mismatch(Exception):
    """An answer that a right backend would not give. `units` is the size of the error where it can be measured."""

    def __init__(self, message: str, units: float | None = None) -> None:
        super().__init__(message)
        self.units = units


class CaseFault(AssertionError):
    """A case that proves nothing about any backend: the fault is the suite's own."""


def roundoff(precision: str) -> float:
    """The unit roundoff: half of the distance from 1 to the next number, 2**-24 in float32 and 2**-53 in float64."""
    return float(np.finfo(dtype_of(precision)).eps) / 2


def errors_in_units(answer: NDArray[Any], expected: Numbers, precision: str) -> F64:
    """The error of every element, in units. Where NaN or infinity is expected or given, 0 if they agree, else infinity.

    The smallest normal number of the precision is added to a unit, for engines may flush smaller numbers to zero.
    """
    with np.errstate(all="ignore"):  # an engine may have left NumPy in a state that raises
        given = np.asarray(answer, np.float64)
        unit = roundoff(precision) * expected.scale + float(np.finfo(dtype_of(precision)).tiny)
        units = np.abs(given - expected.value) / unit
    finite = np.isfinite(expected.value)
    if not np.isfinite(expected.scale[finite]).all():
        raise CaseFault("the oracle gives a finite value without a finite scale: the case proves nothing")
    same = (given == expected.value) | (np.isnan(given) & np.isnan(expected.value))
    result: F64 = np.where(finite & np.isfinite(given), units, np.where(same, 0.0, np.inf))
    return result


def compare(what: str, answer: Any, expected: Numbers, precision: str, threshold: float = THRESHOLD) -> float:
    """The worst error of `answer` in units; a `Mismatch` that points at it if it is above `threshold`."""
    array = np.asarray(answer)
    if array.shape != expected.shape:
        raise Mismatch(f"{what} has shape {array.shape}; expected {expected.shape}")
    units = errors_in_units(array, expected, precision)
    if units.size == 0:
        return 0.0
    place = np.unravel_index(int(np.argmax(units)), units.shape)
    worst = float(units[place])
    if worst > threshold:
        wrong = int((units > threshold).sum())
        where = f"[{', '.join(str(int(index)) for index in place)}]" if place else ""
        size = f"{worst:,.0f}" if worst < 1e9 else f"{worst:.1e}"
        size += f" units, {wrong:,} of {units.size:,} numbers are more than {threshold:g} units wrong"
        digits = 9 if precision == "float32" else 17  # as many as tell two numbers apart
        raise Mismatch(
            f"{what}{where} is {float(array[place]):.{digits}g}; expected {float(expected.value[place]):.{digits}g} "
            f"({size if np.isfinite(worst) else f'{wrong:,} of {units.size:,} numbers are wrong'})",
            worst,
        )
    return worst
