"""What cnnkit asks about `numpy-batched`. Nothing else is imported until a backend is created.

Options:

- `threads`: how many threads share the slices of a batch; None is one for each core that the process may use. Results do
  not depend on it.
- `memory_limit`: how many bytes one program may take, a number or a text such as "200 MB"; None is no limit. Threads and
  the images that each takes at once are chosen from it. The images of a data set are not counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.backend import Backend
from cnnkit.errors import BackendOptionError
from cnnkit.plugins import Availability, hookimpl, reject_unknown_options

MOST_THREADS = 256


@hookimpl
def cnnkit_probe(device: str | None) -> Availability:
    if device not in (None, "cpu"):
        return Availability.no_device(
            f"runs on the CPU, not on {device!r}", "Leave the device out, or write device='cpu'", ["cpu"]
        )
    return Availability.ready(devices=["cpu"], versions={"numpy": np.__version__})


@hookimpl
def cnnkit_create_backend(device: str | None, precision: str, options: Mapping[str, Any]) -> Backend:  # noqa: ARG001 - the probe has seen the device
    from cnnkit_batched.backend import BatchedBackend
    from cnnkit_batched.memory import read_bytes

    reject_unknown_options("numpy-batched", options, known=["threads", "memory_limit"])
    threads = options.get("threads")
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise BackendOptionError(
            f"backend 'numpy-batched': threads is {threads!r}; expected a whole number from 1 to {MOST_THREADS}, or None "
            "for one each core. Use for example threads=2."
        )
    return BatchedBackend(precision, threads, read_bytes("numpy-batched", options.get("memory_limit")))


@hookimpl
def cnnkit_deviations() -> Path:
    return Path(__file__).with_name("conformance.toml")
