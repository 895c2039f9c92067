"""The targets that training on an H100 has, and whether they are reached, in words with their figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from cnnkit.bench.gpu.results import StepCell, Target, TargetOutcome

CARD: Final = "H100"
"""The card that they were set for."""
LARGE: Final = 1024
SMALL: Final = 64
SECONDS: Final = 0.20
SHARE: Final = 0.8
TIMES: Final = 1.5

NAMES: Final = (
    f"50,000 images in at most {SECONDS:.2f} s at batch {LARGE}",
    f"at least {SHARE} of the speed of PyTorch, channels_last and TF32, at batch {LARGE}",
    f"batch {SMALL} with a graph within {TIMES} times of batch {LARGE}",
)


def judge(steps: Sequence[StepCell], backend: str, card: str, *, quick: bool) -> tuple[Target, ...]:
    """Every target, by the medians of `steps`. What was not measured is not judged, nor is a quick run."""
    if quick:
        said = "A quick run measures too little to judge it."
        return tuple(Target(name=name, outcome="not judged", said=said) for name in NAMES)
    remark = "" if CARD in card else f" It is meant for an {CARD}; this is {card}."
    large = _quickest(steps, backend, LARGE)
    rounded = _quickest(steps, backend, LARGE, precision="tf32")
    peer = _quickest(steps, "torch", LARGE, precision="tf32")
    small = _quickest(steps, backend, SMALL, way="graph")
    found = (_in_seconds(large), _against(rounded, peer), _small(small, large))
    return tuple(
        Target(name=name, outcome=outcome, said=said + (remark if outcome != "not judged" else ""))
        for name, (outcome, said) in zip(NAMES, found, strict=True)
    )


_Judged: TypeAlias = tuple[TargetOutcome, str]


def _in_seconds(large: StepCell | None) -> _Judged:
    if large is None:
        return _unknown(f"training at batch {LARGE}")
    return _outcome(_seconds(large) <= SECONDS), f"{large.title}: {_seconds(large):.3f} s."


def _against(own: StepCell | None, peer: StepCell | None) -> _Judged:
    if own is None:
        return _unknown(f"training in tf32 at batch {LARGE}")
    if peer is None:
        return _unknown(f"PyTorch in tf32 at batch {LARGE}")
    share = _seconds(peer) / _seconds(own)
    said = f"{own.title}: {share:.2f} of the speed of {peer.title} ({_seconds(own):.3f} s to {_seconds(peer):.3f} s)."
    return _outcome(share >= SHARE), said


def _small(small: StepCell | None, large: StepCell | None) -> _Judged:
    if small is None:
        return _unknown(f"training with a graph at batch {SMALL}")
    if large is None:
        return _unknown(f"training at batch {LARGE}")
    times = _seconds(small) / _seconds(large)
    said = f"{small.title}: {_seconds(small):.3f} s, {times:.2f} times the {_seconds(large):.3f} s of {large.title}."
    return _outcome(times <= TIMES), said


def _unknown(what: str) -> _Judged:
    return "not judged", f"There is no figure for {what}."


def _outcome(reached: bool) -> TargetOutcome:
    return "reached" if reached else "missed"


def _quickest(
    steps: Sequence[StepCell], library: str, batch: int, way: str | None = None, precision: str | None = None
) -> StepCell | None:
    found = [
        cell
        for cell in steps
        if (cell.library, cell.batch) == (library, batch)
        and cell.seconds_50k is not None
        and way in (None, cell.way)
        and precision in (None, cell.precision)
    ]
    return min(found, key=_seconds, default=None)


def _seconds(cell: StepCell) -> float:
    assert cell.seconds_50k is not None  # noqa: S101 - the others were left out
    return cell.seconds_50k
