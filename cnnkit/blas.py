"""One thread for each matrix product, while a program of ours runs, and the setting of before when the last one ends.

The images of a batch are shared among our own threads; a BLAS that started threads of its own inside each would fight
with them, and would sum in another order. The setting belongs to the whole process, so it is counted: the first to
enter sets it, the last to leave restores it.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _libraries() -> list[Any]:
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _set_threads(library: Any, count: int) -> None:
    # threadpoolctl (from 3.8 on) lets the first thread that sets OpenBLAS keep the others from it, without a word. The
    # last to leave is seldom the first that entered, so control is taken before, and given up after.
    give_up_control = getattr(library, "clear_controlling_thread", lambda *, force: None)  # noqa: ARG005 - older ones, other BLAS
    give_up_control(force=True)
    library.set_num_threads(count)
    give_up_control(force=True)


class _SingleThreadedBlas:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before: list[int] = []

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                self.before = [library.get_num_threads() for library in _libraries()]
                for library in _libraries():
                    _set_threads(library, 1)
            self.users += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                for library, count in zip(_libraries(), self.before, strict=True):
                    _set_threads(library, count)

    def begin_anew(self) -> None:
        """In a forked child: nobody is inside, whoever was when the parent forked; the setting stays as it was found."""
        self.lock = threading.Lock()
        if self.users:
            self.users = 0
            for library, count in zip(_libraries(), self.before, strict=True):
                _set_threads(library, count)


single_threaded_blas = _SingleThreadedBlas()
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=single_threaded_blas.begin_anew)
