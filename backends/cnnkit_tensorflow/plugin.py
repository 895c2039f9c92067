"""What cnnkit asks about the TensorFlow backend. TensorFlow is not imported until a backend is created.

Options, each of which reaches as far as TensorFlow lets it:

- `threads`: on how many threads TensorFlow works. It has one setting for the whole process, which can no longer be
  changed when anything has run: then the option is an error, unless it asks for what is set. None leaves it alone.
- `xla`: whether XLA compiles each step and each prediction, which takes seconds for each new size of a batch.
- `deterministic`: TensorFlow's own switch, for the whole process and for good. On a CPU results are the same each time
  without it; on a GPU some of its kernels need it.

Two precisions beside float32 and float64, of which arrays are float32 outside: `tf32` lets a GPU round the factors of
float32 products, `mixed_float16` computes layers in float16 on any device. TensorFlow has one switch for TF32, so that
in two threads a call in `tf32` and one in another precision wait for each other.

A GPU is used only when it is asked for: None is the CPU. TensorFlow takes memory of GPUs as it needs it, unless it runs
already when the first backend is created: then it keeps to what whoever began it has chosen.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnkit.backend import Backend
from cnnkit.errors import BackendOptionError, BackendUnavailable
from cnnkit.plugins import Availability, BackendStatus, hookimpl, reject_unknown_options
from cnnkit_tensorflow.precisions import ROUNDED, TF32

DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tf-nightly", "tf-nightly-cpu")
GPU_FIX = "Use device='cpu', or install TensorFlow with its GPU libraries: python -m pip install 'tensorflow[and-cuda]'"


@hookimpl
def cnnkit_probe(device: str | None) -> Availability:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:  # not there, or only a folder of that name
        return Availability.missing("TensorFlow", "Install it with: python -m pip install 'cnnkit[tensorflow]'")
    distribution, version = _installed()
    if device is not None and not re.fullmatch(r"cpu|gpu(:[0-9]+)?", str(device)):
        return Availability.no_device(
            f"has no device {device!r}",
            "Use device='cpu', device='gpu' or, for the second GPU, device='gpu:1'",
            ["cpu"],
        )
    if device not in (None, "cpu") and distribution.endswith("-cpu"):
        return Availability.no_device(f"runs on {distribution}, which is built without GPUs", GPU_FIX, ["cpu"])
    return Availability.ready(["cpu"], {distribution: version})


def _installed() -> tuple[str, str]:
    """The distribution that brings TensorFlow, and its version."""
    for name in DISTRIBUTIONS:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "tensorflow", "unknown"  # built in place


@hookimpl
def cnnkit_create_backend(device: str | None, precision: str, options: Mapping[str, Any]) -> Backend:
    reject_unknown_options("tensorflow", options, known=["threads", "xla", "deterministic"])
    threads = options.get("threads")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise BackendOptionError(
            f"backend 'tensorflow': threads is {threads!r}; expected a whole number of at least 1, or None for as many "
            "as TensorFlow is set to. Use for example threads=2."
        )
    for name in ("xla", "deterministic"):
        if not isinstance(options.get(name, False), bool):
            raise BackendOptionError(f"backend 'tensorflow': {name} is {options[name]!r}; expected True or False.")

    drawn_so_far = random.getstate()
    try:
        from cnnkit_tensorflow import settings  # imports TensorFlow: here, not above
        from cnnkit_tensorflow.backend import TensorFlowBackend
    finally:
        random.setstate(drawn_so_far)  # an import of TensorFlow draws numbers, which others would miss

    place, reason = settings.find_device(device)
    if reason:
        status = BackendStatus("tensorflow", "no-device", f"{reason}, so there is no {device!r}", GPU_FIX, ("cpu",))
        raise BackendUnavailable(f"Backend 'tensorflow' is not ready (no-device): {status.reason}. {GPU_FIX}.", status)
    if precision == TF32 and (why := settings.why_no_tf32(place)):
        raise BackendOptionError(
            f"backend 'tensorflow': precision is 'tf32' on {device or 'cpu'}, but {why}. Use a GPU that has it, such as "
            "device='gpu', or precision='float32'."
        )
    if threads is not None:
        settings.use_threads(threads)
    if options.get("deterministic", False):
        settings.be_deterministic()
    return TensorFlowBackend(precision, place, options.get("xla", False))


@hookimpl
def cnnkit_precisions() -> Mapping[str, str]:
    return ROUNDED


@hookimpl
def cnnkit_deviations() -> Path:
    return Path(__file__).with_name("conformance.toml")
