"""How the time is shared out: each part has until a moment of its own, and what one leaves over is for those after it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cnnkit.errors import OptionError

ENDS: Final[Mapping[str, float]] = {"conformance": 0.40, "layers": 0.56, "steps": 0.89, "inference": 0.97}
"""By which part of the whole time each part of the work must have ended, in their order. The rest is for the report."""

LEAST: Final = 30.0
MOST: Final = 86_400.0
"""Seconds that may be asked for."""

WORTH_IT: Final = 2.0
"""With fewer seconds left a part is not begun."""


@dataclass(frozen=True)
class Deadline:
    """A moment on `clock`, and how long there is until then."""

    moment: float
    clock: Callable[[], float] = time.monotonic

    @property
    def left(self) -> float:
        """Seconds, never below 0."""
        return max(0.0, self.moment - self.clock())

    def allows(self, seconds: float) -> bool:
        """Whether what takes so long would end in time."""
        return seconds <= self.left


@dataclass(frozen=True)
class Budget:
    """`total` seconds from the moment it is made."""

    total: float
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "began", self.clock())

    def deadline(self, part: str) -> Deadline:
        """When `part` must have ended."""
        return Deadline(self.began + self.total * ENDS[part], self.clock)

    @property
    def spent(self) -> float:
        """Seconds since it was made."""
        return self.clock() - self.began


def read_seconds(text: str) -> float:
    """`480s`, `8m` or `480` in seconds. Raises `OptionError` for anything else, and below 30 seconds or above a day."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m)?\s*", text)
    seconds = float(found[1]) * (60 if found[2] == "m" else 1) if found else 0.0
    if not LEAST <= seconds <= MOST:
        raise OptionError(
            f"--budget is {text!r}; expected seconds or minutes, from {LEAST:.0f}s to a day. Write for example --budget 480s."
        )
    return seconds
