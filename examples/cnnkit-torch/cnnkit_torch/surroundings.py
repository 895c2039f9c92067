"""Settings of PyTorch that reach into our arithmetic: held for the time of a call, and given back as they were.

PyTorch keeps them for the whole process or for a thread. A program that shares its process with other users of PyTorch
must neither be changed by what they set nor change it for them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

_EXACT: Final = ("none", "ieee")
_PROCESS: Final = os.getpid()


class _Settings:
    """Counts who is inside. What holds for the whole process is set by the first and given back by the last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.threads = 0
        self.reduced: list[tuple[Any, str]] = []

    def enter(self, threads: int | None) -> None:
        with self.lock:
            found = (
                torch.get_num_threads()
            )  # PyTorch sets a thread up at its first question, and forgets what was set before
            if self.users == 0:
                self.threads = found
                engine: Any = torch.backends.mkldnn  # a module that PyTorch replaces, which its types do not say
                kinds = (engine.matmul, engine.conv)
                self.reduced = [(kind, kind.fp32_precision) for kind in kinds if kind.fp32_precision not in _EXACT]
                for kind, _ in self.reduced:
                    kind.fp32_precision = "ieee"  # float32 means float32, whatever matmuls elsewhere may use
            self.users += 1
            if threads is not None:
                torch.set_num_threads(threads)

    def leave(self, threads: int | None) -> None:
        with self.lock:
            if threads is not None:
                torch.set_num_threads(self.threads)
            self.users -= 1
            if self.users == 0:
                for kind, precision in self.reduced:
                    kind.fp32_precision = precision


_settings = _Settings()


@contextmanager
def undisturbed(threads: int | None) -> Iterator[None]:
    """Run what is inside on `threads` threads, None for as many as PyTorch is set to, in full precision, untracked."""
    if os.getpid() != _PROCESS:
        threads = 1  # a fork copies no threads of OpenMP's, and whoever waits for them waits for ever
    _settings.enter(threads)
    try:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        _settings.leave(threads)
