"""The measuring itself: contestants in processes of their own, one at work at a time, rounds through all of them.

What disturbs the card for a while thus hits all of them, and the median of the rounds counts. One that fails is out of
what it failed in, and its figures say why; the others go on. Rounds end for all together, so that all do the same work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from cnnkit.arrays import Parameters
from cnnkit.bench.batches.process import Failed
from cnnkit.bench.gpu.budget import Deadline
from cnnkit.bench.gpu.contestant import Contestant

Told: TypeAlias = Callable[[str], object]
"""Hears of the progress."""


class Asked(Protocol):
    """The end of a contestant's process that is here."""

    contestant: Contestant
    versions: dict[str, str]
    """What it has said of its versions so far."""

    def ask(self, what: str, **given: Any) -> dict[str, Any]:
        """The answer to a request of `worker.Worker`; raises `Failed`."""

    def close(self) -> None:
        """End the process."""


Begin: TypeAlias = Callable[[Contestant], Asked]


@contextmanager
def processes(contestants: Sequence[Contestant], begin: Begin) -> Iterator[list[Asked]]:
    """The processes of all contestants, begun at once, so that they import their engines side by side."""
    with ExitStack() as stack:
        begun = []
        for contestant in contestants:
            process = begin(contestant)
            stack.callback(process.close)
            begun.append(process)
        yield begun


@dataclass
class Runner:
    """One contestant in one cell of a table: what it did, and why it does not count if so."""

    process: Asked
    problems: list[str] = field(default_factory=list)
    first: float | None = None
    mib: float | None = None
    rounds: dict[str, list[float]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    shown: list[Parameters] = field(default_factory=list)
    results: dict[str, list[float]] = field(default_factory=dict)

    @property
    def contestant(self) -> Contestant:
        """Who runs."""
        return self.process.contestant

    def attempt(self, stage: Callable[[Runner], object]) -> None:
        """Go through a stage, unless it has failed before; if it fails now, it is out."""
        if self.problems:
            return
        try:
            stage(self)
        except Failed as failure:
            last = failure.log.strip().rpartition("\n")[2]
            self.problems.append(str(failure) if last in str(failure) else f"{failure} ({last})")

    def measured(self) -> dict[str, Any]:
        """What every cell has."""
        who = self.contestant
        return {"library": who.library, "way": who.way, "precision": who.precision, "problems": tuple(self.problems)}


def go_round(runners: Sequence[Runner], rounds: int, deadline: Deadline, once: Callable[[Runner], object]) -> bool:
    """`rounds` rounds through all, fewer where the time is up, but one at least; whether there was time for all."""
    for number in range(rounds):
        before = deadline.clock()
        for runner in runners:
            runner.attempt(once)
        if number + 1 < rounds and not deadline.allows(deadline.clock() - before):
            return False
    return True


def compare(runners: Sequence[Runner], differ: Callable[[Runner, Runner], list[str]]) -> None:
    """The first sound one is what the others are held to."""
    sound = [runner for runner in runners if not runner.problems]
    for runner in sound[1:]:
        said = differ(runner, sound[0])
        runner.problems += [f"not the same work as {sound[0].contestant.title}: {problem}" for problem in said]


def let_go(runners: Sequence[Runner]) -> None:
    """Free the card, also of what those left there that are out."""
    for runner in runners:
        with suppress(Failed):  # then its process has ended, which is told when it is asked for more
            runner.process.ask("drop")
