"""What cnnkit asks about the NumPy backend. Nothing else is imported until a backend is created."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.backend import Backend
from cnnkit.errors import BackendOptionError
from cnnkit.plugins import Availability, hookimpl, reject_unknown_options


@hookimpl
def cnnkit_probe(device: str | None) -> Availability:
    if device not in (None, "cpu"):
        return Availability(
            "no-device", f"runs on the CPU, not on {device!r}", "Leave the device out, or write device='cpu'"
        )
    return Availability.ready(devices=["cpu"], versions={"numpy": np.__version__})


@hookimpl
def cnnkit_create_backend(device: str | None, precision: str, options: Mapping[str, Any]) -> Backend:  # noqa: ARG001 - the probe has seen the device
    from cnnkit_numpy.backend import NumpyBackend

    reject_unknown_options("numpy", options, known=["threads"])
    threads = options.get("threads", 1)
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise BackendOptionError(
            f"backend 'numpy': threads is {threads!r}; expected a whole number of at least 1. Use for example threads=2."
        )
    return NumpyBackend(precision, threads)


@hookimpl
def cnnkit_deviations() -> Path:
    return Path(__file__).with_name("conformance.toml")
