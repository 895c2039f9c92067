"""Numbers as a report says them, and text without what no page may hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

NOTHING = "\N{EN DASH}"
"""What stands where there is no number."""


def share(value: float | None) -> str:
    """`0.9740`: a figure from 0 to 1, or a loss."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.4f}"


def signed(value: float | None) -> str:
    """`+0.0123`: a difference."""
    return NOTHING if value is None else f"{value + 0.0:+.4f}"


def percent(value: float) -> str:
    """`97.40 %`. What is not all is never rounded to 100 %, and what is something never to 0 %."""
    shown = f"{100 * value:.2f}"
    if shown == "100.00" and value < 1:
        shown = "99.99"
    if shown == "0.00" and value > 0:
        shown = "0.01"
    return f"{shown}\N{NO-BREAK SPACE}%"


def difference(one: float | None, other: float | None) -> float | None:
    """`one - other`, where both are there."""
    return None if one is None or other is None else one - other


def seconds(value: float | None) -> str:
    """`0.0350 s`, `1.25 s`, `12.3 s`, `2 min 5 s`, `1 h 12 min`."""
    if value is None:
        return NOTHING
    if round(value) >= 3600:
        minutes = round(value / 60)
        return f"{minutes // 60} h {minutes % 60} min"
    if value >= 59.95:
        return f"{round(value) // 60} min {round(value) % 60} s"
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 0.1 else f"{value:.4f} s"


def rate(value: float | None) -> str:
    """Seconds for 1000 images: `90.1`, `0.345`."""
    return NOTHING if value is None else f"{value:.1f}" if value >= 100 else f"{value:.3f}"


def mib(value: float | None) -> str:
    """`312 MiB`."""
    return NOTHING if value is None else f"{value:,.0f} MiB"


def counted(count: int, thing: str, things: str = "") -> str:
    """`1 epoch`, `2,000 images`."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = list(names) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def moment(text: str | None) -> str:
    """`2026-11-24 11:40:02 UTC`."""
    return "" if not text else f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"


def plain(value: Any) -> str:
    """A setting: yes, no, a number, a pair."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " x ".join(map(plain, value))
    return "" if value is None else str(value)
