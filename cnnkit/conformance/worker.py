"""The process in which a backend is judged: it may print, hang or crash, and the runner goes on.

One JSON object a line each way. The requests are `start`, `create`, `judge` and `save`, or `replay` alone; each is
answered once, in order and with its number. Engines print and read as they like: what were the standard input and output of this process belongs
to the protocol alone, and anything printed goes to the standard error.
"""

from __future__ import annotations

import faulthandler
import io
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from json import dumps, loads  # the functions themselves: an engine may put others in their place
from pathlib import Path
from typing import Any, TextIO

from cnnkit import plugins
from cnnkit.backend import Backend
from cnnkit.conformance.case import Case, Tier
from cnnkit.conformance.judging import Verdict, judge, judge_on
from cnnkit.conformance.measure import CaseFault
from cnnkit.conformance.plugin_subject import PluginSubject, can_be_planned
from cnnkit.conformance.refusals import refused_precision, refuses
from cnnkit.conformance.selection import cases_of, in_words, shortened
from cnnkit.errors import BackendUnavailable, CnnkitError, OptionError
from cnnkit.plugins import BackendStatus, Rehearsal


class Worker:
    """One backend, and the answers to requests about it."""

    def __init__(self, notes: TextIO | None = None) -> None:
        self.notes = sys.stderr if notes is None else notes
        """Where it is written how a case hangs."""
        self.process = os.getpid()
        self.name = ""
        self.device: str | None = None
        self.options: dict[str, Any] = {}
        self.cases: dict[str, Case] = {}
        self.tier: Tier = "run"
        self.backends: dict[str, Backend] = {}
        self.plugins: dict[str, PluginSubject] = {}
        """What is on trial in the tier `plan`, where nothing is created."""
        self.status: BackendStatus | None = None
        self.last: tuple[str, str, Verdict] | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        handlers: dict[str, Callable[..., dict[str, Any]]] = {
            "start": self.start,
            "create": self.create,
            "judge": self.judge,
            "save": self.save,
            "replay": self.replay,
        }
        return handlers[request["ask"]](**{key: request[key] for key in request.keys() - {"ask", "number"}})

    def start(
        self, name: str, device: str | None, options: dict[str, Any], explore: int, seed: int, tier: Tier = "run"
    ) -> dict[str, Any]:
        """Load the plugin and probe it: whether it can be judged, where its ledger is, what it runs on."""
        self.name, self.device, self.options, self.tier = name, device, options, tier
        self.cases = {case.id: case for case in cases_of(tier, explore, seed)}
        status = self.status = plugins.status(name, device)
        ready = status.ready if tier == "run" else can_be_planned(status)
        ledger, problem = None, ""
        try:
            ledger = plugins.deviations(name)
        except BaseException as error:  # noqa: BLE001 - as in `judge`
            known = isinstance(error, BackendUnavailable)
            problem = "" if not ready else str(error) if known else f"cnnkit_deviations: {in_words(error)[0]}"
        return {
            "ready": ready,
            "state": status.state,
            "reason": status.reason,
            "message": "" if status.ready else str(plugins.unavailable(status)),
            "error": type(status.root_cause).__name__ if status.root_cause else status.state,
            "ledger": None if ledger is None else str(ledger),
            "ledger_problem": problem,
            "distribution": f"{status.distribution} {status.distribution_version}".strip(),
            "devices": list(status.devices),
            "versions": {status.distribution: status.distribution_version, **status.versions},
        }

    def create(self, precision: str) -> dict[str, Any]:
        """Create the backend in a precision, in the tier `run`; what is refused beforehand is not even tried."""
        try:
            refused = refused_precision(self.name, self.device, precision)
            if refused:
                return {"ready": False, "refused": True, "message": refused, "error": ""}
            if self.tier == "plan":
                assert self.status is not None  # noqa: S101 - the runner starts before it creates
                subject = PluginSubject(self.name, self.device, precision, self.options, self.status)
                subject.require_options()
                self.plugins[precision] = subject
                return {"ready": True}
            self.backends[precision] = plugins.get_backend(self.name, self.device, precision, **self.options)
        except CnnkitError as error:
            return {
                "ready": False,
                "refused": False,
                "wrong_use": isinstance(error, OptionError),
                "state": error.status.state if isinstance(error, BackendUnavailable) else "",
                "message": str(error),
                "error": type(error).__name__,
            }
        except BaseException as error:  # noqa: BLE001 - as in `judge`
            message, kind = in_words(error)
            return {"ready": False, "message": message, "error": kind}
        return {"ready": True}

    def judge(self, case: str, precision: str, time_limit: float) -> dict[str, Any]:
        """Try one case. Where it hangs is written to the standard error shortly before the runner loses patience."""
        tried = self.cases[case]
        rehearsals: list[Rehearsal] = []
        faulthandler.dump_traceback_later(0.9 * time_limit, exit=False, file=self.notes)
        try:
            if self.tier == "plan":
                subject = self.plugins[precision]
                rehearsals = subject.rehearsals = []
                verdict = judge_on(tried, subject)
            else:
                known = refuses(self.name, self.device, precision)
                verdict = judge(tried, self.backends[precision], precision, known)
        except CaseFault as fault:
            message = f"The suite itself is at fault, not the backend: {fault}"
            return {"outcome": "not-run", "message": message, "traceback": traceback.format_exc()}
        except BaseException as error:  # noqa: BLE001 - an engine raised it, for no key is heard here, or it has no text
            message, kind = in_words(error)
            verdict = Verdict("failed", 0.0, None, "run", message, kind, traceback.format_exc())
        finally:
            self.leave_if_forked()  # a child would wait for the thread that dumps, which it does not have
            faulthandler.cancel_dump_traceback_later()
        self.last = (case, precision, verdict)
        found = {name: value for name, value in vars(verdict).items() if name != "question"}
        if not rehearsals:
            return found
        compiled = {what: _each(what, rehearsals) for what in ("kernels", "compiled_for")}
        return {**found, "compiled": compiled}

    def leave_if_forked(self) -> None:
        """End the copy of this process that an engine has forked and let return: the parent answers."""
        if os.getpid() != self.process:
            os._exit(0)

    def save(self, folder: str, smaller: bool) -> dict[str, Any]:
        """Write the file that repeats the case judged last, made `smaller` first where that takes a while."""
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
            smaller=smaller,
        )
        return {"path": str(path)}

    def replay(
        self, file: str, backend: str | list[str], device: str | None, precision: str, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask a backend what failed once, and say of it which one it was and what came back."""
        from cnnkit.conformance.repro import load, replay

        name = ""
        try:
            engine = plugins.get_backend(backend, device, precision, **options)
            assert engine.selection is not None  # noqa: S101 - get_backend has made it
            name = engine.selection.name
            verdict = replay(load(Path(file)), engine, refuses(name, device, precision), precision)
        except CnnkitError as error:
            return {"raised": str(error), "wrong_use": isinstance(error, OptionError)}
        except BaseException as error:  # noqa: BLE001 - as in `judge`
            message, kind = in_words(error)
            if not name:
                return {"raised": message, "wrong_use": False}
            verdict = Verdict("failed", 0.0, None, "run", message, kind, traceback.format_exc())
        found = {key: value for key, value in vars(verdict).items() if key != "question"}
        return {"backend": name, **found, "message": shortened(verdict.message)}


def _each(what: str, rehearsals: Iterable[Rehearsal]) -> list[str]:
    """The names that rehearsals tell, each once."""
    return sorted({name for rehearsed in rehearsals for name in getattr(rehearsed, what)})


# ------------------------------------------------------------------------------------------------------------ protocol


def main() -> None:
    """Answer requests until there are no more."""
    requests, answers = _take_over_standard_streams()
    notes = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")  # an engine may close the other one
    faulthandler.enable(notes, all_threads=False)
    worker = Worker(notes)
    while (line := requests.get()) is not None:
        request = loads(line)
        try:
            answer = worker.answer(request)
        except BaseException as error:  # noqa: BLE001 - the runner has to hear of a fault of the suite itself
            answer = {"fault": in_words(error)[0], "traceback": traceback.format_exc()}
        worker.leave_if_forked()
        answers.write(dumps({"number": request["number"], **answer}) + "\n")
        answers.flush()
    # Threads and exit handlers of an engine are not waited for: all answers have been given.
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
