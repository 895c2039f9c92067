"""The CUDA kernels of the cupy backend, compiled for the CPU: no GPU code runs here, but the same source does.

    kernels = HostKernels(build(folder, np.float32), np.float32)
    kernels("dropout", x, kept, x.size, 1.25)                                  # as cnnkit_cupy.sources.prepare launches it
    kernels.launch("dropout", (4,), (256,), (x, kept, x.size, 1.25))           # by hand

Arrays are NumPy's, contiguous, of just the dtype that the kernel's parameter has; None is a null pointer.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from cnnkit_cupy import sources

HERE = Path(__file__).parent / "cupy" / "host"
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]


def compiler():
    """The path of g++, or None where it is not installed."""
    return shutil.which("g++")


def build(folder, dtype, *, sanitize=False):
    """Compile the kernels into a shared library in `folder`, unless it is there already, and return its path."""
    text = sources.source()
    # No contraction, as on the GPU. Fibers change stacks in ways that the fortified library takes for an attack.
    options = ["-std=c++17", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", *WARNINGS]
    options += ["-O1", *SANITIZERS] if sanitize else ["-O2"]
    real = next(option for option in sources.compile_options(dtype) if option.startswith("-DREAL="))
    options += [real, "-DKERNELS=" + ",".join(f"KERNEL_NAMED({name})" for name in sources.parameters())]
    code = [text, *((HERE / name).read_text() for name in ("cuda_on_host.h", "kernels.cpp"))]
    key = hashlib.sha256("\0".join([*options, *code]).encode()).hexdigest()[:16]
    library = Path(folder) / f"kernels-{key}.so"
    if not library.exists():
        work = Path(folder) / f"{key}-{os.getpid()}"
        work.mkdir(parents=True)
        (work / "kernels.cu").write_text(text)
        command = [
            compiler(),
            *options,
            f"-I{work}",
            f"-I{HERE}",
            str(HERE / "kernels.cpp"),
            "-o",
            str(work / "out.so"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (work / "out.so").rename(library)  # in one go: another process may be building the same
    return library


class HostKernels:
    """The kernels of a library that `build` made, for programs that compute in `dtype`."""

    def __init__(self, library, dtype):
        self.real = np.dtype(dtype)
        self._launch = ctypes.CDLL(str(library)).launch
        self._launch.restype = ctypes.c_char_p

    def __call__(self, name, *arguments, backward=False):
        """Launch the kernel with the geometry that the backend gives it."""
        launch = sources.prepare(name, *arguments)
        self.launch(name, launch.grid, launch.block, arguments, backward=backward)

    def launch(self, name, grid, block, arguments, *, backward=False):
        """Launch the kernel with this grid and block of one to three numbers; `backward` starts with the last threads."""
        parameters = sources.parameters()[name]
        values, sizes = [], []
        for parameter, argument in zip(parameters, arguments, strict=True):
            value, size = self._value(f"{name}: {parameter.name}", parameter, argument)
            values.append(value)
            sizes.append(size)
        count = len(values)
        pointers = (ctypes.c_void_p * count)(*(value.ctypes.data for value in values))
        failure = self._launch(
            name.encode(),
            (ctypes.c_uint * 3)(*grid, *[1] * (3 - len(grid))),
            (ctypes.c_uint * 3)(*block, *[1] * (3 - len(block))),
            pointers,
            (ctypes.c_size_t * count)(*sizes),
            count,
            int(backward),
        )
        if failure:
            raise RuntimeError(f"{name}: {failure.decode()}")

    def _value(self, what, parameter, argument):
        if not parameter.is_array:
            return np.array(
                [argument], {"int": np.int32, "long long": np.int64, "double": np.float64}[parameter.type]
            ), 0
        if argument is None:
            return np.zeros(1, np.uint64), 0
        expected = {
            "REAL*": self.real,
            "double*": np.dtype(np.float64),
            "int*": np.dtype(np.int32),
            "long long*": np.dtype(np.int64),
            "unsigned char*": np.dtype(np.uint8),
        }[parameter.type]
        assert argument.dtype == expected, f"{what} is {argument.dtype}; expected {expected}"
        assert argument.flags.c_contiguous, f"{what} is not contiguous"
        return np.array([argument.ctypes.data], np.uint64), argument.nbytes
