"""Cases."""

from __future__ import annotations

from cnnkit.conformance.case import Case

CASES: list[Case] = []
