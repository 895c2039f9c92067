"""Who takes part in which table, in an order that is the order of columns: the backend in its ways, then PyTorch in its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cnnkit import plugins
from cnnkit.bench.batches.entries import PEERS
from cnnkit.bench.gpu.contestant import Contestant
from cnnkit.errors import BackendNotFound, OptionError

_HERE: Final = "cnnkit.bench.gpu"
DEFAULT: Final = "cupy"
"""The backend that is measured unless another is named. Any that runs on an NVIDIA card can be."""
PRECISIONS: Final = ("float32", "tf32")

CONVOLUTIONS: Final[Mapping[str, Mapping[str, Any]]] = {"im2col": {"cudnn": False}, "cuDNN": {"cudnn": True}}
STEPS: Final[Mapping[str, Mapping[str, Any]]] = {"eager": {"graphs": False}, "graph": {"graphs": True}}
"""By the ways that a backend works in, the options that ask for them. One that does not have these is out, and it says so."""


def check_device(backend: str, device: str) -> int:
    """The number of the card that `device` of `backend` is. Raises `OptionError` with the reason and the fix where it is none.

    Nothing is run elsewhere instead.
    """
    found = re.fullmatch(r"gpu(?::(\d+))?", device)
    if not found:
        raise OptionError(
            f"--device is {device!r}; expected a card, such as gpu:0. `cnnkit doctor {backend}` lists them."
        )
    try:
        status = plugins.status(backend, device)
    except BackendNotFound as error:
        raise OptionError(f"--gpu needs a backend that runs on an NVIDIA GPU, and {_lower(str(error))}") from error
    if not status.ready:
        raise OptionError(
            f"--gpu needs an NVIDIA GPU, but the backend '{backend}' cannot run on {device}: {status.reason}. {status.fix}."
        )
    return int(found[1] or 0)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def torch_missing() -> str:
    """Why PyTorch does not take part; empty where it seems to be there. It is not imported."""
    if not PEERS["torch"].installed:
        return "PyTorch is not installed, so there is nothing to compare with: pip install 'cnnkit[peers]'"
    return ""


def layer_contestants(backend: str, device: str, *, torch: bool) -> list[Contestant]:
    """For single layers: im2col, cuDNN and PyTorch, in each precision."""
    return list(_contestants(backend, device, CONVOLUTIONS, torch=torch, ways_of_torch=("eager",)))


def step_contestants(backend: str, device: str, *, torch: bool) -> list[Contestant]:
    """For whole steps: eager and as a graph, in each precision."""
    return list(_contestants(backend, device, STEPS, torch=torch, ways_of_torch=tuple(STEPS)))


def inference_contestants(backend: str, device: str, *, torch: bool) -> list[Contestant]:
    """For prediction, from the host to the host: each in the way it works by itself."""
    return list(_contestants(backend, device, {"default": {}}, torch=torch, ways_of_torch=("eager",)))


def _contestants(
    backend: str, device: str, ways: Mapping[str, Mapping[str, Any]], *, torch: bool, ways_of_torch: tuple[str, ...]
) -> Iterator[Contestant]:
    number = device.partition(":")[2] or "0"
    for precision in PRECISIONS:
        for way, options in ways.items():
            given = {"backend": backend, "device": device, "precision": precision, "options": dict(options)}
            yield Contestant(backend, way, precision, f"{_HERE}.backend_side", given)
        for way in ways_of_torch if torch else ():
            asked = {"device": f"cuda:{number}", "precision": precision, "graph": way == "graph"}
            yield Contestant("torch", way, precision, f"{_HERE}.torch_side", asked)
