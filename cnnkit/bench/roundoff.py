"""How far rounding takes a convolution from the truth, by algorithm, and how far faults take it: the suite's threshold.

`python -m cnnkit.bench.roundoff` prints the table of docs/decisions/0006. Errors are in the conformance suite's units,
`u * sum(|w| * |x|)`, the worst of all outputs, over sizes from one channel to hundreds. Everything runs in float32.

Winograd's transforms are those of Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016), those of
F(6, 3) with the interpolation points 0, 1, -1, 2, -2, 1/2, -1/2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cnnkit.conformance.measure import THRESHOLD, errors_in_units
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.model import Conv2D, Model

Float32: TypeAlias = NDArray[np.float32]
Convolution: TypeAlias = Callable[[Float32, Float32], Float32]
"""`(images, kernel)` to the outputs of a 3 x 3 convolution without padding, `(batch, height - 2, width - 2, filters)`."""

SIZES: Final = ((14, 14, 1, 4), (14, 26, 3, 8), (38, 26, 17, 8), (26, 14, 64, 16), (14, 14, 256, 16), (14, 14, 1024, 8))
"""Height, width, channels and filters; height and width are 2 more than multiples of every tile."""


def _patches(images: Float32) -> Float32:
    """Each window's numbers in the order of the kernel: `(batch, height - 2, width - 2, 9 * channels)`."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))  # (b, h, w, channels, 3, 3)
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1)


def by_blas(images: Float32, kernel: Float32) -> Float32:
    """One matrix product."""
    return _patches(images) @ kernel.reshape(-1, kernel.shape[-1])


def one_by_one(images: Float32, kernel: Float32) -> Float32:
    """Products added one after the other: the slowest growth of precision that a correct program has."""
    patches, rows = _patches(images), kernel.reshape(-1, kernel.shape[-1])
    total = np.zeros((*patches.shape[:3], kernel.shape[-1]), np.float32)
    for place in range(len(rows)):
        total += patches[..., place, None] * rows[place]
    return total


def by_fft(images: Float32, kernel: Float32) -> Float32:
    """Products of spectra over the whole image, in complex64."""
    size = images.shape[1:3]
    spectrum = np.fft.rfft2(images, axes=(1, 2))
    taps = np.fft.rfft2(kernel[::-1, ::-1], s=size, axes=(0, 1))
    product = np.einsum("bhwc,hwcf->bhwf", spectrum, taps)
    return np.fft.irfft2(product, s=size, axes=(1, 2))[:, 2:, 2:].astype(np.float32)


_WINOGRAD: Mapping[int, tuple[Any, Any, Any]] = {
    2: (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
    6: (
        [
            [1, 0, -21 / 4, 0, 21 / 4, 0, -1, 0],
            [0, 1, 1, -17 / 4, -17 / 4, 1, 1, 0],
            [0, -1, 1, 17 / 4, -17 / 4, -1, 1, 0],
            [0, 1 / 2, 1 / 4, -5 / 2, -5 / 4, 2, 1, 0],
            [0, -1 / 2, 1 / 4, 5 / 2, -5 / 4, -2, 1, 0],
            [0, 2, 4, -5 / 2, -5, 1 / 2, 1, 0],
            [0, -2, 4, 5 / 2, -5, -1 / 2, 1, 0],
            [0, -1, 0, 21 / 4, 0, -21 / 4, 0, 1],
        ],
        [
            [1, 0, 0],
            [-2 / 9, -2 / 9, -2 / 9],
            [-2 / 9, 2 / 9, -2 / 9],
            [1 / 90, 1 / 45, 2 / 45],
            [1 / 90, -1 / 45, 2 / 45],
            [32 / 45, 16 / 45, 8 / 45],
            [32 / 45, -16 / 45, 8 / 45],
            [0, 0, 1],
        ],
        [
            [1, 1, 1, 1, 1, 1, 1, 0],
            [0, 1, -1, 2, -2, 1 / 2, -1 / 2, 0],
            [0, 1, 1, 4, 4, 1 / 4, 1 / 4, 0],
            [0, 1, -1, 8, -8, 1 / 8, -1 / 8, 0],
            [0, 1, 1, 16, 16, 1 / 16, 1 / 16, 0],
            [0, 1, -1, 32, -32, 1 / 32, -1 / 32, 1],
        ],
    ),
}


def winograd(tile: int) -> Convolution:
    """Winograd's F(tile x tile, 3 x 3)."""
    to_data, to_kernel, back = (np.array(matrix, np.float32) for matrix in _WINOGRAD[tile])

    def convolve(images: Float32, kernel: Float32) -> Float32:
        taps = np.einsum("ai,ijcf,bj->abcf", to_kernel, kernel, to_kernel, optimize=True)
        result = np.empty((len(images), images.shape[1] - 2, images.shape[2] - 2, kernel.shape[-1]), np.float32)
        for row in range(0, result.shape[1], tile):
            for column in range(0, result.shape[2], tile):
                piece = images[:, row : row + tile + 2, column : column + tile + 2]
                data = np.einsum("ai,nijc,bj->nabc", to_data, piece, to_data, optimize=True)
                product = np.einsum("nabc,abcf->nabf", data, taps, optimize=True)
                result[:, row : row + tile, column : column + tile] = np.einsum(
                    "ia,nabf,jb->nijf", back, product, back, optimize=True
                )
        return result

    return convolve


def _mantissa(array: Float32, bits: int) -> Float32:
    """`array` rounded to `bits` bits behind the first: 10 are TF32, 7 bfloat16."""
    fraction, exponent = np.frexp(array)
    rounded: Float32 = np.ldexp(np.round(fraction * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent).astype(np.float32)
    return rounded


def _in_half(images: Float32, kernel: Float32) -> Float32:
    patches, rows = _patches(images).astype(np.float16), kernel.reshape(-1, kernel.shape[-1]).astype(np.float16)
    total = np.zeros((*patches.shape[:3], kernel.shape[-1]), np.float16)
    for place in range(len(rows)):
        total += patches[..., place, None] * rows[place]
    return total.astype(np.float32)


RIGHT: Mapping[str, Convolution] = {
    "one matrix product": by_blas,
    "products one by one": one_by_one,
    "Winograd F(2, 3)": winograd(2),
    "Winograd F(4, 3)": winograd(4),
    "Winograd F(6, 3)": winograd(6),
    "FFT": by_fft,
}
WRONG: Mapping[str, Convolution] = {
    "results x 1.0005": lambda images, kernel: by_blas(images, kernel) * np.float32(1.0005),
    "TF32 inputs": lambda images, kernel: by_blas(_mantissa(images, 10), _mantissa(kernel, 10)),
    "bfloat16 inputs": lambda images, kernel: by_blas(_mantissa(images, 7), _mantissa(kernel, 7)),
    "float16 throughout": _in_half,
    "one tap left out": lambda images, kernel: by_blas(images, kernel * (np.arange(9).reshape(3, 3, 1, 1) != 5)),
}


def draw_numbers(kind: str, size: tuple[int, int, int, int], seed: int) -> tuple[Float32, Float32]:
    """Images `(2, height, width, channels)` and a kernel; `kind` is "even", "bytes" or "bright spot"."""
    height, width, channels, filters = size
    rng = np.random.default_rng(seed)
    kernel = rng.uniform(-1, 1, (3, 3, channels, filters)).astype(np.float32)
    if kind == "bytes":
        return rng.integers(0, 256, (2, height, width, channels)).astype(np.float32), kernel
    images = rng.uniform(-1, 1, (2, height, width, channels)).astype(np.float32)
    if kind == "bright spot":
        images[:, 1, 1] *= 1000
    return images, kernel


KINDS: Final = ("even", "bytes", "bright spot")


def measure(convolve: Convolution, kind: str, repeats: int = 3) -> tuple[float, float]:
    """The smallest and the largest, over sizes and seeds, of the worst error of one convolution, in units."""
    worst = []
    for size in SIZES:
        model = Model(input_shape=size[:3], layers=[Conv2D(filters=size[3], kernel_size=3, use_bias=False)])
        for seed in range(repeats):
            images, kernel = draw_numbers(kind, size, seed)
            expected = expected_answer(Question(model, {"0.kernel": kernel}, images)).numbers["output"]
            worst.append(float(errors_in_units(convolve(images, kernel), expected, "float32").max()))
    return min(worst), max(worst)


def _short(units: float) -> str:
    return f"{units:,.0f}" if units < 1e6 else f"{units / 1e6:.0f}M"


def main() -> None:
    """Print the table."""
    table = Table(
        title=f"Worst errors in units; the threshold is {THRESHOLD:g}",
        box=None,
        title_justify="left",
    )
    table.add_column("", no_wrap=True)
    for kind in KINDS:
        table.add_column(kind, justify="right", no_wrap=True)
    for name, convolve in RIGHT.items():
        table.add_row(name, *(f"{measure(convolve, kind)[1]:.1f}" for kind in KINDS))
    table.add_section()
    for name, convolve in WRONG.items():
        ranges = [measure(convolve, kind) for kind in KINDS]
        table.add_row(name, *(f"{_short(least)}-{_short(most)}" for least, most in ranges))
    Console().print(table)


if __name__ == "__main__":
    main()
