"""What is asked of NVIDIA's driver, answered by an imitation of its C library: no card is used here."""

import re
from ctypes import c_void_p

import pytest

from cnnkit.bench.gpu.driver import LIBRARIES, CardFacts, Driver
from cnnkit.errors import OptionError


class Library:
    """The driver's functions, which write where pointers say and note what they were asked."""

    def __init__(self):
        self.asked = []
        self.codes = {}
        self.free = 3 << 30
        self.elapsed = 6.0  # milliseconds
        self.handles = iter(range(100, 200))

    def __getattr__(self, name):
        if not name.startswith(("cu", "nvml")):
            raise AttributeError(name)

        def call(*arguments):
            self.asked.append((name, arguments))
            if name in self.codes:
                return self.codes[name]
            getattr(self, f"do_{name}", lambda *_: None)(*arguments)
            return 0

        return call

    def do_cuDeviceGet(self, device, index):  # noqa: N802 - the driver's name
        device._obj.value = 10 + index

    def do_cuDeviceGetName(self, text, size, device):  # noqa: N802 - the driver's name
        assert (size, device.value) == (256, 11)
        text.value = b"NVIDIA H100 80GB HBM3"

    def do_cuDeviceTotalMem_v2(self, memory, _):  # noqa: N802 - the driver's name
        memory._obj.value = 81559 << 20

    def do_cuDriverGetVersion(self, version):  # noqa: N802 - the driver's name
        version._obj.value = 12090

    def do_cuDeviceGetAttribute(self, value, attribute, _):  # noqa: N802 - the driver's name
        value._obj.value = {75: 9, 76: 0}[attribute]

    def do_nvmlSystemGetDriverVersion(self, text, _):  # noqa: N802 - the driver's name
        text.value = b"580.65.06"

    def do_cuGetErrorName(self, code, text):  # noqa: N802 - the driver's name
        text._obj.value = {100: b"CUDA_ERROR_NO_DEVICE"}.get(code)

    def do_cuMemGetInfo_v2(self, free, total):  # noqa: N802 - the driver's name
        free._obj.value, total._obj.value = self.free, 4 << 30

    def do_cuEventCreate(self, event, _):  # noqa: N802 - the driver's name
        event._obj.value = next(self.handles)

    def do_cuEventElapsedTime(self, milliseconds, start, end):  # noqa: N802 - the driver's name
        assert (start.value, end.value) == (100, 101)
        milliseconds._obj.value = self.elapsed

    def names(self):
        return [name for name, _ in self.asked]


@pytest.fixture
def library():
    return Library()


def test_the_card_is_described_by_its_driver_without_a_context(library):
    facts = Driver(1, lambda _: library).card()
    assert facts == CardFacts("NVIDIA H100 80GB HBM3", "9.0", 81559, "580.65.06", "12.9")
    assert not any("Ctx" in name for name in library.names())


def test_a_driver_whose_version_nobody_tells_is_unknown(library):
    def load(name):
        if name == LIBRARIES[1]:
            raise OSError
        return library

    assert Driver(1, load).card().driver == "unknown"
    library.codes["nvmlInit_v2"] = 9
    assert Driver(1, lambda _: library).card().driver == "unknown"


def test_a_machine_without_a_driver_is_told_so_with_what_to_do():
    def load(name):
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(OptionError, match=r"no driver for NVIDIA cards here \(.*cannot open.*Install NVIDIA's driver"):
        Driver(0, load)


@pytest.mark.parametrize(("code", "said"), [(100, "CUDA_ERROR_NO_DEVICE (100)"), (998, "an unknown error (998)")])
def test_a_call_that_fails_is_an_error_with_its_name(library, code, said):
    library.codes["cuInit"] = code
    with pytest.raises(OptionError, match=re.escape(f"the driver's cuInit answers {said}. See what `nvidia-smi` says")):
        Driver(0, lambda _: library)


def test_free_memory_is_that_of_the_card(library):
    driver = Driver(0, lambda _: library)
    driver.attach()
    assert driver.free() == 3 << 30
    assert library.names()[-3:] == ["cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuMemGetInfo_v2"]


def test_a_call_takes_what_is_between_two_events_on_its_stream_by_the_number_of_calls(library):
    driver = Driver(0, lambda _: library)
    library.asked.clear()
    spent = driver.microseconds(lambda: library.asked.append(("call", ())), stream=77, times=3)
    assert spent == pytest.approx(2000.0)  # 6 ms for three
    assert library.names() == [
        *["cuEventCreate"] * 2,
        "cuEventRecord",
        *["call"] * 3,
        "cuEventRecord",
        "cuEventSynchronize",
        "cuEventElapsedTime",
        *["cuEventDestroy_v2"] * 2,
    ]
    recorded = [arguments for name, arguments in library.asked if name == "cuEventRecord"]
    assert [event.value for event, _ in recorded] == [100, 101]
    assert all(isinstance(stream, c_void_p) and stream.value == 77 for _, stream in recorded)
