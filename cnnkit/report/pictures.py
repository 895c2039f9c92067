"""Pictures for a report, where matplotlib is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from cnnkit.errors import MissingDependency
from cnnkit.report.document import Figure

if TYPE_CHECKING:
    from cnnkit.plot import Picture

HOW_TO_GET_THEM: Final = "pip install 'cnnkit[plot]'"


class Studio:
    """Draws the pictures of a report; without matplotlib it has none, and says so."""

    @cached_property
    def plot(self) -> ModuleType | None:
        """`cnnkit.plot`, or None where matplotlib is not installed. Whatever else is wrong with it is an error."""
        try:
            return importlib.import_module("cnnkit.plot")
        except MissingDependency:
            return None

    @property
    def missing(self) -> bool:
        """Whether the report is without pictures."""
        return self.plot is None

    def figure(self, key: str, caption: str, draw: Callable[[Any], Picture], *, dark: bool = False) -> list[Figure]:
        """The picture that `draw` makes with `cnnkit.plot`, or nothing."""
        return [] if self.plot is None else [Figure(key, caption, draw(self.plot), dark)]
