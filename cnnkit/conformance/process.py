"""A worker as its runner sees it: it answers in time, or it has ended and says how."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Final, Literal

TAIL: Final = 4000
"""So many bytes of what was printed last are kept with a crash."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from cnnkit.conformance.worker import main; main()"
)


class Lost(Exception):
    """The worker gave no answer that can be used.

    `error` says in a word or two what came instead, and `traceback` is what there is to be read about it.
    """

    def __init__(self, stage: Literal["crash", "timeout"], error: str, message: str, traceback: str) -> None:
        super().__init__(message)
        self.stage, self.error, self.traceback = stage, error, traceback


class Ended(Lost):
    """The worker crashed, or was killed because it gave no answer in time.

    `error` is the name of the signal, `exit code N`, or `timeout`; `traceback` is the end of what it wrote.
    """


class SuiteFault(Lost):
    """Something went wrong in the suite's own part of the worker. `traceback` says where."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__("crash", "SuiteFault", message, traceback)


class WorkerProcess:
    """A new process that runs `cnnkit.conformance.worker`, with the import path of this one."""

    def __init__(self) -> None:
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._mark = 0
        self._process = subprocess.Popen(  # noqa: S603 - our own program, in the running interpreter
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=os.name == "posix",  # so that it can be killed with all that it has started
        )
        self._asked = 0
        self._over = False
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name="answers", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(self, time_limit: float, /, **request: Any) -> dict[str, Any]:
        """The answer to a request. Raises `Ended` where none came within `time_limit` seconds, or else `SuiteFault`."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._asked += 1
        self._mark = os.fstat(self._printed.fileno()).st_size
        try:
            self._process.stdin.write(json.dumps({"number": self._asked, **request}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        deadline = time.monotonic() + time_limit
        while True:
            line = self._next_line(deadline, time_limit)
            if not line.endswith("\n"):
                raise self._ended()
            answer = self._understood(line)
            if answer.pop("number", None) == self._asked:  # a copy of the worker, forked by an engine, answers again
                break
        if "fault" in answer:
            raise SuiteFault(f"the suite itself failed to {request['ask']}: {answer['fault']}", answer["traceback"])
        return answer

    def _understood(self, line: str) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return answer
        self.kill()
        raise Ended("crash", "no answer", "the process wrote among its answers what is none", self._tail())

    def _next_line(self, deadline: float, time_limit: float) -> str:
        while (left := deadline - time.monotonic()) > 0:
            try:
                return self._answers.get(timeout=min(left, 0.5))
            except queue.Empty:
                # A child of a worker that is gone may keep the pipe open.
                if self._process.poll() is not None and self._answers.empty():
                    return ""
        self.kill()
        raise Ended(
            "timeout", "timeout", f"the process gave no answer within {time_limit:g} s and was killed", self._tail()
        )

    def _ended(self) -> Ended:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            code = 0  # it has closed its end of the pipe, and only looks alive
        self.kill()
        if code < 0:
            error = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return Ended("crash", error, f"the process was ended by {error}", self._tail())
        return Ended("crash", f"exit code {code}", f"the process ended itself with exit code {code}", self._tail())

    def _tail(self) -> str:
        size = os.fstat(self._printed.fileno()).st_size
        self._printed.seek(max(self._mark, size - TAIL))
        return self._printed.read().decode("utf-8", "replace").strip()

    def kill(self) -> None:
        """End it at once, with everything that it has started and that may still be there when it is gone."""
        if not self._over and os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of it is left to be ended
                os.killpg(self._process.pid, signal.SIGKILL)
        elif self._process.poll() is None:
            self._process.kill()
        self._over = True  # its number may be another's before long
        self._process.wait()

    def close(self) -> None:
        """Let it end, kill it if it does not, and release what it has used."""
        assert self._process.stdin is not None  # noqa: S101 - they are pipes
        assert self._process.stdout is not None  # noqa: S101 - they are pipes
        with contextlib.suppress(OSError):  # it is gone and has left a request unread
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self.kill()
        self._reader.join(2)
        if not self._reader.is_alive():  # else a process that the engine left behind holds the pipe
            self._process.stdout.close()
        self._printed.close()
