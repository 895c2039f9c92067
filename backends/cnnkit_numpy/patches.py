"""The patches of an image: what a convolution multiplies with its kernel, and what a pooling layer sums up."""

from __future__ import annotations

from collections.abc import Iterator

from cnnkit.arrays import Array
from cnnkit.errors import DataError
from cnnkit.plan import Pair, pair


def patches(image: Array, kernel_size: int | Pair, strides: int | Pair = 1) -> Iterator[tuple[Array, int, int]]:
    """Yield `(patch, row, col)` for every window of `image`, from the top left, row by row.

    Args:
        image: `(height, width)` or `(height, width, channels)`, any dtype.
        kernel_size: Height and width of a patch, or one number for both.
        strides: How far the window moves between neighbours, or one number for both. A convolution moves by 1; pooling
            by its own size.

    Yields:
        The patch `(kernel_height, kernel_width[, channels])`, a view of the image; and the row and column of the output
        value that belongs to it. There are `((height - kernel_height) // stride + 1)` rows, and columns alike.

    Raises:
        DataError: When the image is smaller than the kernel, or has neither two nor three axes.

    >>> import numpy as np
    >>> image = np.arange(12).reshape(3, 4)
    >>> for patch, row, col in patches(image, kernel_size=2, strides=(1, 2)):
    ...     print(row, col, patch.ravel())
    0 0 [0 1 4 5]
    0 1 [2 3 6 7]
    1 0 [4 5 8 9]
    1 1 [ 6  7 10 11]
    """
    (kernel_height, kernel_width), (down, right) = pair(kernel_size), pair(strides)
    if image.ndim not in (2, 3) or image.shape[0] < kernel_height or image.shape[1] < kernel_width:
        raise DataError(
            f"the image has shape {image.shape}; expected (height, width) or (height, width, channels) of at least "
            f"{kernel_height} x {kernel_width}, the kernel's size. Use a smaller kernel or a larger image."
        )
    for row, top in enumerate(range(0, image.shape[0] - kernel_height + 1, down)):
        for col, left in enumerate(range(0, image.shape[1] - kernel_width + 1, right)):
            yield image[top : top + kernel_height, left : left + kernel_width], row, col
