"""Somebody who takes part in a measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Contestant:
    """`train` and `predict` each go once over `count` images."""

    train: Callable[[], object]
    predict: Callable[[], object]
    count: int
