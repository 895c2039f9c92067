"""The process of one contestant on the card: it makes, measures and shows what it is asked to. One JSON object a line.

Whatever else is printed goes to the standard error. How much of the card's memory the process has taken is worked out
from what is free before and after each request: one process works at a time, so nobody else's memory changes meanwhile.
"""

from __future__ import annotations

import gc
import json
import os
import traceback
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any, Final

import numpy as np

from cnnkit.arrays import Array
from cnnkit.bench.batches.learner import Learner
from cnnkit.bench.batches.worker import timed
from cnnkit.bench.batches.workload import Workload
from cnnkit.bench.gpu.contestant import LayerCalls
from cnnkit.bench.gpu.driver import Driver
from cnnkit.bench.gpu.models import LayerTask, sample

TARGET: Final = 20_000.0
"""A measurement of a layer lasts about so many microseconds, or a thousand calls: what one event costs does not count."""


class Worker:
    """A module's learner or layer, and the answers to requests about it."""

    def __init__(self, module: ModuleType, driver: Driver) -> None:
        self.module, self.driver = module, driver
        driver.attach()
        self.workload: Workload | None = None
        self.learner: Learner | None = None
        self.layer: LayerCalls | None = None
        self.predicted: Array | None = None
        self.taken = 0
        """Bytes of the card that this process has taken, and not given back, since it began."""

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request, which says how much memory the process has now."""
        given = {key: value for key, value in request.items() if key != "ask"}
        handlers: dict[str, Callable[..., dict[str, Any]]] = {
            "card": self.card,
            "prepare": self.prepare,
            "train": self.train,
            "predict": self.predict,
            "show": self.show,
            "layer": self.prepare_layer,
            "measure": self.measure,
            "drop": self.drop,
        }
        before = self.driver.free()
        answer = handlers[request["ask"]](**given)
        self.taken += before - self.driver.free()
        return {**answer, "device_mib": self.taken / 2**20}

    def card(self) -> dict[str, Any]:
        """The card's facts."""
        return asdict(self.driver.card())

    def prepare(self, workload: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Make workload and learner, after the last ones have gone."""
        self.drop()
        self.workload = self._with_images(Workload.from_dict(workload))
        self.learner = self.module.make(self.workload, **options)
        return {"versions": dict(self.learner.versions)}

    def _with_images(self, task: Workload) -> Workload:
        """`task` with all that is drawn for it, so that it is not drawn when the clock runs.

        Only the batch size changes from one table row to the next, and nothing that is drawn depends on it.
        """
        last = self.workload
        if last is not None and last == replace(task, batch_size=last.batch_size):
            size, task = task.batch_size, copy(last)
            object.__setattr__(task, "batch_size", size)
        _ = task.images, task.order
        return task

    def train(self) -> dict[str, Any]:
        """One epoch, from a card at rest until its mean loss is on the host."""
        self.driver.wait()
        loss, spent = timed(self._learner.train)
        return {"loss": float(loss), "seconds": spent["seconds"]}

    def predict(self) -> dict[str, Any]:
        """All images once, from the host to the host. The result is kept for `show`."""
        self.predicted = None
        self.driver.wait()
        self.predicted, spent = timed(self._learner.predict)
        return {"seconds": spent["seconds"]}

    def show(self, path: str) -> dict[str, Any]:
        """Write the parameters, and as `predictions` what was predicted last if anything was, to an .npz file."""
        arrays: dict[str, Any] = {f"parameter {name}": it for name, it in self._learner.parameters().items()}
        if self.predicted is not None:
            arrays["predictions"] = self.predicted
        np.savez(path, **arrays)
        return {}

    def prepare_layer(self, task: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Make one layer, go forward and back once, and tell a sample of what came out."""
        self.drop()
        self.layer = self.module.layer(LayerTask(**task), **options)
        self.layer.forward()
        self.layer.backward()
        self.driver.wait()
        return {"results": {name: sample(array) for name, array in self.layer.results().items()}}

    def measure(self, way: str) -> dict[str, Any]:
        """Microseconds of a call, "forward" or "backward", by events around enough of them."""
        assert self.layer is not None  # noqa: S101 - `layer` comes first
        call = getattr(self.layer, way)
        self.driver.wait()
        estimate = self.driver.microseconds(call, self.layer.stream, 3)
        times = max(1, min(1000, int(TARGET / max(estimate, 1e-3))))
        return {"microseconds": self.driver.microseconds(call, self.layer.stream, times)}

    def drop(self) -> dict[str, Any]:
        """Let go of learner and layer, and of the memory that the library keeps for later, if its module says how."""
        self.learner = self.layer = self.predicted = None
        gc.collect()
        getattr(self.module, "release", lambda: None)()
        return {}

    @property
    def _learner(self) -> Learner:
        assert self.learner is not None  # noqa: S101 - `prepare` comes first
        return self.learner


def serve(make: Callable[[], Worker]) -> None:
    """Answer requests until there are no more. `make` is called first: importing an engine takes its time."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    worker: Worker | None = None
    for line in requests:
        try:
            worker = worker or make()
            answer = worker.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is this contestant's end, and reported
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
