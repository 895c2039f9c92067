"""Threads that share work: tasks with numbers, each done by one of them, in any order."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import final

import numpy as np


@final
class Team:
    """The calling thread, and `threads - 1` others."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._start()

    def _start(self) -> None:
        self.process = os.getpid()
        self.others = ThreadPoolExecutor(self.threads - 1, "cnnkit-batched") if self.threads > 1 else None

    def share(self, work: Callable[[int, int], None], count: int) -> None:
        """Make `work(member, number)` for every number below `count`; when this ends, however it ends, all have ended.

        No two calls at once have the same member. Floating-point warnings are off: NaN and infinity are results.
        """
        if self.process != os.getpid():  # a fork copies the program, but not its threads
            self._start()
        numbers = iter(range(count))  # the next one is taken under Python's lock

        def take(member: int) -> None:
            with np.errstate(all="ignore"):  # errstate is a thread's own
                for number in numbers:
                    work(member, number)

        if self.others is None or count < 2:
            take(0)
            return
        futures: list[Future[None]] = []
        try:
            for member in range(1, min(self.threads, count)):
                futures.append(self.others.submit(take, member))  # noqa: PERF401 - those that began are waited for
            take(0)
            for future in futures:
                future.result()
        finally:
            wait(futures)
