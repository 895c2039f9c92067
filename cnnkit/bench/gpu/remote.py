"""A contestant's process as the tables see it, and its entry point on the other side."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from typing import Any, Final

from cnnkit.bench.batches.process import Failed, Process
from cnnkit.bench.gpu.contestant import Contestant
from cnnkit.bench.gpu.driver import Driver
from cnnkit.bench.gpu.worker import Worker, serve

__all__ = ["Failed", "Remote", "begin"]

START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); index = int(sys.argv.pop());"
    " from cnnkit.bench.gpu.remote import begin; begin(sys.argv.pop(), index)"
)


class Remote(Process):
    """A new process with the import path of this one, on the card number `index`.

    It answers the requests of `Worker` by `ask`, which raises `Failed`. `start` is the program that it runs.
    """

    def __init__(self, contestant: Contestant, index: int = 0, start: str = START) -> None:
        self.contestant = contestant
        self.versions: dict[str, str] = {}
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._process = subprocess.Popen(  # noqa: S603 - our own program, in the running interpreter
            [sys.executable, "-c", start, contestant.module, str(index), json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            encoding="utf-8",
        )

    def start(self) -> dict[str, Any]:
        """The card's facts, once the process has imported its engine."""
        return self.ask("card")


def begin(module: str, index: int) -> None:
    """What the process does: serve the contestant of `module` on the card number `index`."""
    found = importlib.import_module(module)  # at once, beside the other contestants, not when it is asked
    serve(lambda: Worker(found, Driver(index)))
