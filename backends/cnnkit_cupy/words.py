"""Numbers as people read them."""

from __future__ import annotations

from typing import Final

UNITS: Final = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def amount(count: int) -> str:
    """Bytes with three digits: 1.25 GB, 640 MB, 12.3 kB, 96 bytes."""
    for size, unit in UNITS:
        if count >= size:
            value = count / size
            return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"
    return f"{count} bytes"
