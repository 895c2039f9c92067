"""Who takes part: backends by their names, and peers from the table below. Imports no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final

from cnnkit import plugins
from cnnkit.errors import MissingDependency, OptionError

_HERE: Final = "cnnkit.bench.batches"


@dataclass(frozen=True)
class Entry:
    """One contestant: `make(workload, **options)` of `module` makes its learner. `variant` tells entries of one name apart."""

    name: str
    variant: str
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How tables and messages call it."""
        return f"{self.name}, {self.variant}" if self.variant else self.name


@dataclass(frozen=True)
class Peer:
    """A peer: its module, what that imports, the extra that brings it, and the options of each of its variants.

    All variants are measured, and the quicker one counts.
    """

    module: str
    imports: Sequence[str]
    package: str
    extra: str
    variants: Mapping[str, Mapping[str, Any]]

    @property
    def installed(self) -> bool:
        """Whether everything is there that it imports. A folder that only has the name of a package is none."""
        return all((spec := find_spec(name)) is not None and spec.origin is not None for name in self.imports)


PEERS: Final[Mapping[str, Peer]] = {
    "keras": Peer(
        f"{_HERE}.peers.keras_fit",
        ("tensorflow", "keras"),
        "TensorFlow with Keras",
        "peers-tensorflow",
        # On a CPU XLA takes 1.2 to 10 times as long, and Keras leaves it out by itself where a model rescales.
        {"default": {}, "16 steps at once": {"steps_per_execution": 16}},
    ),
    "tf-function": Peer(
        f"{_HERE}.peers.tf_function",
        ("tensorflow",),
        "TensorFlow",
        "peers-tensorflow",
        # XLA takes 3 to 4 times as long here too.
        {"a call a step": {"loop": False}, "loop in graph": {"loop": True}},
    ),
    "torch": Peer(
        f"{_HERE}.peers.torch_eager",
        ("torch",),
        "PyTorch",
        "peers",
        {"NCHW": {"channels_last": False}, "channels_last": {"channels_last": True}},
    ),
    "jax": Peer(
        f"{_HERE}.peers.jax_jit",
        ("jax", "jaxlib"),
        "JAX",
        "peers-jax",
        {"a call a step": {"loop": False}, "a call an epoch": {"loop": True}},
    ),
}
"""By the names that `--peer` takes."""


def backend_entries(names: Sequence[str], options: Mapping[str, Any] | None = None) -> list[Entry]:
    """Two entries for each backend, `epoch` and `fit`. Raises an error for a name that is not there or not ready."""
    entries = []
    for name in dict.fromkeys(names):
        status = plugins.status(name)
        if not status.ready:
            raise plugins.unavailable(status)
        for way in ("epoch", "fit"):
            given = {"backend": name, "way": way, "options": dict(options or {})}
            entries.append(Entry(name, way, f"{_HERE}.backend_learner", given))
    return entries


def peer_entries(names: Sequence[str] | None) -> tuple[list[Entry], list[MissingDependency]]:
    """The entries of the peers `names`, or of all where it is None; and for each that is not installed what is missing.

    Raises `OptionError` for a name that is no peer.
    """
    entries, missing = [], []
    for name in dict.fromkeys(PEERS if names is None else names):
        if name not in PEERS:
            raise OptionError(f"there is no peer {name!r}; peers are {', '.join(PEERS)}.")
        peer = PEERS[name]
        if not peer.installed:
            missing.append(MissingDependency(f"the peer '{name}'", peer.package, peer.extra))
            continue
        entries += [Entry(name, variant, peer.module, options) for variant, options in peer.variants.items()]
    return entries, missing
