"""What a network asks of an array library: an `Engine`, which prepares calls that are then made for every slice.

A method that ends in `-> Calls` computes nothing. It returns what computes: functions without arguments, bound to arrays
that stay where they are. So whatever can be worked out once (views, shapes, launch parameters) is.

Arrays are C order with channels last; `rows` are `(batch * height * width, channels)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Shape
from cnnkit.plan import Conv2DOp, Operation, PaddingPair, Pair

if TYPE_CHECKING:
    from cnnkit_batched.layers import Layer, Site, Weights

ALIGNMENT: Final = 64
"""Bytes. A line of the cache, and the widest register."""

A: TypeAlias = Any
"""An array of the engine's library."""

Call: TypeAlias = Callable[[], object]
Calls: TypeAlias = list[Call]


@dataclass(frozen=True)
class Windows:
    """The windows over images `(batch, height, width, channels)`: `output` is how many there are down and across."""

    size: Pair
    strides: Pair
    dilation: Pair
    output: Pair

    @property
    def area(self) -> int:
        """The pixels of a window."""
        return self.size[0] * self.size[1]

    @property
    def overlap(self) -> bool:
        """Whether a pixel can be in two windows, which have no gaps: those of pools."""
        return any(stride < size for stride, size in zip(self.strides, self.size, strict=True))

    @property
    def reach(self) -> Pair:
        """The rows and columns of pixels from the first window's first to the last one's last."""
        down, across = (
            (count - 1) * stride + step * (size - 1) + 1
            for count, stride, step, size in zip(self.output, self.strides, self.dilation, self.size, strict=True)
        )
        return down, across

    def taps(self) -> Iterator[tuple[slice, slice, slice]]:
        """For each pixel of a window, row by row, where it lies in the images for all windows at once."""
        for row in range(self.size[0]):
            for col in range(self.size[1]):
                yield slice(None), self._along(0, row), self._along(1, col)

    def _along(self, axis: int, place: int) -> slice:
        start = place * self.dilation[axis]
        return slice(start, start + (self.output[axis] - 1) * self.strides[axis] + 1, self.strides[axis])

    def rows(self, first: int, count: int) -> tuple[slice, Windows]:
        """The rows of pixels that the windows `first` to `first + count` down see, and those windows on them."""
        start = first * self.strides[0]
        reach = (count - 1) * self.strides[0] + self.dilation[0] * (self.size[0] - 1) + 1
        return slice(start, start + reach), Windows(self.size, self.strides, self.dilation, (count, self.output[1]))


@dataclass(frozen=True)
class Columns:
    """A matrix with one row for each window, and perhaps a last column of ones, whose weights are the biases.

    `values` is the matrix without the ones, as `(batch, height', width', window_height, window_width, channels)`. Where
    the engine copies images before it gathers their patches, they go into `planes`, seen as the images are.
    """

    matrix: A
    values: A
    ones: A | None
    planes: A | None = None


@dataclass(frozen=True)
class Inputs:
    """The inputs of a dense layer as a matrix, perhaps with a last column of ones, and the calls that fill it."""

    matrix: A
    fill: Calls
    reset: Calls


class Arena(ABC):
    """Where the arrays of a network come from."""

    @abstractmethod
    def keep(self, shape: Shape, dtype: Any = None) -> A:
        """An array of its own, in the engine's dtype unless another is asked for."""

    @abstractmethod
    def scratch(self, name: str, shape: Shape, dtype: Any = None) -> A:
        """An array whose numbers last until the next user of `name` writes."""


class Engine(ABC):
    """The primitives of batched layers on one array library, in one dtype."""

    dtype: Any
    boolean: Any
    alignment: int = ALIGNMENT
    """At multiples of so many bytes the arrays of a block begin."""
    bias_in_columns: bool
    """Whether biases are weights of a column of ones, or are added after a product."""
    block: int
    """How many numbers of patches to work with at once; 0 for no limit. The weights of a layer may make it more."""

    pools_by_place: bool = False
    """Whether a convolution before pools that do not overlap is worked out by the places in a pool, for `largest`."""

    def largest(self, parts: A, y: A, dy: A | None, dparts: A | None, arena: Arena) -> tuple[Calls, Calls]:  # noqa: ARG002 - for engines that have it
        """`y` `(rows, channels)` is the largest of `parts` `(places, rows, channels)`; and the way back.

        On it the first that is not lower takes all of `dy`. Asked only where `pools_by_place`.
        """
        raise AssertionError(f"{type(self).__name__} does not pool by place")

    def layer(self, site: Site, op: Operation, weights: Weights | None, function: str | None) -> Layer | None:  # noqa: ARG002 - what a layer is made of
        """A layer of the engine's own; None where primitives are put together.

        Asked for every convolution and dense layer, with the `function` after it, and for Grayscale, without weights.
        """
        return None

    @abstractmethod
    def empty(self, shape: Shape, dtype: Any = None) -> A:
        """A new array, with anything in it."""

    @abstractmethod
    def constant(self, values: NDArray[Any]) -> A:
        """A new array, in the engine's dtype, with numbers of the host."""

    @abstractmethod
    def reshaped(self, array: A, shape: Shape) -> A:
        """A view of `array`, which is contiguous."""

    @abstractmethod
    def columns(self, arena: Arena, images: Shape, windows: Windows, channels: int, *, ones: bool) -> Columns:
        """Scratch columns for the patches of `windows`; `images` is `(batch, height', width')`."""

    @abstractmethod
    def inputs(self, arena: Arena, x: A, *, ones: bool) -> Inputs:
        """`x` `(batch, features)` as the matrix of a dense layer, kept until the way back."""

    @abstractmethod
    def fill(self, array: A, value: float) -> Calls:
        """`array` becomes `value` everywhere."""

    @abstractmethod
    def copy(self, source: A, target: A) -> Calls:
        """`target = source`."""

    @abstractmethod
    def add(self, source: A, target: A) -> Calls:
        """`target += source`."""

    @abstractmethod
    def shift(self, array: A, offset: float) -> Calls:
        """`array += offset`."""

    @abstractmethod
    def multiply(self, array: A, factor: A | float, target: A) -> Calls:
        """`target = array * factor`; `factor` may be boolean."""

    @abstractmethod
    def product(self, left: A, right: A, out: A) -> Calls:
        """`out = left @ right`, of matrices."""

    @abstractmethod
    def product_over_rows(self, columns: A, rows: A, out: A, arena: Arena) -> Calls:
        """`out = columns.T @ rows`, of matrices with many rows."""

    @abstractmethod
    def pad(self, image: A, padding: PaddingPair, fill: float, arena: Arena) -> Padded:
        """`image` with a border of `fill` around it, or as it is where there is none."""

    @abstractmethod
    def gather(self, images: A, windows: Windows, columns: Columns) -> Calls:
        """Write the patches of `images`, and the ones."""

    @abstractmethod
    def scatter(self, parts: A, windows: Windows, images: A) -> Calls:
        """`images` becomes, for each pixel, the sum of its `parts` `(batch, height', width', *size, channels)`."""

    @abstractmethod
    def turn(self, kernel: A, op: Conv2DOp, out: A) -> Calls:
        """`out` `(area * filters, channels)` = `kernel` `(area * channels, filters)` with its pixels in reverse order."""

    @abstractmethod
    def bias_and_activate(self, rows: A, bias: A, function: str | None) -> Calls:
        """`rows = function(rows + bias)`, in place."""

    @abstractmethod
    def bias_back(self, y: A, dy: A, function: str | None, out: A, arena: Arena) -> Calls:
        """`dy *= function'` of rows, in place, as `activate_back` does; and `out = sum of them`: the gradient of biases."""

    @abstractmethod
    def activate(self, y: A, function: str) -> Calls:
        """`y = function(y)`, in place: "relu", "tanh" or "sigmoid"."""

    @abstractmethod
    def activate_back(self, y: A, dy: A, function: str, arena: Arena) -> Calls:
        """`dy *= function'`, in place, with the derivative taken from the function's value `y`."""

    @abstractmethod
    def max_pool(self, x: A, y: A, dy: A | None, dx: A | None, windows: Windows, arena: Arena) -> tuple[Calls, Calls]:
        """The maximum of each window, and the way back, in which the first of equal maxima takes the whole gradient."""

    @abstractmethod
    def avg_pool(
        self, x: A, y: A, dy: A | None, dx: A | None, windows: Windows, share: NDArray[np.float64], arena: Arena
    ) -> tuple[Calls, Calls]:
        """The sum of each window times its `share` `(height', width', 1)`, and the way back."""

    @abstractmethod
    def softmax(self, scores: A, out: A) -> Calls:
        """Scores to probabilities, row by row."""

    @abstractmethod
    def cross_entropy(self, scores: A, head: Head, dscores: A) -> Calls:
        """`dscores` = the gradient of `head.weight` times the summed cross-entropy; `head.losses` = each image's, unweighted."""


@dataclass(frozen=True)
class Padded:
    """An image with a border: `array`, its `middle`, the calls that copy the image in and back out, and that renew the border.

    The border needs renewing only where it is read: not around a gradient, where what is written to it is left behind.
    `array` goes back to the engine that made it. All that layers do with it is to ask for its shape and to take some of the
    images, `[part, ...]`, or rows of them, `[part, band, :, :]`: an engine that counts borders in may have a record there.
    """

    array: A
    middle: A
    take_in: Calls
    hand_back: Calls
    reset: Calls


@dataclass(eq=False)
class Head:
    """What changes from slice to slice: labels `(batch,)`, the weight of each loss; and the losses `(batch,)`, float64."""

    labels: A
    losses: A
    weight: float = 1.0
