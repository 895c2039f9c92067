"""The process of one contestant. One JSON object a line each way; what was the standard output belongs to them alone.

The first request is `start`; then `train`, `predict` and `show`, in any order and as often as one likes. Whatever else
is printed goes to the standard error. Between requests the process waits in a read, and tells afterwards what its
engine's threads have burned meanwhile.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.arrays import Array
from cnnkit.bench.batches.learner import Learner
from cnnkit.bench.batches.workload import Workload


class Worker:
    """A learner, and the answers to requests about it."""

    def __init__(self) -> None:
        self.learner: Learner | None = None
        self.predicted: Array | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        given = {key: value for key, value in request.items() if key != "ask"}
        handlers: dict[str, Callable[..., dict[str, Any]]] = {
            "start": self.start,
            "train": self.train,
            "predict": self.predict,
            "show": self.show,
        }
        return handlers[request["ask"]](**given)

    def start(self, workload: Mapping[str, Any], module: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Make the workload and the learner."""
        task = Workload.from_dict(workload)
        _ = task.images, task.order  # drawn now, not when the clock runs
        self.learner = importlib.import_module(module).make(task, **options)
        return {"versions": dict(self._learner.versions), "draws_masks": self._learner.draws_masks}

    def train(self) -> dict[str, Any]:
        """One epoch: seconds, processor seconds of all threads, mean loss."""
        loss, spent = timed(self._learner.train)
        return {"loss": float(loss), **spent}

    def predict(self) -> dict[str, Any]:
        """All images once: seconds, processor seconds of all threads. The result is kept for `show`."""
        self.predicted = None  # the old result need not stand beside the new one
        self.predicted, spent = timed(self._learner.predict)
        return spent

    def show(self, path: str) -> dict[str, Any]:
        """Write the parameters, and as `predictions` what was predicted last, to an .npz file; not counted as memory."""
        assert self.predicted is not None  # noqa: S101 - it has been asked for before
        arrays: dict[str, Any] = {f"parameter {name}": it for name, it in self._learner.parameters().items()}
        np.savez(path, predictions=self.predicted, **arrays)
        return {"remarks": list(self._learner.remarks)}

    @property
    def _learner(self) -> Learner:
        assert self.learner is not None  # noqa: S101 - `start` comes first
        return self.learner


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `work` returns; the seconds it took, and those that the threads of this process worked meanwhile."""
    cpu, begin = time.process_time(), time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begin
    return result, {"seconds": seconds, "cpu": time.process_time() - cpu}


def peak_mib() -> float | None:
    """The most memory that this process has had since it began or `forget_peak`, in MiB; None on Windows.

    On Linux from /proc: what `getrusage` says there may be the memory of the process that began this one.
    """
    if sys.platform == "win32":
        return None
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource  # there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def forget_peak() -> None:
    """Begin anew with `peak_mib` from the memory in use now, where the system can (Linux); elsewhere it goes on."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5", encoding="ascii")


def serve() -> None:
    """Answer requests until there are no more."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    worker = Worker()
    peak: float | None = None
    cpu, since = time.process_time(), time.perf_counter()
    for line in requests:
        idle = {"idle_cpu": time.process_time() - cpu, "idle_seconds": time.perf_counter() - since}
        request = json.loads(line)
        try:
            answer = worker.answer(request)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is this contestant's end, and reported
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        if request["ask"] == "show":
            forget_peak()  # parameters were copied for the referee, which is no part of the work
        else:
            peak = peak_mib()
        answers.write(json.dumps({**answer, **idle, "peak_mib": peak}) + "\n")
        answers.flush()
        cpu, since = time.process_time(), time.perf_counter()
