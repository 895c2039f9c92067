"""One thread for each matrix product, while a program of ours runs, and the setting of before when the last one ends.

The images of a batch are shared among our own threads; a BLAS that started threads of its own inside each would fight
with them, and would sum in another order. The setting belongs to the whole process, so it is counted: the first to
enter sets it, the last to leave restores it.
"""

from __future__ import annotations

import threading
from functools import cache
from types import TracebackType

from threadpoolctl import ThreadpoolController


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


class _SingleThreadedBlas:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.limit: object = None

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                self.limit = _blas().limit(limits=1)
            self.users += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.limit.restore_original_limits()  # type: ignore[attr-defined] # threadpoolctl ships no types
                self.limit = None


single_threaded_blas = _SingleThreadedBlas()
