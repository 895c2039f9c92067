"""What is seen of a run while it goes on: a bar on a terminal, a line an epoch anywhere else."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cnnkit.history import EpochRecord, Event, Progress

REFRESH_SECONDS: Final = 0.1
"""A bar is not drawn more often than this."""
BAR_WIDTH: Final = (5, 40)
"""The narrowest and the widest bar, in columns."""


class TrainingDisplay:
    """A callback that shows how a run goes on: `fit(..., callbacks=[TrainingDisplay()])`.

    On a terminal it is a bar: images done, the running loss, the accuracy of the epoch that was judged last (on the
    validation set, or on the training set where there is none), images per second, and the time that is left of the
    epoch and, in brackets, of the run. Above it stands one line an epoch. Where no terminal is, these lines are all.

    It is also a context manager. Within `with`, the bar is there from the beginning, stays between epochs, and is gone
    as soon as the block is left, also by an error or Ctrl-C. Without it, the bar is there while an epoch is trained on;
    what an error leaves of it goes with `close`, or when Python ends.

    Args:
        console: A console of rich to write to; None is the standard error.
        quiet: Whether to show nothing at all.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        if console is None:
            # FORCE_COLOR and the like ask rich for colours, not for a bar in a log file.
            terminal = getattr(sys.stderr, "isatty", lambda: False)()
            console = Console(stderr=True, force_interactive=None if terminal else False)
        self.console = console
        self.quiet = quiet
        self._moving = console.is_interactive and not console.is_jupyter and not quiet
        self._within = False
        self._live: Live | None = None
        self._end: Any = None
        self._drawn = 0.0
        self._last: Progress | None = None
        self._judged = ""
        self._seconds_evaluate = 0.0

    def __call__(self, event: Event) -> None:
        """Show a `Progress` or an `EpochRecord`."""
        if self.quiet:
            return
        if isinstance(event, Progress):
            begun = self._last is None or self._last.epoch != event.epoch
            self._last = event
            if begun or event.done == event.count or time.monotonic() - self._drawn >= REFRESH_SECONDS:
                self._draw(_Bar(event, self._judged, self._seconds_evaluate))
            return
        seen = self._last if self._last is not None and self._last.epoch == event.epoch else None
        part, figures = ("train", event.train) if event.validation is None else ("validation", event.validation)
        if figures is not None:
            self._judged = f"{part} accuracy {figures['accuracy']:.4f}"
        self._seconds_evaluate = event.seconds_evaluate
        # A terminal is told where to break a line; elsewhere a line is a line.
        self.console.print(Text(epoch_line(event, seen.count if seen else None)), soft_wrap=not self._moving)
        if not self._within or (seen is not None and event.epoch >= seen.epochs):
            self.close()

    def _draw(self, what: _Bar | Text) -> None:
        if not self._moving:
            return
        if self._live is None:
            # What others print stands above the bar; a standard output that goes into a file goes on to do so.
            to_terminal = getattr(sys.stdout, "isatty", lambda: False)()
            self._live = Live(console=self.console, auto_refresh=False, transient=True, redirect_stdout=to_terminal)
            self._end = weakref.finalize(self, self._live.stop)
            self._live.start()
        self._live.update(what, refresh=True)
        self._drawn = time.monotonic()

    def close(self) -> None:
        """Take the bar away; the next event brings it back."""
        if self._live is not None:
            self._end()
            self._live = None

    def __enter__(self) -> Self:
        self._within = True
        if not self.quiet:
            self._draw(Text("waiting for the first images"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._within = False
        self.close()


def epoch_line(record: EpochRecord, images: int | None = None) -> str:
    """One epoch in one line; `images` are those that were learned from, where that is known."""
    parts = [f"epoch {record.epoch}: running loss {record.running_loss:.4f}"]
    for name, figures in (("train", record.train), ("validation", record.validation)):
        if figures is not None:
            parts.append(f"{name} loss {figures['loss']:.4f}, accuracy {figures['accuracy']:.4f}")
    rate = "" if images is None else f", {_rate(images, record.seconds_train):,.0f} images/s"
    parts.append(f"{record.seconds_train:.1f} s{rate}")
    return "; ".join([*parts, *(["best so far"] if record.best else [])])


def _rate(images: int, seconds: float) -> float:
    return images / max(seconds, 1e-9)


@dataclass(frozen=True)
class _Bar:
    """The bar with what stands beside it, or below where the screen is narrow."""

    progress: Progress
    judged: str
    seconds_evaluate: float
    """What judging took in the epoch before: it is still to come in this one."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now, room = self.progress, options.max_width
        title, count = f"epoch {now.epoch}/{now.epochs}", f"{now.done:,}/{now.count:,}"
        facts = self.facts()
        narrowest, widest = BAR_WIDTH
        left = room - len(title) - len(count) - 2
        if left < narrowest:
            yield from map(Text, _filled([title, count, *facts], room))
            return
        bar = ProgressBar(total=now.count, completed=now.done, width=min(left, widest))
        beside = ", ".join(facts)
        fits = len(beside) + 1 <= left - widest
        line = Table.grid(padding=(0, 1))
        line.add_row(title, bar, count, *([Text(beside)] if fits else []))
        yield line
        if not fits:
            yield from map(Text, _filled(facts, room))

    def facts(self) -> list[str]:
        now = self.progress
        rate = _rate(now.done, now.seconds)
        epoch = (now.count - now.done) / rate + self.seconds_evaluate
        run = epoch + (now.epochs - now.epoch) * (now.count / rate + self.seconds_evaluate)
        left = f"{_clock(epoch)} left" + (f" (run {_clock(run)})" if now.epochs > 1 else "")
        judged = [self.judged] if self.judged else []
        return [f"loss {now.running_loss:.4f}", *judged, f"{rate:,.0f} images/s", left]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _filled(facts: Sequence[str], width: int) -> list[str]:
    """The facts with commas between them, in lines of at most `width`, broken only between facts."""
    lines: list[str] = []
    for number, fact in enumerate(facts):
        text = fact if number == len(facts) - 1 else f"{fact},"
        if lines and len(lines[-1]) + 1 + len(text) <= width:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines
