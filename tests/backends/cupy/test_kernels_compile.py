"""The CUDA kernels compile for every GPU that they are meant for, with no warning and no spilled register.

NVRTC, the compiler that CuPy uses, needs neither a GPU nor a driver.
"""

import inspect
import io
import re

import numpy as np
import pytest

from cnnkit_cupy import sources

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")
IN_WORDS = ("--ptxas-options=-v", "--ptxas-options=-warn-spills")


@pytest.fixture(scope="module")
def compiled(cp, lacking):
    """A function that compiles a text and returns the binary and all that the compiler says."""
    try:
        cp.cuda.nvrtc.getVersion()
    except RuntimeError as error:  # that of cuda.pathfinder, which names the files that it has looked for
        lacking(f"NVRTC is not installed (python -m pip install nvidia-cuda-nvrtc): {error}")

    def compile_text(text, architecture, dtype, *options):
        log = io.StringIO()
        program = cp.cuda.compiler._NVRTCProgram(text, "kernels.cu", method="cubin")
        options = (*sources.compile_options(dtype), *sources.ADDED, f"-arch={architecture}", *IN_WORDS, *options)
        binary, _ = program.compile(options, log)
        return binary, log.getvalue()

    return compile_text


def complaints(log):
    """The compiler's warnings, and the lines that tell of spilled registers."""
    spills = [line for line in re.findall(r".*\bspill\b.*", log) if re.search(r"\b[1-9]\d* bytes spill", line)]
    return re.findall(r".*\bwarning [#:].*", log) + spills


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_without_warnings_and_spills(compiled, architecture, dtype):
    binary, log = compiled(sources.source(), architecture, dtype)
    assert binary.startswith(b"\x7fELF")
    assert complaints(log) == []
    told_of = re.findall(rf"Compiling entry function '(\w+)' for '{architecture}'", log)
    assert sorted(told_of) == sorted(sources.parameters())
    assert len(re.findall(r"\b0 bytes spill stores, 0 bytes spill loads", log)) >= len(told_of)
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", log)]
    assert len(registers) == len(told_of)
    assert max(registers) * sources.THREADS * 2 <= 65_536  # room for two blocks on a multiprocessor


def test_a_spill_is_seen(compiled):
    text = sources.source().replace("__launch_bounds__(THREADS, 1)", "__launch_bounds__(THREADS, 8)")  # 32 registers
    _, log = compiled(text, "sm_90", np.float32)
    assert any(
        "Registers are spilled to local memory in function 'avg_pool_backward'" in line for line in complaints(log)
    )


def test_a_warning_is_seen_with_file_and_line(compiled):
    text = sources.source().replace("REAL sum = 0;", "REAL sum = 0; int idle;", 1)
    line = sources.text_of("convolution.cu").split("REAL sum = 0;")[0].count("\n") + 1
    _, log = compiled(text, "sm_90", np.float32)
    (said,) = complaints(log)
    assert said.startswith(f"convolution.cu({line}): warning")
    assert '"idle"' in said


def test_options_are_those_of_cupy(cp):
    """Without a device CuPy's own way of compiling cannot be gone, so that its text has to do."""
    text = inspect.getsource(cp.cuda.compiler)
    assert set(re.findall(r"options \+= \('(-[^'{]*)',\)", text)) >= set(sources.ADDED)


def test_products_and_sums_are_not_contracted(cp, compiled):  # noqa: ARG001 - it says whether NVRTC is there
    """Neither are they in NumPy: the same formula gives the same bits."""
    program = cp.cuda.compiler._NVRTCProgram(sources.source())
    assembly, _ = program.compile((*sources.compile_options(np.float32), "-arch=compute_90"))
    (kernel,) = re.findall(rb"\.entry rescale\(.*?\n}", assembly, re.DOTALL)
    assert re.search(rb"mul\S*\.f32", kernel)
    assert re.search(rb"add\S*\.f32", kernel)
    assert b"fma" not in kernel
