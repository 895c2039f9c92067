"""The conformance suite: what every backend must pass, shipped with cnnkit and run by one command.

`run` judges a backend in a process of its own and returns a `Report`; `cases` and `check` are for the tests of a
plugin's own repository. Neither needs pytest, and no engine is imported before a backend is created.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnkit.conformance.report import CaseResult, Report
    from cnnkit.conformance.runner import run
    from cnnkit.conformance.suite import BoundCase, ConformanceFailure, cases, check

SUITE_VERSION = "1.0"

__all__ = ["SUITE_VERSION", "BoundCase", "CaseResult", "ConformanceFailure", "Report", "cases", "check", "run"]

_HOME = {
    "BoundCase": "suite",
    "CaseResult": "report",
    "ConformanceFailure": "suite",
    "Report": "report",
    "cases": "suite",
    "check": "suite",
    "run": "runner",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cnnkit.conformance' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cnnkit.conformance.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
