"""A contestant's process as the race sees it: it answers, or it has failed and says how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any, Final

from cnnkit.bench.batches.entries import Entry
from cnnkit.bench.batches.workload import Workload

_START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from cnnkit.bench.batches.worker import serve; serve()"
)
_THREADS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_TAIL: Final = 4000
"""So many bytes of what was printed last are kept with a failure."""


class Failed(Exception):
    """The contestant raised an error or its process ended. `log` is what there is to be read about it."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


class Process:
    """A new process with the import path of this one, in which every engine finds the same number of threads."""

    def __init__(self, entry: Entry, workload: Workload) -> None:
        self.entry, self.workload = entry, workload
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        settings = {name: str(workload.threads) for name in _THREADS}
        self._process = subprocess.Popen(  # noqa: S603 - our own program, in the running interpreter
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            encoding="utf-8",
            env={**os.environ, **settings, "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"},
        )

    def start(self) -> dict[str, Any]:
        """Make workload and learner there."""
        entry = self.entry
        return self.ask("start", workload=self.workload.to_dict(), module=entry.module, options=dict(entry.options))

    def ask(self, what: str, **given: Any) -> dict[str, Any]:
        """The answer to a request. Raises `Failed`."""
        assert self._process.stdin is not None  # noqa: S101 - they are pipes
        assert self._process.stdout is not None  # noqa: S101 - they are pipes
        try:
            self._process.stdin.write(json.dumps({"ask": what, **given}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed(f"its process {self._how_it_ended()} when it was to {what}", self._tail())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"], answer["traceback"])
        return answer

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended itself with exit code {code}"

    def _tail(self) -> str:
        self._printed.seek(max(0, os.fstat(self._printed.fileno()).st_size - _TAIL))
        return self._printed.read().decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End it at once; it has nothing to put away."""
        self._process.kill()
        self._process.communicate()
        self._printed.close()
