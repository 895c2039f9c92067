"""What cnnkit asks about the PyTorch backend. PyTorch is not imported until a backend is created."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnkit.backend import Backend
from cnnkit.errors import BackendOptionError
from cnnkit.plan import Plan
from cnnkit.plugins import Availability, Unsupported, hookimpl, reject_unknown_options

DEVICES = ["cpu"]


@hookimpl
def cnnkit_probe(device: str | None) -> Availability:
    if importlib.util.find_spec("torch") is None:
        return Availability.missing("PyTorch", "Install it with: python -m pip install torch")
    if device not in (None, *DEVICES):
        return Availability.no_device(
            f"runs on the CPU, not on {device!r}", "Leave the device out, or write device='cpu'", DEVICES
        )
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:  # built in place, or only a folder of that name
        version = "unknown"
    return Availability.ready(DEVICES, {"torch": version})


@hookimpl
def cnnkit_create_backend(device: str | None, precision: str, options: Mapping[str, Any]) -> Backend:  # noqa: ARG001 - the probe has seen the device
    from cnnkit_torch.backend import TorchBackend  # imports PyTorch: here, not above

    reject_unknown_options("torch", options, known=["threads"])
    threads = options.get("threads")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise BackendOptionError(
            f"backend 'torch': threads is {threads!r}; expected a whole number of at least 1, or None for as many as "
            "PyTorch is set to. Use for example threads=2."
        )
    return TorchBackend(precision, threads)


@hookimpl
def cnnkit_supports(plan: Plan, device: str | None, precision: str) -> list[Unsupported]:  # noqa: ARG001 - it is the same on every device
    return []  # every model that a plan can describe


@hookimpl
def cnnkit_deviations() -> Path:
    return Path(__file__).with_name("conformance.toml")
