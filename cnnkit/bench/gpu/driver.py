"""NVIDIA's driver through its C library: the card's facts, free memory, waiting, and events that tell the time.

It is the same for every engine, so that all are measured by one measure: https://docs.nvidia.com/cuda/cuda-driver-api.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any, Final, final

from cnnkit.errors import OptionError

LIBRARIES: Final = ("nvcuda.dll", "nvml.dll") if sys.platform == "win32" else ("libcuda.so.1", "libnvidia-ml.so.1")
"""The driver, and the library that knows its version."""

_CAPABILITY: Final = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class CardFacts:
    """What the driver says of a card: name, compute capability such as "9.0", memory, and versions of driver and CUDA."""

    name: str
    capability: str
    memory_mib: int
    driver: str
    cuda: str


@final
class Driver:
    """The driver, and the card number `index` of those that this process may see.

    Raises `OptionError` where there is no driver or no such card. `load` opens a library by its name.
    """

    def __init__(self, index: int = 0, load: Callable[[str], Any] = ctypes.CDLL) -> None:
        self._load = load
        try:
            self._library = load(LIBRARIES[0])
        except OSError as error:
            raise OptionError(
                f"there is no driver for NVIDIA cards here ({error}). Install NVIDIA's driver, on a machine with such a card."
            ) from error
        self._call("cuInit", 0)
        self._device = c_int()
        self._call("cuDeviceGet", byref(self._device), index)

    def attach(self) -> None:
        """Make the card that of this thread, as an engine does that uses CUDA's runtime: what follows `card` needs it."""
        context = c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(context), self._device)
        self._call("cuCtxSetCurrent", context)

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver; an `OptionError` if it fails."""
        code = getattr(self._library, name)(*arguments)
        if code:
            text = c_char_p()
            self._library.cuGetErrorName(code, byref(text))
            said = (text.value or b"an unknown error").decode()
            raise OptionError(f"the driver's {name} answers {said} ({code}). See what `nvidia-smi` says of the card.")

    def card(self) -> CardFacts:
        """The facts of the card."""
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, len(name), self._device)
        memory, version = c_size_t(), c_int()
        self._call("cuDeviceTotalMem_v2", byref(memory), self._device)
        self._call("cuDriverGetVersion", byref(version))
        capability = []
        for attribute in _CAPABILITY:
            value = c_int()
            self._call("cuDeviceGetAttribute", byref(value), attribute, self._device)
            capability.append(str(value.value))
        cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return CardFacts(name.value.decode(), ".".join(capability), memory.value >> 20, self._version(), cuda)

    def _version(self) -> str:
        """The driver's own version, such as 580.65.06; "unknown" where its library of that purpose is not there."""
        try:
            library = self._load(LIBRARIES[1])
        except OSError:
            return "unknown"
        version = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() or library.nvmlSystemGetDriverVersion(version, len(version)):
            return "unknown"
        return version.value.decode()

    def free(self) -> int:
        """The bytes of the card that nobody has taken, in any process."""
        free, total = c_size_t(), c_size_t()
        self._call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value

    def wait(self) -> None:
        """Until the card has done all that this process gave it."""
        self._call("cuCtxSynchronize")

    def microseconds(self, call: Callable[[], object], stream: int, times: int) -> float:
        """How long a `call` takes on the CUDA stream `stream`: the time between two events around `times` calls, by `times`."""
        events = []
        for _ in range(2):
            event = c_void_p()
            self._call("cuEventCreate", byref(event), 0)
            events.append(event)
        start, end = events
        self._call("cuEventRecord", start, c_void_p(stream))
        for _ in range(times):
            call()
        self._call("cuEventRecord", end, c_void_p(stream))
        self._call("cuEventSynchronize", end)
        milliseconds = c_float()
        self._call("cuEventElapsedTime", byref(milliseconds), start, end)
        for event in events:
            self._call("cuEventDestroy_v2", event)
        return 1000 * milliseconds.value / times
