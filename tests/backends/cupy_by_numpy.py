"""A stand-in for CuPy on NumPy, in which no GPU code runs: what the backend does with CuPy is what is tried here.

    gpu = Gpu(kernels)                # kernels: dtype name -> HostKernels
    card = Card(gpu.cp, 0, "float32", None, gpu.blas, None)

It is stricter than CuPy. Work is put off until somebody waits for it, as on a GPU, and while a stream records a graph it
is not done at all. Arrays do not mix with NumPy's; memory is full of NaN until it is written; pools have their limits.
`gpu.waits` lists what made the host wait, `gpu.uploads` the bytes of what was uploaded, `gpu.launches` the kernels.
The kernels are those of the GPU, run on the CPU (host_kernels.py).
"""

import contextlib
import ctypes
import weakref
from functools import partial
from types import SimpleNamespace

import numpy as np
from cudnn_by_numpy import CudnnByNumpy, Function

from cnnkit_cupy import cublas, sources

UNIT = 512
"""A pool takes memory in multiples of so many bytes, as CuPy's does."""


FMA = {"algo": 1, "status": 0, "determinism": 1, "mathType": 3}
EVERYWHERE = {"Forward": [FMA], "BackwardData": [FMA], "BackwardFilter": [FMA]}
"""What a cuDNN offers that does every convolution."""


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class CompileException(Exception):
    """As CuPy's."""


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


class CUDADriverError(RuntimeError):
    """As CuPy's."""


class Gpu:
    """One or more GPUs, each with `memory` bytes."""

    def __init__(self, kernels, memory=1 << 40, count=1, capability="90"):
        self.kernels, self.memory, self.count, self.capability = kernels, memory, count, capability
        self.taken = 0
        self.waits, self.uploads, self.launches, self.graphs = [], [], [], []
        self.queue, self.recording, self.buried = [], None, []
        self.refuses_graphs = self.interrupts = None
        self.allocators = [None]
        self.cp = make_cupy(self)
        self.blas = Cublas(self)

    def submit(self, work):
        """Put work off until somebody waits, or record it."""
        if self.recording is None:
            self.queue.append(work)
        else:
            self.recording.append(work)

    def wait(self, what):
        """The host waits for all work."""
        assert self.recording is None, f"{what} while a graph is recorded"
        self.waits.append(what)
        self.run()

    def run(self):
        """Do what was put off."""
        queue, self.queue = self.queue, []
        with np.errstate(all="ignore"):
            for work in queue:
                work()
        self.buried.clear()

    def take(self, size):
        """Memory from the allocator that is in use."""
        assert self.recording is None, "memory is taken while a graph is recorded"
        pool = self.allocators[-1] or self.default_pool
        return pool.malloc(size)


class Memory:
    """A piece of a pool, which gets it back with the last array that lies in it."""

    def __init__(self, pool, size):
        self.bytes = np.full(size + 64, 0xFF, np.uint8)  # as a float it is NaN
        self.bytes = self.bytes[-self.bytes.ctypes.data % 64 :][:size]
        weakref.finalize(self, _give_back, pool.gpu, pool.ledger, size, self.bytes)


def _give_back(gpu, ledger, size, numbers):
    if gpu.queue:
        gpu.buried.append(numbers)  # work that was put off may still use it, as on a stream
    ledger.used -= size
    if ledger.is_open:
        ledger.cached[size] = ledger.cached.get(size, 0) + 1
    else:
        gpu.taken -= size


class MemoryPool:
    """As CuPy's: what is given back is kept for the next array of that size."""

    def __init__(self, gpu):
        self.gpu, self.limit = gpu, 0
        self.ledger = SimpleNamespace(used=0, cached={}, is_open=True)
        weakref.finalize(self, _close, gpu, self.ledger)

    def malloc(self, size):
        size = max(UNIT, -(-size // UNIT) * UNIT)
        if self.ledger.cached.get(size):
            self.ledger.cached[size] -= 1
        else:
            if self.limit and self.total_bytes() + size > self.limit:
                raise OutOfMemoryError(f"{size} bytes are more than the limit of {self.limit} leaves")
            if self.gpu.taken + size > self.gpu.memory:
                self.free_all_blocks()
            if self.gpu.taken + size > self.gpu.memory:
                raise OutOfMemoryError(f"{size} bytes are more than the GPU has")
            self.gpu.taken += size
        self.ledger.used += size
        return Memory(self, size)

    def used_bytes(self):
        return self.ledger.used

    def free_bytes(self):
        return sum(size * count for size, count in self.ledger.cached.items())

    def total_bytes(self):
        return self.used_bytes() + self.free_bytes()

    def set_limit(self, size=None, fraction=None):
        assert fraction is None
        self.limit = size

    def free_all_blocks(self, stream=None):
        assert stream is None
        _clear(self.gpu, self.ledger)


def _clear(gpu, ledger):
    gpu.taken -= sum(size * count for size, count in ledger.cached.items())
    ledger.cached.clear()


def _close(gpu, ledger):
    ledger.is_open = False
    _clear(gpu, ledger)


class Pointer:
    """The `data` of an array."""

    def __init__(self, array):
        self.array, self.ptr = array, array.host.ctypes.data

    def memset_async(self, value, size, stream=None):
        host = self.array.host
        assert size == host.nbytes
        assert stream is self.array.gpu.cp_stream
        self.array.gpu.submit(lambda: host.reshape(-1).view(np.uint8).fill(value))

    def copy_from_device_async(self, source, size, stream=None):
        target, origin = self.array.host, source.array.host
        assert size == target.nbytes == origin.nbytes, "a copy of another size"
        assert target.flags.c_contiguous
        assert origin.flags.c_contiguous
        assert stream is self.array.gpu.cp_stream
        there, here = (flat.reshape(-1).view(np.uint8) for flat in (target, origin))
        self.array.gpu.submit(lambda: np.copyto(there, here))


class Array:
    """As cupy.ndarray, over `host`, which lies in `memory`."""

    __array_ufunc__ = None  # NumPy leaves operators to us, and they refuse

    def __init__(self, gpu, memory, host):
        self.gpu, self.memory, self.host = gpu, memory, host

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    strides = property(lambda self: self.host.strides)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    ndim = property(lambda self: self.host.ndim)
    data = property(Pointer)
    T = property(lambda self: self._view(self.host.T))

    def _view(self, host):
        assert host.size == 0 or np.shares_memory(host, self.host), "not a view"
        return Array(self.gpu, self.memory, host)

    def __len__(self):
        return len(self.host)

    def reshape(self, *shape):
        return self._view(self.host.reshape(*shape))

    def view(self, dtype):
        return self._view(self.host.view(dtype))

    def transpose(self, *axes):
        return self._view(self.host.transpose(*axes))

    def __getitem__(self, place):
        parts = place if isinstance(place, tuple) else (place,)
        assert all(isinstance(part, (int, slice, type(Ellipsis))) for part in parts)
        # An index gives an array of no axes in CuPy, and a number in NumPy.
        return self._view(self.host[(*parts, Ellipsis)] if Ellipsis not in parts else self.host[place])

    def __setitem__(self, place, value):
        target = self.host[place]
        if isinstance(value, Array):
            source = value.host
            assert source.shape == target.shape
        else:
            assert isinstance(value, (int, float)), f"{type(value)} is not on the GPU"
            source = value
        self.gpu.submit(lambda: np.copyto(target, source))

    def fill(self, value):
        self[...] = value

    # What makes the host wait.

    def get(self):
        self.gpu.wait("get")
        return self.host.copy()

    def set(self, arr, stream=None):
        assert isinstance(arr, np.ndarray)
        assert stream is None
        assert arr.flags.c_contiguous
        assert (arr.shape, arr.dtype) == (self.shape, self.dtype)
        self.gpu.uploads.append(arr.nbytes)
        self.gpu.submit(lambda: np.copyto(self.host, arr))  # of pinned memory; from other memory it might wait

    def __float__(self):
        self.gpu.wait("float")
        return float(self.host)

    def __bool__(self):
        self.gpu.wait("bool")
        return bool(self.host)

    def __int__(self):
        self.gpu.wait("int")
        return int(self.host)

    def item(self):
        self.gpu.wait("item")
        return self.host.item()

    def __array__(self, *_, **__):
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    # Arithmetic, for optimizers of somebody else's.

    def _compute(self, function, *others, out=None):
        sources = []
        for other in (self, *others):
            assert isinstance(other, (Array, int, float)), f"{type(other)} is not on the GPU"
            assert not isinstance(other, np.generic), "a scalar of NumPy promotes"
            sources.append(other.host if isinstance(other, Array) else other)
        if out is None:
            like = np.empty_like(
                function(*(np.ones_like(one) if isinstance(one, np.ndarray) else one for one in sources))
            )
            out = empty(self.gpu, like.shape, like.dtype)
        target = out.host
        self.gpu.submit(lambda: np.copyto(target, function(*sources), casting="same_kind"))
        return out

    def astype(self, dtype):
        return self._compute(lambda x: x.astype(dtype))

    def sum(self):
        return self._compute(np.sum)


def _operator(name):
    function = getattr(np.ndarray, f"__{name}__")
    setattr(Array, f"__{name}__", lambda self, other: self._compute(function, other))
    setattr(Array, f"__i{name}__", lambda self, other: self._compute(function, other, out=self))
    mirrored = getattr(np.ndarray, f"__r{name}__")
    setattr(Array, f"__r{name}__", lambda self, other: self._compute(mirrored, other))


for _name in ("add", "sub", "mul", "truediv", "pow"):
    _operator(_name)


def empty(gpu, shape, dtype):
    """A new array."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = gpu.take(size)
    return Array(gpu, memory, memory.bytes[:size].view(dtype).reshape(shape))


class Stream:
    def __init__(self, gpu, null=False, non_blocking=False, ptds=False, priority=None):
        assert non_blocking
        assert not null
        assert not ptds
        assert priority is None
        self.gpu, self.ptr = gpu, 77
        gpu.cp_stream = self
        self.inside = 0

    def __enter__(self):
        self.inside += 1

    def __exit__(self, *_):
        self.inside -= 1

    def synchronize(self):
        self.gpu.wait("synchronize")

    def begin_capture(self, mode=None):
        assert mode is None
        assert self.gpu.recording is None
        self.gpu.recording = []
        if self.gpu.refuses_graphs == "begin":
            self.gpu.recording = None
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")

    def end_capture(self):
        work, self.gpu.recording = self.gpu.recording, None
        if self.gpu.refuses_graphs == "end":
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        graph = Graph(self.gpu, work)
        self.gpu.graphs.append(graph)
        return graph


class Graph:
    def __init__(self, gpu, work):
        self.gpu, self.work, self.launched = gpu, work, 0

    def launch(self, stream=None):
        assert stream is self.gpu.cp_stream
        self.launched += 1
        self.gpu.queue += self.work


class Device:
    def __init__(self, gpu, device=None):
        assert device in range(gpu.count)
        self.gpu, self.id = gpu, device
        self.compute_capability = gpu.capability

    mem_info = property(lambda self: (self.gpu.memory - self.gpu.taken, self.gpu.memory))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


class RawModule:
    def __init__(self, gpu, code=None, options=()):
        assert code == sources.source()
        self.gpu = gpu
        (dtype,) = (name for name in gpu.kernels if sources.compile_options(name) == options)
        self.kernels = gpu.kernels[dtype]

    def get_function(self, name):
        assert name in sources.parameters()
        return lambda grid, block, args: self._launch(name, grid, block, args)

    def _launch(self, name, grid, block, arguments):
        assert self.gpu.cp_stream.inside, f"{name} is launched on another stream"
        if self.gpu.interrupts == name:
            raise KeyboardInterrupt
        if self.gpu.refuses_graphs == name and self.gpu.recording is not None:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
        types = {"int": np.int32, "long long": np.int64, "double": np.float64}
        values = []
        for parameter, argument in zip(sources.parameters()[name], arguments, strict=True):
            if isinstance(argument, Array):
                values.append(argument.host)
            elif parameter.is_array:
                assert argument == 0, f"{name}: {parameter.name} is {argument!r}"
                values.append(None)
            else:
                assert type(argument) is types[parameter.type]
                values.append(argument)
        self.gpu.launches.append(name)
        self.gpu.submit(lambda: self.kernels.launch(name, grid, block, values))


class Cublas:
    """The functions of cuBLAS that are used, which know addresses alone."""

    def __init__(self, gpu):
        self.gpu, self.live, self.math, self.workspace, self.stream = gpu, set(), {}, None, None
        bodies = {
            "cublasCreate_v2": self._create,
            "cublasDestroy_v2": lambda handle: self.live.remove(handle.value),
            "cublasSetStream_v2": self._set_stream,
            "cublasSetWorkspace_v2": self._set_workspace,
            "cublasSetMathMode": lambda handle, mode: self.math.update({handle.value: mode}),
            "cublasSgemm_v2": lambda *arguments: self._gemm(np.float32, *arguments),
            "cublasDgemm_v2": lambda *arguments: self._gemm(np.float64, *arguments),
            "cublasSaxpy_v2": lambda *arguments: self._axpy(np.float32, *arguments),
            "cublasDaxpy_v2": lambda *arguments: self._axpy(np.float64, *arguments),
        }
        for name, arguments in cublas.SIGNATURES.items():
            function = Function(lambda *given, body=bodies[name]: body(*given) or 0)
            function.argtypes, function.__name__ = arguments, name
            setattr(self, name, function)

    def _create(self, out):
        out._obj.value = 5000 + len(self.live)
        self.live.add(out._obj.value)

    def _set_stream(self, handle, stream):
        assert handle.value in self.live
        self.stream, self.workspace = stream, None

    def _set_workspace(self, handle, address, size):
        assert handle.value in self.live
        self.workspace = address, size

    def _ready(self, handle):
        assert handle.value in self.live
        assert self.stream == self.gpu.cp_stream.ptr
        assert self.workspace, "cuBLAS would take memory while a graph is recorded"

    def _gemm(self, dtype, handle, first, second, m, n, k, one, a, lda, b, ldb, zero, c, ldc):
        self._ready(handle)
        assert (one._obj.value, zero._obj.value) == (1, 0)
        left = _by_columns(dtype, a, lda, *((m, k) if first == 0 else (k, m)))
        right = _by_columns(dtype, b, ldb, *((k, n) if second == 0 else (n, k)))
        left, right = left.T if first else left, right.T if second else right
        out = _by_columns(dtype, c, ldc, m, n)
        self.gpu.submit(lambda: np.copyto(out, left @ right))

    def _axpy(self, dtype, handle, n, one, x, step_x, y, step_y):
        self._ready(handle)
        assert (one._obj.value, step_x, step_y) == (1, 1, 1)
        source, target = (_by_columns(dtype, each, n, n, 1) for each in (x, y))
        self.gpu.submit(lambda: np.copyto(target, target + source))


def _by_columns(dtype, address, leading, rows, columns):
    """The matrix as cuBLAS sees it."""
    assert leading >= rows, "cuBLAS refuses a leading dimension below the rows"
    size = np.dtype(dtype).itemsize
    memory = (ctypes.c_char * (((columns - 1) * leading + rows) * size)).from_address(address)
    return np.ndarray((rows, columns), dtype, memory, strides=(size, leading * size))


class Cudnn(CudnnByNumpy):
    """cuDNN whose passes are put off, or recorded."""

    def __init__(self, gpu, **how):
        super().__init__(**how)
        self.gpu = gpu
        gpu.cudnn = self

    def _run(self, *arguments):
        self.gpu.submit(partial(self._now, *arguments))

    def _now(self, *arguments):
        assert not super()._run(*arguments)


def make_cupy(gpu):
    """The names of CuPy that the backend uses, by those that CuPy has (test_stand_in.py compares)."""

    def asarray(a, dtype=None):
        assert isinstance(a, np.ndarray), f"{type(a)} is on the GPU already, or no array"
        array = empty(gpu, a.shape, dtype or a.dtype)
        gpu.uploads.append(a.nbytes)
        copy, target = a.copy(), array.host
        gpu.submit(lambda: np.copyto(target, copy))
        return array

    @contextlib.contextmanager
    def using_allocator(allocator=None):
        gpu.allocators.append(allocator.__self__)
        try:
            yield
        finally:
            gpu.allocators.pop()

    gpu.default_pool = MemoryPool(gpu)
    cuda = SimpleNamespace(
        Device=lambda device=None: Device(gpu, device),
        Stream=lambda **how: Stream(gpu, **how),
        MemoryPool=lambda: MemoryPool(gpu),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        compiler=SimpleNamespace(CompileException=CompileException),
        runtime=SimpleNamespace(
            getDeviceCount=lambda: gpu.count, runtimeGetVersion=lambda: 13020, CUDARuntimeError=CUDARuntimeError
        ),
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
        is_available=lambda: gpu.count > 0,
        using_allocator=using_allocator,
    )
    return SimpleNamespace(
        __version__="14.2.0",
        cuda=cuda,
        RawModule=lambda code=None, options=(): RawModule(gpu, code, options),
        asarray=asarray,
        empty=lambda shape, dtype=float: empty(gpu, shape, dtype),
    )
