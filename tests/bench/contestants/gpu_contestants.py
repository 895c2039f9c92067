"""What stands in for a card where there is none: a driver that makes up its answers, and contestants on the numpy backend."""

import importlib
import sys

import bench_contestants
import numpy as np

from cnnkit.bench.batches.process import Failed
from cnnkit.bench.gpu.contestant import Contestant, LayerCalls
from cnnkit.bench.gpu.driver import CardFacts
from cnnkit.bench.gpu.worker import Worker, serve
from cnnkit.plan import DenseOp

CARD = CardFacts("NVIDIA Imaginary 1", "9.0", 1 << 10, "580.0", "13.0")
STATE = {"taken": 0, "released": 0}


class Driver:
    """A card of 1 GiB, of which contestants take as they like. Calls are made, and take a hundred microseconds each."""

    def __init__(self):
        self.asked = []

    def attach(self):
        self.asked.append("attach")

    def card(self):
        return CARD

    def free(self):
        return (1 << 30) - STATE["taken"]

    def wait(self):
        self.asked.append("wait")

    def microseconds(self, call, stream, times):
        self.asked.append((stream, times))
        for _ in range(min(times, 3)):  # they count for all
            call()
        return 100.0


def make(workload, way="honest", mib=8):
    """A learner of `bench_contestants`, that takes so much memory of the card."""
    if way == "no memory":
        raise MemoryError("the card is full")
    STATE["taken"] += mib << 20
    return bench_contestants.make(workload, way)


def release():
    STATE["taken"] = 0
    STATE["released"] += 1


def layer(task, way="honest"):
    """A dense layer in NumPy, whose kernel has the wrong sign where `way` is "wrong"."""
    op = task.plan.operations[0]
    if not isinstance(op, DenseOp):
        raise NotImplementedError("there are only dense layers here")
    kernel, bias = task.parameters.values()
    found, relu = {}, len(task.plan.operations) > 1

    def forward():
        y = task.x @ kernel + bias
        found["output"] = np.maximum(y, 0) if relu else y

    def backward():
        dy = task.dy * (found["output"] > 0) if relu else task.dy
        sign = -1 if way == "wrong" else 1
        found.update(kernel=task.x.T @ dy * sign, bias=dy.sum(0), input=dy @ kernel.T)

    return LayerCalls(forward, backward, lambda: dict(found), stream=5)


class Here:
    """A contestant that is asked in this process, and notes who was asked what."""

    def __init__(self, contestant, log=None):
        self.contestant, self.versions, self.closed = contestant, {}, False
        self.worker = Worker(sys.modules[__name__], Driver())
        self.log = [] if log is None else log

    def ask(self, what, **given):
        self.log.append((self.contestant.way, what, given.get("way", "")))
        try:
            return self.worker.answer({"ask": what, **given})
        except Exception as error:
            raise Failed(f"{type(error).__name__}: {error}", "") from error

    def close(self):
        self.closed = True


def contestant(way, precision="float32", library="cupy", **options):
    return Contestant(library, way, precision, __name__, {"way": way, **options})


def begin_without_a_card(module):
    """What a process runs in the place of `remote.begin`."""
    found = importlib.import_module(module)
    serve(lambda: Worker(found, Driver()))
