"""cuDNN's C library: where it is and which, or why it is not to be had; its declarations; its errors as ours.

Nothing is loaded before `load` is called, and no GPU is needed for that. The names and numbers are those of cuDNN's own
headers, cudnn_graph.h, cudnn_ops.h and cudnn_cnn.h of version 9, whose functions for convolutions all 9.x libraries have.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import sys
from collections.abc import Mapping
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, final

from cnnkit.errors import BackendError

FILE: Final = "libcudnn.so.9"
IN_WHEEL: Final = Path("nvidia", "cudnn", "lib", FILE)
"""Where nvidia-cudnn-cu13 and nvidia-cudnn-cu12 put it, in a folder of `sys.path`: both at the same place."""

CUDNN_STATUS_SUCCESS: Final = 0
CUDNN_STATUS_NOT_SUPPORTED: Final = 3000
CUDNN_DATA_FLOAT: Final = 0
CUDNN_DATA_DOUBLE: Final = 1
CUDNN_TENSOR_NHWC: Final = 1
CUDNN_CROSS_CORRELATION: Final = 1
CUDNN_DETERMINISTIC: Final = 1
CUDNN_DEFAULT_MATH: Final = 0
CUDNN_TENSOR_OP_MATH: Final = 1
CUDNN_FMA_MATH: Final = 3
CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM: Final = 0
CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM: Final = 1
CUDNN_CONVOLUTION_FWD_ALGO_GEMM: Final = 2
CUDNN_CONVOLUTION_FWD_ALGO_DIRECT: Final = 3
CUDNN_CONVOLUTION_BWD_DATA_ALGO_0: Final = 0
CUDNN_CONVOLUTION_BWD_DATA_ALGO_1: Final = 1
CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0: Final = 0
CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1: Final = 1
CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3: Final = 3


class Performance(ctypes.Structure):
    """What cuDNN says about one algorithm. The three structures of its three passes are laid out alike."""

    _fields_: ClassVar = [
        ("algo", c_int),
        ("status", c_int),
        ("time", c_float),  # milliseconds, or -1 where it was not run
        ("memory", c_size_t),  # bytes of workspace
        ("determinism", c_int),
        ("mathType", c_int),
        ("reserved", c_int * 3),
    ]


DIRECTIONS: Final = ("Forward", "BackwardData", "BackwardFilter")
"""The three passes of a convolution, as cuDNN's functions spell them. Their arguments have the same types."""

_OUT, _INT_OUT, _SIZE_OUT = POINTER(c_void_p), POINTER(c_int), POINTER(c_size_t)
_HEURISTICS: Final = [*[c_void_p] * 5, c_int, _INT_OUT, POINTER(Performance)]
_RUN: Final = [*[c_void_p] * 7, c_int, c_void_p, c_size_t, *[c_void_p] * 3]

SIGNATURES: Final[Mapping[str, list[Any]]] = {
    "cudnnCreate": [_OUT],
    "cudnnDestroy": [c_void_p],
    "cudnnSetStream": [c_void_p, c_void_p],
    "cudnnCreateTensorDescriptor": [_OUT],
    "cudnnSetTensor4dDescriptor": [c_void_p, *[c_int] * 6],
    "cudnnDestroyTensorDescriptor": [c_void_p],
    "cudnnCreateFilterDescriptor": [_OUT],
    "cudnnSetFilter4dDescriptor": [c_void_p, *[c_int] * 6],
    "cudnnDestroyFilterDescriptor": [c_void_p],
    "cudnnCreateConvolutionDescriptor": [_OUT],
    "cudnnSetConvolution2dDescriptor": [c_void_p, *[c_int] * 8],
    "cudnnSetConvolutionMathType": [c_void_p, c_int],
    "cudnnDestroyConvolutionDescriptor": [c_void_p],
    "cudnnGetConvolution2dForwardOutputDim": [*[c_void_p] * 3, *[_INT_OUT] * 4],
    **{f"cudnnGetConvolution{way}AlgorithmMaxCount": [c_void_p, _INT_OUT] for way in DIRECTIONS},
    **{f"cudnnGetConvolution{way}Algorithm_v7": _HEURISTICS for way in DIRECTIONS},
    **{f"cudnnGetConvolution{way}WorkspaceSize": [*[c_void_p] * 5, c_int, _SIZE_OUT] for way in DIRECTIONS},
    **{f"cudnnConvolution{way}": _RUN for way in DIRECTIONS},
}
"""The arguments of each function that gives a `cudnnStatus_t`."""

_OTHERS: Final[Mapping[str, tuple[Any, list[Any]]]] = {
    "cudnnGetVersion": (c_size_t, []),
    "cudnnGetCudartVersion": (c_size_t, []),
    "cudnnGetErrorString": (c_char_p, [c_int]),
    "cudnnGetLastErrorString": (None, [c_char_p, c_size_t]),
}


@final
class Library:
    """cuDNN, loaded and declared. `path` is its file, `version` its (major, minor, patch), `cuda` the major it is built for.

    `functions` holds cuDNN's functions as attributes; one of them that is missing is an `AttributeError`.
    """

    def __init__(self, functions: Any, path: str) -> None:
        for name, arguments in SIGNATURES.items():
            function = getattr(functions, name)
            function.restype, function.argtypes = c_int, arguments
        for name, (result, arguments) in _OTHERS.items():
            function = getattr(functions, name)
            function.restype, function.argtypes = result, arguments
        number = functions.cudnnGetVersion()
        self.functions, self.path = functions, path
        self.version: tuple[int, int, int] = (number // 10_000, number // 100 % 100, number % 100)
        self.cuda: int = functions.cudnnGetCudartVersion() // 1000

    def __str__(self) -> str:
        return f"cuDNN {'.'.join(map(str, self.version))} for CUDA {self.cuda} ({self.path})"

    def call(self, name: str, *arguments: Any) -> None:
        """Call the function `name`; a `BackendError` with cuDNN's own words where it fails."""
        self.require_success(getattr(self.functions, name)(*arguments), name)

    def offers(self, name: str, *arguments: Any) -> bool:
        """Call the function `name`: False where cuDNN says that it does not support this, a `BackendError` where it fails."""
        status = getattr(self.functions, name)(*arguments)
        if status // 1000 * 1000 == CUDNN_STATUS_NOT_SUPPORTED:  # the category, CUDNN_STATUS_CATEGORY in the header
            return False
        self.require_success(status, name)
        return True

    def require_success(self, status: int, name: str) -> None:
        """A `BackendError` that says what `name` came to, unless that is success."""
        if status == CUDNN_STATUS_SUCCESS:
            return
        details = ctypes.create_string_buffer(1024)
        self.functions.cudnnGetLastErrorString(details, len(details))
        words = self.functions.cudnnGetErrorString(status).decode()
        because = details.value.decode(errors="replace").strip()
        raise BackendError(
            f"backend 'cupy': {name} of cuDNN {'.'.join(map(str, self.version))} failed with {words} ({status})"
            f"{f': {because}' if because else ''}. Convolutions run without cuDNN too: use cudnn=False."
        )


@dataclass(frozen=True)
class Search:
    """What came of looking for cuDNN: `library`, or None with the `reason` and the `fix`."""

    library: Library | None
    reason: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return str(self.library) if self.library else f"no cuDNN: {self.reason}. {self.fix}."

    def require(self) -> Library:
        """The library; a `BackendError` with reason and fix where there is none."""
        if self.library is None:
            raise BackendError(f"backend 'cupy' was asked for cuDNN, but {self.reason}. {self.fix}.")
        return self.library


def load(cuda: int | None = None) -> Search:
    """Load cuDNN 9: what this process has already, a wheel's, what cuda.pathfinder finds, or what the system's loader finds.

    The first of these that is there is taken or refused, never passed over: two of them do not go into one process. With
    `cuda`, the major version of the CUDA that CuPy is built for, a cuDNN that is built for another is refused.
    """
    if not sys.platform.startswith("linux"):
        return Search(None, f"cuDNN is looked for on Linux only, and this is {sys.platform}", "Leave cuDNN out")
    install = f"python -m pip install nvidia-cudnn-cu{cuda or 13}"
    path = _path_of_loaded() or _path_in_wheel() or _path_of_pathfinder() or FILE
    try:
        functions = ctypes.CDLL(path)
        library = Library(functions, _path_of_loaded() or path)
    except OSError as error:
        if path == FILE:
            return Search(None, f"cuDNN is not installed ({error})", f"Install it with: {install}")
        return Search(None, f"cuDNN does not load: {error}", f"Install it again: {install} --force-reinstall")
    except AttributeError as error:
        return Search(
            None, f"{path} is not the cuDNN 9 that is needed: {error}", f"Install another: {install} --upgrade"
        )
    if cuda is not None and library.cuda != cuda:
        replace = f"python -m pip uninstall nvidia-cudnn-cu{library.cuda}, then {install}"
        return Search(
            None, f"{library} was found, but CuPy is built for CUDA {cuda}", f"Put the other in its place: {replace}"
        )
    return Search(library)


def _path_of_loaded() -> str | None:
    """The file of a cuDNN that this process has loaded, by whomever."""
    maps = Path("/proc/self/maps")
    found = re.search(rf"/\S.*/{re.escape(FILE)}[.0-9]*$", maps.read_text() if maps.exists() else "", re.MULTILINE)
    return found[0] if found else None


def _path_in_wheel() -> str | None:
    places = (Path(folder) / IN_WHEEL for folder in sys.path)
    return next((str(place) for place in places if place.is_file()), None)


def _path_of_pathfinder() -> str | None:
    """What cuda.pathfinder finds, in conda environments too; it loads what cuDNN needs. It may not be installed itself."""
    try:
        pathfinder = importlib.import_module("cuda.pathfinder")
    except ImportError:
        return None
    try:
        return str(pathfinder.load_nvidia_dynamic_lib("cudnn").abs_path)
    except pathfinder.DynamicLibNotFoundError:
        return None
