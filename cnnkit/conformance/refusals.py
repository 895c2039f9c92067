"""What a plugin says beforehand: its hook `cnnkit_supports`, found once and asked many times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

from cnnkit.errors import BackendUnavailable
from cnnkit.model import Dense, Model, Softmax
from cnnkit.plan import Plan
from cnnkit.plugins import Unsupported, refusals, refuses_nothing

Refuses: TypeAlias = Callable[[Plan], Sequence[Unsupported]]

SMALLEST = Model(input_shape=(2,), layers=[Dense(units=2), Softmax()])
"""The least that can be asked for: a plugin that refuses this in a precision refuses the precision."""


@cache
def refuses(name: str, device: str | None, precision: str) -> Refuses:
    """`cnnkit.plugins.unsupported` for one backend, which need not be looked for among all distributions each time.

    Raises `BackendUnavailable`, and so does what it returns where the hook does not do its part.
    """
    ask = refusals(name)
    return lambda plan: ask(plan, device, precision)


@cache
def says_nothing(name: str) -> bool:
    """Whether the plugin has no such hook, and so refuses nothing beforehand. Raises `BackendUnavailable`."""
    return refuses_nothing(name)


def refused_precision(name: str, device: str | None, precision: str) -> str:
    """Why the plugin refuses every plan in a precision beforehand, as it says itself; nothing if it does not."""
    try:
        found = refuses(name, device, precision)(SMALLEST.plan())
    except BackendUnavailable:
        return ""  # creating the backend, which comes next, says why
    return f"{found[0].feature}: {found[0].reason}" if found else ""
