"""What cnnkit asks about the TensorFlow backend. TensorFlow is not imported until a backend is created.

Options, each of which reaches as far as TensorFlow lets it:

- `threads`: on how many threads TensorFlow works. It has one setting for the whole process, which can no longer be
  changed when anything has run: then the option is an error, unless it asks for what is set. None leaves it alone.
- `xla`: whether XLA compiles each step and each prediction, which takes seconds for each new size of a batch.
- `deterministic`: TensorFlow's own switch, for the whole process and for good. On a CPU results are the same each time
  without it; on a GPU some of its kernels need it.
- `strategy`: who trains together, each on its part of every batch. "mirrored" is all GPUs of this process, or `replicas`
  shares of its CPU; "multi-worker" is all processes that TF_CONFIG names, each with all of its GPUs or its CPU. A worker
  waits `timeout` seconds for another. The first of them writes the run folder, or with `own_folders` each its own.

Two precisions beside float32 and float64, of which arrays are float32 outside: `tf32` lets a GPU round the factors of
float32 products, `mixed_float16` computes layers in float16 on any device. TensorFlow has one switch for TF32, so that
in two threads a call in `tf32` and one in another precision wait for each other.

A GPU is used only when it is asked for: None is the CPU. TensorFlow takes memory of GPUs as it needs it, unless it runs
already when the first backend is created: then it keeps to what whoever began it has chosen.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from cnnkit.backend import Backend
from cnnkit.errors import BackendOptionError, BackendUnavailable
from cnnkit.plugins import Availability, BackendStatus, hookimpl, reject_unknown_options
from cnnkit_tensorflow.distributed_cluster import Cluster, cluster_from
from cnnkit_tensorflow.precisions import ROUNDED, TF32

DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tf-nightly", "tf-nightly-cpu")
GPU_FIX = "Use device='cpu', or install TensorFlow with its GPU libraries: python -m pip install 'tensorflow[and-cuda]'"
CPU_BUILD_FIX = (
    "Use device='cpu', or put the build with GPUs in its place: python -m pip uninstall {}, then "
    "python -m pip install 'tensorflow[and-cuda]'"
)

MOST_THREADS: Final = 1024
"""TensorFlow starts twice as many when it first runs. With tens of thousands it hangs, and 2**31 it does not refuse here."""

TIMEOUT: Final = 300
"""How many seconds a worker waits for another, where nothing else is said."""


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
        return Availability.no_device(
            f"runs on {distribution}, which is built without GPUs", CPU_BUILD_FIX.format(distribution), ["cpu"]
        )
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
    known = ["threads", "xla", "deterministic", "strategy", "replicas", "timeout", "own_folders"]
    reject_unknown_options("tensorflow", options, known=known)
    threads = options.get("threads")
    if threads is not None and (
        isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS
    ):
        raise BackendOptionError(
            f"backend 'tensorflow': threads is {threads!r}; expected a whole number from 1 to {MOST_THREADS}, or None for "
            "as many as TensorFlow is set to. Use for example threads=2."
        )
    for name in ("xla", "deterministic", "own_folders"):
        if not isinstance(options.get(name, False), bool):
            raise BackendOptionError(f"backend 'tensorflow': {name} is {options[name]!r}; expected True or False.")
    cluster = _cluster(device, options)

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
    xla = options.get("xla", False)
    if options.get("strategy") is None:
        return TensorFlowBackend(precision, place, xla)

    from cnnkit_tensorflow import distributed_team  # imports TensorFlow too

    if cluster is None:
        team = distributed_team.mirrored(device, options.get("replicas"))
    else:
        team = distributed_team.multi_worker(cluster, device, options.get("timeout", TIMEOUT))
    leads = team.leads or options.get("own_folders", False)
    return TensorFlowBackend(precision, team.devices[0], xla, team, leads)


def _cluster(device: str | None, options: Mapping[str, Any]) -> Cluster | None:
    """The workers, where the strategy is "multi-worker". A `BackendOptionError` for options that do not go together."""
    strategy = options.get("strategy")
    if strategy not in (None, "mirrored", "multi-worker"):
        _refuse(f"strategy is {strategy!r}; expected 'mirrored', 'multi-worker' or None")
    for name, owner in (("replicas", "mirrored"), ("timeout", "multi-worker"), ("own_folders", "multi-worker")):
        if options.get(name) is not None and strategy != owner:
            _refuse(f"{name} goes with strategy={owner!r}, but strategy is {strategy!r}. Leave it out")
    if strategy is not None and device not in (None, "cpu", "gpu"):
        _refuse(
            f"strategy is {strategy!r} and takes all GPUs, but device is {device!r}. Use device='gpu', and choose GPUs "
            "with the environment variable CUDA_VISIBLE_DEVICES"
        )
    replicas, timeout = options.get("replicas"), options.get("timeout", TIMEOUT)
    if replicas is not None and (isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1):
        _refuse(f"replicas is {replicas!r}; expected a whole number of at least 1, such as 2")
    if strategy == "mirrored" and device != "gpu" and replicas is None:
        _refuse("strategy is 'mirrored' on the CPU, which is one device. Say in how many to cut it, such as replicas=2")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        _refuse(f"timeout is {timeout!r}; expected a number of seconds above 0, such as 60")
    return cluster_from(os.environ) if strategy == "multi-worker" else None


def _refuse(what: str) -> NoReturn:
    raise BackendOptionError(f"backend 'tensorflow': {what}.")


@hookimpl
def cnnkit_precisions() -> Mapping[str, str]:
    return ROUNDED


@hookimpl
def cnnkit_deviations() -> Path:
    return Path(__file__).with_name("conformance.toml")
