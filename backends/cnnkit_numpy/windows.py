"""Windows of an image as views, the border around it, and the way back from windows to pixels."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cnnkit.arrays import Array
from cnnkit.plan import PaddingPair, Pair


class Padded:
    """An image with a border around it, or the image itself where there is none.

    `take_in` copies the image into the middle; `hand_back` copies the middle back, for a gradient that was gathered
    with its border.
    """

    def __init__(self, image: Array, padding: PaddingPair, fill: float) -> None:
        (top, bottom), (left, right) = padding
        height, width, channels = image.shape
        self.image = image
        self.has_border = any((top, bottom, left, right))
        self.array = image
        if self.has_border:
            self.array = np.full((top + height + bottom, left + width + right, channels), fill, image.dtype)
        self.middle = self.array[top : top + height, left : left + width]

    def take_in(self) -> None:
        if self.has_border:
            np.copyto(self.middle, self.image)

    def hand_back(self) -> None:
        if self.has_border:
            np.copyto(self.image, self.middle)


def windows_of(image: Array, size: Pair, strides: Pair, dilation: Pair = (1, 1)) -> Array:
    """Every window of the image as a view `(height', width', window_height, window_width, channels)`."""
    reach = tuple(step * (length - 1) + 1 for step, length in zip(dilation, size, strict=True))
    dense = sliding_window_view(image, reach, axis=(0, 1), writeable=True)
    every = dense[:: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]
    return every.transpose(0, 1, 3, 4, 2)


def by_window(taps: Array, size: Pair) -> Array:
    """Taps `(window pixels, height', width', channels)` seen as windows `(height', width', *size, channels)`."""
    return taps.reshape(*size, *taps.shape[1:]).transpose(2, 3, 0, 1, 4)


def add_windows(total: Padded, windows: Array, parts: Array) -> None:
    """Give each pixel the sum of its parts over the windows that it is in, one window pixel at a time."""
    total.array.fill(0.0)
    for row in range(windows.shape[2]):
        for col in range(windows.shape[3]):
            windows[:, :, row, col] += parts[:, :, row, col]
    total.hand_back()
