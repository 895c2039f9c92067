"""What comes out of a race: a table and sentences for people, plain data for JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from cnnkit.bench.batches.race import Outcome
from cnnkit.bench.batches.workload import Workload

IDLE: Final = 0.02
"""On more than so many cores, on average, an engine must not work while it has nothing to do."""


@dataclass(frozen=True)
class Race:
    """One race: which model of the benchmark, on what workload, and what came out. The base is the first outcome."""

    name: str
    workload: Workload
    outcomes: Sequence[Outcome]

    @property
    def base(self) -> Outcome | None:
        """With whom all are compared; None where its figures do not count."""
        return None if self.outcomes[0].problems else self.outcomes[0]

    def microseconds(self, outcome: Outcome, what: str) -> float | None:
        """The best round of `outcome`, in microseconds an image; `what` is "train" or "predict". None without one."""
        rounds = getattr(outcome, what)
        return 1e6 * min(rounds) / self.workload.count if rounds and not outcome.problems else None

    def ratio(self, outcome: Outcome, what: str) -> float | None:
        """The time of `outcome` over that of the base: above 1 the base is quicker."""
        spent = self.microseconds(outcome, what)
        base = None if self.base is None else self.microseconds(self.base, what)
        return None if spent is None or base is None else spent / base

    def quickest(self, name: str, what: str) -> Outcome | None:
        """Of the variants of the contestant `name` the one that is quickest at `what`."""
        sound = [it for it in self.outcomes if it.entry.name == name and self.microseconds(it, what) is not None]
        return min(sound, key=lambda it: min(getattr(it, what)), default=None)

    @property
    def others(self) -> list[str]:
        """The names of all contestants but the base."""
        names = [outcome.entry.name for outcome in self.outcomes]
        return [name for name in dict.fromkeys(names) if name != names[0]]


# ------------------------------------------------------------------------------------------------------------ people


def race_table(race: Race) -> Table:
    """One row a contestant, less than 100 columns wide."""
    work = race.workload
    title = (
        f"{race.name}: {work.model.name}, {' x '.join(map(str, work.model.input_shape))}, {work.count:,} images in batches "
        f"of {work.batch_size}, {work.threads} thread{'s' if work.threads > 1 else ''}"
    )
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for heading in (
        "",
        "version",
        "train\nµs/image",
        "\nx base",
        "predict\nµs/image",
        "\nx base",
        "peak\nMiB",
        "first\nepoch, s",
    ):
        table.add_column(heading, justify="left" if heading in ("", "version") else "right", no_wrap=True)
    for outcome in race.outcomes:
        figures = []
        for what in ("train", "predict"):
            figures += [_text(race.microseconds(outcome, what), ",.1f"), _text(race.ratio(outcome, what), ".2f")]
        version = next(iter(outcome.versions.values()), "").partition("+")[0]
        memory = _text(None if outcome.problems else outcome.peak_mib, ",.0f")
        first = _text(None if outcome.problems else outcome.first_epoch, ".2f")
        table.add_row(outcome.entry.title, version, *figures, memory, first)
    return table


def _text(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def sentences(race: Race) -> list[str]:
    """How the base stands to each other contestant's quickest variant, what to know, and what went wrong."""
    found = [_against(race, name) for name in race.others]
    remarks = [remark for outcome in race.outcomes for remark in outcome.remarks]
    found += [f"{remark}." for remark in dict.fromkeys(remarks)]
    for outcome in race.outcomes:
        title, limit = outcome.entry.title, race.workload.threads
        if outcome.cores > 1.1 * limit:
            found.append(f"{title} worked on {outcome.cores:.1f} cores, though {limit} threads were asked for.")
        if outcome.idle_cores > IDLE:
            found.append(
                f"{title} worked on {outcome.idle_cores:.2f} cores while it had nothing to do, which spoils the figures."
            )
        found += [f"{title} does not count: {problem}." for problem in outcome.problems]
    return [sentence for sentence in found if sentence]


def _against(race: Race, name: str) -> str:
    base, train, predict = race.base, race.quickest(name, "train"), race.quickest(name, "predict")
    if base is None or train is None or predict is None:
        return ""
    memory = ""
    if base.peak_mib is not None and train.peak_mib is not None:
        memory = f", peak {base.peak_mib:,.0f} MiB to {train.peak_mib:,.0f}"
    return (
        f"{base.entry.title} trains {race.ratio(train, 'train'):.2f} x as fast as {train.entry.title}{memory}; "
        f"it predicts {race.ratio(predict, 'predict'):.2f} x as fast as {predict.entry.title}."
    )


# -------------------------------------------------------------------------------------------------------------- JSON


def race_to_dict(race: Race) -> dict[str, Any]:
    """All that was measured. Times are microseconds an image, but for the first epoch and prediction, in seconds."""
    work = race.workload
    return {
        "model": race.name,
        "layers": work.model.to_dict(),
        "images": work.count,
        "batch_size": work.batch_size,
        "threads": work.threads,
        "seed": work.seed,
        "base": race.outcomes[0].entry.title,
        "contestants": [_contestant(race, outcome) for outcome in race.outcomes],
        "against": {name: _quickest(race, name) for name in race.others},
    }


def _contestant(race: Race, outcome: Outcome) -> dict[str, Any]:
    facts = asdict(outcome)
    entry = facts.pop("entry")
    per_image = {
        what: {
            "best": race.microseconds(outcome, what),
            "x_base": race.ratio(outcome, what),
            "rounds": [1e6 * seconds / race.workload.count for seconds in facts.pop(what)],
        }
        for what in ("train", "predict")
    }
    kept = ("versions", "peak_mib", "losses", "remarks", "problems", "log")
    return {
        "name": entry["name"],
        "variant": entry["variant"],
        **per_image,
        "first_epoch_s": outcome.first_epoch,
        "first_predict_s": outcome.first_predict,
        "cores": outcome.cores,
        "idle_cores": outcome.idle_cores,
        **{name: facts[name] for name in kept},
    }


def _quickest(race: Race, name: str) -> dict[str, Any]:
    """By what was done, the quickest variant of the contestant `name` and its time over the base's."""
    found = {what: race.quickest(name, what) for what in ("train", "predict")}
    return {
        what: None if it is None else {"variant": it.entry.variant, "x_base": race.ratio(it, what)}
        for what, it in found.items()
    }


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": cores,
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
