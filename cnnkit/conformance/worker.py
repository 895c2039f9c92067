"""The process in which a backend is judged: it may print, hang or crash, and the runner goes on.

One JSON object a line each way. The requests are `start`, `create`, `judge` and `save`; each is answered once, in order.
Engines print and read as they like: what were the standard input and output of this process belongs to the protocol
alone, and anything printed goes to the standard error.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cnnkit import plugins
from cnnkit._probing import describe, unavailable
from cnnkit.backend import Backend
from cnnkit.conformance.case import Case
from cnnkit.conformance.judging import Verdict, judge
from cnnkit.conformance.refusals import refused_precision, refuses
from cnnkit.conformance.selection import suite_cases
from cnnkit.errors import BackendUnavailable, CnnkitError, OptionError


class Worker:
    """One backend, and the answers to requests about it."""

    def __init__(self) -> None:
        self.name = ""
        self.device: str | None = None
        self.options: dict[str, Any] = {}
        self.cases: dict[str, Case] = {}
        self.backends: dict[str, Backend] = {}
        self.last: tuple[str, str, Verdict] | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        handlers: dict[str, Callable[..., dict[str, Any]]] = {
            "start": self.start,
            "create": self.create,
            "judge": self.judge,
            "save": self.save,
        }
        return handlers[request["ask"]](**{key: value for key, value in request.items() if key != "ask"})

    def start(self, name: str, device: str | None, options: dict[str, Any], explore: int, seed: int) -> dict[str, Any]:
        """Load the plugin and probe it: whether it is ready, where its ledger is, what it runs on."""
        self.name, self.device, self.options = name, device, options
        self.cases = {case.id: case for case in suite_cases(explore, seed)}
        status = plugins.status(name, device)
        ledger, problem = None, ""
        try:
            ledger = plugins.deviations(name)
        except BackendUnavailable as error:
            problem = "" if not status.ready else str(error)
        return {
            "ready": status.ready,
            "message": "" if status.ready else str(unavailable(status)),
            "error": type(status.root_cause).__name__ if status.root_cause else status.state,
            "ledger": None if ledger is None else str(ledger),
            "ledger_problem": problem,
            "distribution": f"{status.distribution} {status.distribution_version}".strip(),
            "versions": {status.distribution: status.distribution_version, **status.versions},
        }

    def create(self, precision: str) -> dict[str, Any]:
        """Create the backend in a precision; what is refused beforehand is not even tried."""
        refused = refused_precision(self.name, self.device, precision)
        if refused:
            return {"ready": False, "refused": True, "message": refused, "error": ""}
        try:
            self.backends[precision] = plugins.get_backend(self.name, self.device, precision, **self.options)
        except CnnkitError as error:
            return {
                "ready": False,
                "refused": False,
                "wrong_use": isinstance(error, OptionError),
                "message": str(error),
                "error": type(error).__name__,
            }
        except BaseException as error:  # noqa: BLE001 - as in `judge`
            return {"ready": False, "message": describe(error), "error": type(error).__name__}
        return {"ready": True}

    def judge(self, case: str, precision: str, time_limit: float) -> dict[str, Any]:
        """Try one case. Where it hangs is written to the standard error shortly before the runner loses patience."""
        tried, backend = self.cases[case], self.backends[precision]
        faulthandler.dump_traceback_later(0.9 * time_limit, exit=False, file=sys.__stderr__ or sys.stderr)
        try:
            verdict = judge(tried, backend, precision, refuses(self.name, self.device, precision))
        except KeyboardInterrupt as error:  # no key was pressed here, for the worker does not hear it: an engine raised it
            message, kind = describe(error), type(error).__name__
            verdict = Verdict("failed", 0.0, None, "run", message, kind, traceback.format_exc())
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.last = (case, precision, verdict)
        return {name: value for name, value in vars(verdict).items() if name != "question"}

    def save(self, folder: str) -> dict[str, Any]:
        """Write the file that repeats the case judged last."""
        from cnnkit.conformance.repro import save_failure

        assert self.last is not None  # noqa: S101 - the runner judges before it saves
        case, precision, verdict = self.last
        path = save_failure(
            Path(folder),
            case_id=case,
            precision=precision,
            backend_name=self.name,
            backend=self.backends[precision],
            refuses=refuses(self.name, self.device, precision),
            verdict=verdict,
        )
        return {"path": str(path)}


# ------------------------------------------------------------------------------------------------------------ protocol


def main() -> None:
    """Answer requests until there are no more."""
    requests, answers = _take_over_standard_streams()
    faulthandler.enable(all_threads=False)
    worker = Worker()
    while (line := requests.get()) is not None:
        try:
            answer = worker.answer(json.loads(line))
        except BaseException as error:  # noqa: BLE001 - the runner has to hear of a fault of the suite itself
            answer = {"fault": describe(error), "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    # Threads and exit handlers of an engine are not waited for: all answers have been given.
    sys.stderr.flush()
    os._exit(0)


def _take_over_standard_streams() -> tuple[queue.Queue[str | None], io.TextIOWrapper]:
    """The requests and a file for answers, both out of the reach of what the engine reads and prints."""
    given = os.fdopen(os.dup(0), encoding="utf-8")
    answers = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    requests: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        busy = threading.main_thread()
        for line in given:
            requests.put(line)
        requests.put(None)
        # The runner is gone. If the engine hangs, nobody else would ever end this process.
        busy.join(2)
        os._exit(1)

    threading.Thread(target=read, name="requests", daemon=True).start()
    return requests, answers


if __name__ == "__main__":
    main()
