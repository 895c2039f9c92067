"""Every primitive in the words of the array API alone: what NumPy, CuPy or any other library of that standard runs.

https://data-apis.org/array-api: no `out=`, no strided tricks, no in-place ufuncs. Quicker engines have other lines, and
are held to these by tests.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Shape
from cnnkit.plan import Conv2DOp, PaddingPair
from cnnkit_batched.engine import A, Arena, Calls, Columns, Engine, Head, Inputs, Padded, Windows


@final
class PlainEngine(Engine):
    """The primitives over the array namespace `xp`. Types are NumPy's throughout: here alone they become those of `xp`."""

    bias_in_columns = False
    pools_by_place = True
    block = 0

    def __init__(self, xp: Any, dtype: Any) -> None:
        self.xp, self.dtype, self.boolean = xp, np.dtype(dtype), np.dtype(np.bool_)
        self.real = getattr(xp, self.dtype.name)

    def empty(self, shape: Shape, dtype: Any = None) -> A:
        return self.xp.empty(shape, dtype=self.real if dtype is None else getattr(self.xp, np.dtype(dtype).name))

    def constant(self, values: NDArray[Any]) -> A:
        return self.xp.asarray(values, dtype=self.real)

    def reshaped(self, array: A, shape: Shape) -> A:
        return self.xp.reshape(array, shape, copy=False)

    def columns(self, arena: Arena, images: Shape, windows: Windows, channels: int, *, ones: bool) -> Columns:
        assert not ones  # noqa: S101 - `bias_in_columns` says so
        shape = (images[0] * images[1] * images[2], windows.area * channels)
        matrix = arena.scratch("columns", shape)
        return Columns(matrix, self.xp.reshape(matrix, (*images, *windows.size, channels)), None)

    def inputs(self, arena: Arena, x: A, *, ones: bool) -> Inputs:  # noqa: ARG002 - others need room
        assert not ones  # noqa: S101 - `bias_in_columns` says so
        return Inputs(x, [], [])

    def fill(self, array: A, value: float) -> Calls:
        def call() -> None:
            array[...] = value

        return [call]

    def copy(self, source: A, target: A) -> Calls:
        def call() -> None:
            target[...] = source

        return [call]

    def add(self, source: A, target: A) -> Calls:
        def call() -> None:
            target[...] = target + source

        return [call]

    def shift(self, array: A, offset: float) -> Calls:
        def call() -> None:
            array[...] = array + offset

        return [call]

    def multiply(self, array: A, factor: A | float, target: A) -> Calls:
        def call() -> None:
            other = factor if isinstance(factor, float) else self.xp.astype(factor, self.real)
            target[...] = array * other

        return [call]

    def product(self, left: A, right: A, out: A) -> Calls:
        def call() -> None:
            out[...] = self.xp.matmul(left, right)

        return [call]

    def product_over_rows(self, columns: A, rows: A, out: A, arena: Arena) -> Calls:  # noqa: ARG002 - others need room
        return self.product(columns.T, rows, out)

    def pad(self, image: A, padding: PaddingPair, fill: float, arena: Arena) -> Padded:
        (top, bottom), (left, right) = padding
        batch, height, width, channels = image.shape
        if not any((top, bottom, left, right)):
            return Padded(image, image, [], [], [])
        array = arena.keep((batch, top + height + bottom, left + width + right, channels))
        middle = array[:, top : top + height, left : left + width, :]
        return Padded(array, middle, self.copy(image, middle), self.copy(middle, image), self.fill(array, fill))

    def gather(self, images: A, windows: Windows, columns: Columns) -> Calls:
        places = [(row, col) for row in range(windows.size[0]) for col in range(windows.size[1])]

        def call() -> None:
            for (row, col), tap in zip(places, windows.taps(), strict=True):
                columns.values[:, :, :, row, col, :] = images[(*tap, slice(None))]

        return [call]

    def scatter(self, parts: A, windows: Windows, images: A) -> Calls:
        places = [(row, col) for row in range(windows.size[0]) for col in range(windows.size[1])]

        def call() -> None:
            images[...] = 0.0
            for (row, col), tap in zip(places, windows.taps(), strict=True):
                images[(*tap, slice(None))] = images[(*tap, slice(None))] + parts[:, :, :, row, col, :]

        return [call]

    def avg_pool(
        self, x: A, y: A, dy: A | None, dx: A | None, windows: Windows, share: NDArray[np.float64], arena: Arena
    ) -> tuple[Calls, Calls]:
        shares = self.constant(share)
        forward = [*self.sum_windows(x, windows, y), *self.multiply(y, shares, y)]
        if dy is None or dx is None:
            return forward, []
        part = arena.scratch("part", y.shape)
        return forward, [*self.multiply(dy, shares, part), *self.spread(part, windows, dx)]

    def sum_windows(self, images: A, windows: Windows, out: A) -> Calls:
        def call() -> None:
            out[...] = 0.0
            for tap in windows.taps():
                out[...] = out + images[(*tap, slice(None))]

        return [call]

    def spread(self, part: A, windows: Windows, images: A) -> Calls:
        def call() -> None:
            images[...] = 0.0
            for tap in windows.taps():
                place = (*tap, slice(None))
                images[place] = images[place] + part

        return [call]

    def turn(self, kernel: A, op: Conv2DOp, out: A) -> Calls:
        shape = (*op.kernel_size, op.input_shape[2], op.filters)

        def call() -> None:
            turned = self.xp.flip(self.xp.reshape(kernel, shape), axis=(0, 1))
            out[...] = self.xp.reshape(self.xp.permute_dims(turned, (0, 1, 3, 2)), out.shape)

        return [call]

    def bias_and_activate(self, rows: A, bias: A, function: str | None) -> Calls:
        def call() -> None:
            rows[...] = rows + bias

        return [call, *self.activate(rows, function)] if function else [call]

    def bias_back(self, y: A, dy: A, function: str | None, out: A, arena: Arena) -> Calls:
        def call() -> None:
            out[...] = self.xp.sum(dy, axis=0)

        return [*self.activate_back(y, dy, function, arena), call] if function else [call]

    def activate(self, y: A, function: str) -> Calls:
        xp = self.xp

        def relu() -> None:
            y[...] = xp.where(y <= 0, xp.zeros_like(y), y)  # NaN is not at most 0, and stays

        def tanh() -> None:
            y[...] = xp.tanh(y)

        def sigmoid() -> None:
            y[...] = 1 / (1 + xp.exp(-y))  # where exp overflows, to infinity, this is 0, as it should be

        return [{"relu": relu, "tanh": tanh, "sigmoid": sigmoid}[function]]

    def activate_back(self, y: A, dy: A, function: str, arena: Arena) -> Calls:  # noqa: ARG002 - others need room
        def relu() -> None:
            dy[...] = dy * self.xp.astype(y > 0, self.real)

        def tanh() -> None:
            dy[...] = dy * (1 - y * y)

        def sigmoid() -> None:
            dy[...] = dy * (y * (1 - y))

        return [{"relu": relu, "tanh": tanh, "sigmoid": sigmoid}[function]]

    def max_pool(self, x: A, y: A, dy: A | None, dx: A | None, windows: Windows, arena: Arena) -> tuple[Calls, Calls]:  # noqa: ARG002 - others need room
        xp = self.xp
        taps = [(*tap, slice(None)) for tap in windows.taps()]

        def forward() -> None:
            y[...] = x[taps[0]]
            for tap in taps[1:]:
                y[...] = xp.maximum(y, x[tap])

        def backward() -> None:
            dx[...] = 0.0  # type: ignore[index]
            still_open = xp.ones(y.shape, dtype=xp.bool)
            for tap in taps:
                lower = x[tap] < y  # False for the maximum, and wherever there is a NaN
                wins = xp.logical_and(still_open, xp.logical_not(lower))
                still_open = xp.logical_and(still_open, lower)
                dx[tap] = dx[tap] + dy * xp.astype(wins, self.real)  # type: ignore[index]

        return [forward], [backward] if dx is not None else []

    def largest(self, parts: A, y: A, dy: A | None, dparts: A | None, arena: Arena) -> tuple[Calls, Calls]:  # noqa: ARG002 - others need room
        xp, places = self.xp, range(parts.shape[0])

        def forward() -> None:
            y[...] = parts[0, ...]
            for place in places[1:]:
                y[...] = xp.maximum(y, parts[place, ...])

        def backward() -> None:
            still_open = xp.ones(y.shape, dtype=xp.bool)
            for place in places:
                lower = parts[place, ...] < y  # False for the maximum, and wherever there is a NaN
                wins = xp.logical_and(still_open, xp.logical_not(lower))
                still_open = xp.logical_and(still_open, lower)
                dparts[place, ...] = dy * xp.astype(wins, y.dtype)  # type: ignore[index]

        return [forward], [backward] if dparts is not None else []

    def softmax(self, scores: A, out: A) -> Calls:
        xp = self.xp

        def call() -> None:
            powers = xp.exp(scores - xp.max(scores, axis=1, keepdims=True))
            out[...] = powers / xp.sum(powers, axis=1, keepdims=True)

        return [call]

    def cross_entropy(self, scores: A, head: Head, dscores: A) -> Calls:
        xp = self.xp
        classes = xp.arange(scores.shape[1], dtype=head.labels.dtype)[None, :]

        def call() -> None:
            shifted = scores - xp.max(scores, axis=1, keepdims=True)
            powers = xp.exp(shifted)
            total = xp.sum(powers, axis=1, keepdims=True)
            at_label = head.labels[:, None] == classes
            # The difference of the scores first: next to a score of 1e30 the logarithm would be lost.
            chosen = xp.sum(xp.where(at_label, shifted, xp.zeros_like(shifted)), axis=1)
            head.losses[...] = xp.log(xp.astype(total[:, 0], xp.float64)) - xp.astype(chosen, xp.float64)
            dscores[...] = (powers / total - xp.astype(at_label, self.real)) * head.weight

        return [call]
