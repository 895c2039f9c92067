"""What NVIDIA's driver says of this computer: its version and its GPUs, asked without CuPy and within a moment."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

FILES: Final = {"win32": ("nvcuda.dll",)}
"""The driver's library by `sys.platform`; on Linux it is `libcuda.so.1`."""


@dataclass(frozen=True)
class Driver:
    """`cuda` is the (major, minor) of the newest CUDA that the driver runs, `gpus` the names of its GPUs in their order.

    `reason` says why there is none; then the rest is empty.
    """

    cuda: tuple[int, int] = (0, 0)
    gpus: tuple[str, ...] = ()
    reason: str = ""


@cache
def look() -> Driver:
    """Ask the driver. A second question in the same process gets the first answer: a driver may take seconds."""
    for name in FILES.get(sys.platform, ("libcuda.so.1", "libcuda.so")):
        try:
            return ask(ctypes.CDLL(name))
        except (OSError, AttributeError):  # not there, or without one of the functions
            continue
    return Driver(reason="no driver of NVIDIA is installed")


def ask(functions: Any) -> Driver:
    """What the driver's library answers; `functions` are its functions as attributes."""
    status = functions.cuInit(0)
    if status:
        return Driver(reason=f"NVIDIA's driver finds no GPU (cuInit fails with {status})")
    number = ctypes.c_int()
    functions.cuDriverGetVersion(ctypes.byref(number))
    cuda = number.value // 1000, number.value % 1000 // 10
    if functions.cuDeviceGetCount(ctypes.byref(number)) or not number.value:
        return Driver(cuda, reason="NVIDIA's driver is installed, but sees no GPU")
    return Driver(cuda, tuple(_name(functions, place) for place in range(number.value)))


def _name(functions: Any, place: int) -> str:
    device, text = ctypes.c_int(), ctypes.create_string_buffer(256)
    if functions.cuDeviceGet(ctypes.byref(device), place) or functions.cuDeviceGetName(text, len(text), device):
        return "unknown"
    return text.value.decode(errors="replace")
