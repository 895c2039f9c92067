"""What a module of a contestant has, and what it gives back for one layer.

A module has two functions, which take the contestant's options as keywords: `make(workload, **options)` returns a
`Learner` of `cnnkit.bench.batches`, and `layer(task, **options)` the `LayerCalls` of a `LayerTask`. A learner's `train` and
`predict` end when their numbers are on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cnnkit.arrays import Array


@dataclass(frozen=True)
class LayerCalls:
    """A layer with its arrays on the card, ready to go forward and back any number of times.

    Neither call waits: both only give work to the CUDA stream `stream`, 0 being the default one. `results` has, after one
    call of each, "output", "kernel" and "bias" where there are parameters, and "input" where that gradient is asked for,
    as NumPy arrays of cnnkit's shapes.
    """

    forward: Callable[[], object]
    backward: Callable[[], object]
    results: Callable[[], Mapping[str, Array]]
    stream: int = 0


@dataclass(frozen=True)
class Contestant:
    """Who takes part in a table: a library, the way it works in, the precision, its module, and the options for that."""

    library: str
    way: str
    precision: str
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How tables and messages call it."""
        return f"{self.library}, {self.way}, {self.precision}"
