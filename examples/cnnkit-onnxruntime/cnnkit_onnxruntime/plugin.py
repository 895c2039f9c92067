"""What cnnkit asks about the backend. ONNX Runtime is not imported until a backend is created."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cnnkit.backend import Backend
from cnnkit.errors import BackendOptionError
from cnnkit.exchange.to_onnx import too_large
from cnnkit.plan import Plan
from cnnkit.plugins import Availability, Unsupported, hookimpl, reject_unknown_options

DEVICES: Final = ["cpu"]
PACKAGES: Final = {"onnxruntime": "ONNX Runtime", "onnx": "onnx"}


@hookimpl
def cnnkit_probe(device: str | None) -> Availability:
    for package, name in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            return Availability.missing(name, f"Install it with: python -m pip install {package}")
    if device not in (None, *DEVICES):
        return Availability.no_device(
            f"runs on the CPU, not on {device!r}", "Leave the device out, or write device='cpu'", DEVICES
        )
    return Availability.ready(DEVICES, {package: _version(package) for package in PACKAGES})


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # from a distribution of another name, such as onnxruntime-gpu
        return "unknown"


@hookimpl
def cnnkit_create_backend(device: str | None, precision: str, options: Mapping[str, Any]) -> Backend:  # noqa: ARG001 - the probe has seen the device
    from cnnkit_onnxruntime.backend import OnnxRuntimeBackend  # imports ONNX Runtime: here, not above

    reject_unknown_options("onnxruntime", options, known=["threads"])
    threads = options.get("threads")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise BackendOptionError(
            f"backend 'onnxruntime': threads is {threads!r}; expected a whole number of at least 1, or None for as many "
            "as ONNX Runtime chooses. Use for example threads=2."
        )
    return OnnxRuntimeBackend(precision, threads)


@hookimpl
def cnnkit_supports(plan: Plan, device: str | None, precision: str) -> list[Unsupported]:  # noqa: ARG001 - it is the same on every device
    """Every model that a plan can describe, as far as its parameters fit the file that ONNX Runtime is given."""
    problem = too_large(plan, precision)
    if problem is None:
        return []
    return [Unsupported(problem.path, "parameters.size", f"the layer {problem.message}")]


@hookimpl
def cnnkit_deviations() -> Path:
    return Path(__file__).with_name("conformance.toml")
