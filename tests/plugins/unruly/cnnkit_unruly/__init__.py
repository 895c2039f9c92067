"""Right, but a bad guest: whenever it predicts it does to the process what the option `does` names.

Everything else is done by the numpy backend.
"""

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass

from cnnkit.backend import Backend, Program
from cnnkit.plugins import Availability, get_backend, hookimpl


class Speechless(Exception):
    def __str__(self):
        raise ValueError("there are no words")


def raising(error):
    raise error


def close_streams():
    sys.stdout.close()
    sys.stderr.close()
    sys.__stderr__ = None


def replace_dumps():
    json.dumps = lambda _: "{}"


def leave():
    os.chdir(tempfile.mkdtemp())
    raise RuntimeError("gone")


def fork():
    os.fork()


def leave_a_child():
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    sys.stderr.write("the child is there\n")


def die_by_a_nameless_signal():
    os.kill(os.getpid(), signal.SIGRTMIN + 6)


DEEDS = {
    "closes-streams": close_streams,
    "replaces-dumps": replace_dumps,
    "goes-elsewhere": leave,
    "forks-and-returns": fork,
    "leaves-a-child": leave_a_child,
    "nameless-signal": die_by_a_nameless_signal,
    "says-too-much": lambda: raising(RuntimeError("x" * 5_000_000)),
    "cannot-say": lambda: raising(Speechless()),
    "colours": lambda: raising(RuntimeError("\x1b[31mred\x00\a")),
    "interrupts": lambda: raising(KeyboardInterrupt()),
}


@dataclass(frozen=True)
class UnrulyProgram(Program):
    inner: Program
    do: object

    def predict(self, images):
        answer = self.inner.predict(images)
        self.do()
        return answer


@dataclass(frozen=True)
class UnrulyBackend(Backend):
    inner: Backend
    do: object

    def compile(self, plan, parameters):
        return UnrulyProgram(self.inner.compile(plan, parameters), self.do)


@hookimpl
def cnnkit_probe():
    return Availability.ready(["cpu"])


@hookimpl
def cnnkit_create_backend(precision, options):
    return UnrulyBackend(get_backend("numpy", None, precision), DEEDS[options["does"]])


@hookimpl
def cnnkit_supports():
    if os.environ.get("UNRULY_INTERRUPTS") == "supports":
        raise KeyboardInterrupt
    return []


@hookimpl
def cnnkit_deviations():
    if os.environ.get("UNRULY_INTERRUPTS") == "deviations":
        raise KeyboardInterrupt
