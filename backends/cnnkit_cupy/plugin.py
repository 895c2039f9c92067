"""What cnnkit asks about the backend on CuPy. CuPy is not imported until a backend is created.

Devices are "gpu", which is the first GPU, "gpu:0", "gpu:1" and so on; None is the first GPU too. It never runs on a CPU.

Options:

- `memory_limit`: how much memory on the GPU all programs of the backend may take together, in bytes or as a text such as
  "4 GB"; None is what the GPU has free. What does not fit at once is worked through in slices.
- `cudnn`: None uses cuDNN for convolutions where it is found, True takes its absence for an error, False leaves it alone.
- `graphs`: whether steps are recorded as CUDA graphs, which takes less time on the host.

`tf32`, a precision beside float32 and float64, lets the GPU round the factors of products. Arrays are float32 outside.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cnnkit.backend import Backend
from cnnkit.errors import BackendOptionError
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.plugins import Availability, Rehearsal, hookimpl, reject_unknown_options
from cnnkit_cupy import driver
from cnnkit_cupy.precisions import ROUNDED

WHEELS: Final = {"cupy-cuda12x": 12, "cupy-cuda13x": 13, "cupy-cuda11x": 11, "cupy": 0}
"""The distributions that bring CuPy, and the major version of CUDA that each is built for; 0 where its name does not tell."""

INSTALL: Final = (
    "Install it with: python -m pip install 'cnnkit[cuda13]' for a driver of 580 or later, or 'cnnkit[cuda12]' for one of 525 or "
    "later"
)
NO_CPU: Final = "This backend needs an NVIDIA GPU with its driver; on a CPU use the backend numpy-batched"


@hookimpl
def cnnkit_probe(device: str | None) -> Availability:
    spec = importlib.util.find_spec("cupy")
    if spec is None or spec.origin is None:  # not there, or only a folder of that name
        return Availability.missing("CuPy", INSTALL)
    wheels = {name: version for name in WHEELS if (version := _version(name))}
    if len(wheels) > 1:
        named = " and ".join(wheels)
        return Availability(
            "conflict",
            f"{named} are installed together, and overwrite each other",
            f"Remove all of them: python -m pip uninstall {' '.join(wheels)}, then install the one that fits the driver: {INSTALL}",
            versions=wheels,
        )
    versions = wheels or {"cupy": "unknown"}  # built in place
    found = driver.look()
    if found.reason:
        return Availability("no-device", found.reason, NO_CPU, versions=versions)
    needed = WHEELS[next(iter(versions))]
    if needed > found.cuda[0]:
        return Availability(
            "no-device",
            f"the driver runs CUDA {found.cuda[0]}.{found.cuda[1]}, and {next(iter(versions))} is built for CUDA {needed}",
            f"Update the driver, or install CuPy for CUDA {found.cuda[0]}: {INSTALL}",
            versions=versions,
        )
    devices = ["gpu", *(f"gpu:{number}" for number in range(len(found.gpus)))]
    if device is not None and device not in devices:
        gpus = ", ".join(f"gpu:{number} is a {name}" for number, name in enumerate(found.gpus))
        return Availability.no_device(f"has no device {device!r}: {gpus}", f"Use one of {', '.join(devices)}", devices)
    versions |= {"CUDA driver": f"{found.cuda[0]}.{found.cuda[1]}"}
    return Availability.ready(devices, versions)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


@hookimpl
def cnnkit_create_backend(device: str | None, precision: str, options: Mapping[str, Any]) -> Backend:
    limit, cudnn, graphs = _checked(options)

    from cnnkit_cupy.opening import open_backend  # imports CuPy: here, not above

    return open_backend(device, number_of(device), precision, limit, cudnn, graphs=graphs)


def number_of(device: str | None) -> int:
    """The number of the GPU that a device's name means; that of one that there is not where it is no name of a GPU."""
    found = re.fullmatch(r"gpu(?::([0-9]+))?", device or "gpu")
    return int(found[1] or 0) if found else -1


def _checked(options: Mapping[str, Any]) -> tuple[int | None, bool | None, bool]:
    """The options `memory_limit` in bytes, `cudnn` and `graphs`; a `BackendOptionError` for what they cannot be."""
    from cnnkit_batched.memory import read_bytes  # brings all of the engine along: here, not above

    reject_unknown_options("cupy", options, known=["memory_limit", "cudnn", "graphs"])
    cudnn, graphs = options.get("cudnn"), options.get("graphs", True)
    if cudnn not in (None, True, False) or isinstance(cudnn, int) is not isinstance(cudnn, bool):
        raise BackendOptionError(
            f"backend 'cupy': cudnn is {cudnn!r}; expected True, False, or None to use it if found."
        )
    if not isinstance(graphs, bool):
        raise BackendOptionError(f"backend 'cupy': graphs is {graphs!r}; expected True or False.")
    return read_bytes("cupy", options.get("memory_limit")), cudnn, graphs


@hookimpl
def cnnkit_rehearse(plan: Plan, optimizer: Optimizer | None, precision: str, options: Mapping[str, Any]) -> Rehearsal:
    limit, _, _ = _checked(options)

    from cnnkit_cupy.rehearsing import rehearse

    return rehearse(plan, optimizer, precision, limit)


@hookimpl
def cnnkit_precisions() -> Mapping[str, str]:
    return ROUNDED


@hookimpl
def cnnkit_deviations() -> Path:
    return Path(__file__).with_name("conformance.toml")
