"""One step of training for batches of one size, as a row of calls: made one by one, or recorded as a CUDA graph and replayed."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

from cnnkit.errors import BackendError
from cnnkit_batched.engine import A, Calls
from cnnkit_cupy.card import Card


class GraphsRefused(UserWarning):
    """A step could not be recorded as a CUDA graph. It is right all the same, and takes more time on the host."""


@dataclass(frozen=True)
class Source:
    """Images `(count, ...)` in uint8 or the program's precision, and labels int32, on the GPU."""

    images: A
    labels: A


@final
@dataclass(eq=False)
class Recipe:
    """`learn` writes loss and `gradient`, `update` changes the parameters."""

    learn: Calls
    update: Calls
    gradient: A
    graph: Any = None
    runs: int = 0

    def run(self, card: Card, *, graphs: bool) -> None:
        """One step: the first call by call, which also loads what is loaded once; the second is recorded."""
        if graphs and self.runs == 1:  # and where that is refused, never again
            self._record(card)
        if self.graph is not None:
            self.graph.launch(card.stream)
        else:
            run([*self.learn, *self.update])
        self.runs += 1

    def _record(self, card: Card) -> None:
        """Record the calls, which are not carried out thereby."""
        try:
            card.stream.begin_capture()
            try:
                run([*self.learn, *self.update])
            except BaseException:
                with suppress(RuntimeError):  # of a recording that has failed already; the stream has to work again
                    card.stream.end_capture()
                raise
            self.graph = card.stream.end_capture()
        except (RuntimeError, BackendError) as error:  # those of CuPy, and of the libraries
            remark = f"steps run call by call, for they could not be recorded as a CUDA graph: {error}"
            card.remark(remark)
            warnings.warn(f"backend 'cupy': {remark}", GraphsRefused, stacklevel=2)


def run(calls: Calls) -> None:
    """Make all calls."""
    for call in calls:
        call()
