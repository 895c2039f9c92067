"""The report of a run on a card, as Markdown for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from cnnkit.bench.gpu.results import Conformance, GpuReport, LayerCell, StepCell
from cnnkit.bench.gpu.ways import PRECISIONS
from cnnkit.files import write_whole

Cells: TypeAlias = Sequence[str]

METHOD: Final = """\
All contestants do the same work on the same numbers, each in a process of its own, of which one works at a time; it is
checked that they come to the same results. Rounds go through all of them after a warm-up, and the median counts. A
layer's time is that between two CUDA events around many calls, by their number. An epoch's is the clock's, from a card at
rest until the mean loss is on the host; the images are on the card by then. Prediction goes from the host to the host.
Memory is what the driver counts: all that the process has taken beyond its CUDA context, the code of its libraries and
what these keep for later included. PyTorch works channels_last, with its fused Adam and cuDNN's own search for algorithms."""


def to_markdown(report: GpuReport) -> str:
    """The whole report."""
    parts = [
        _head(report),
        "## Targets\n\n" + "\n".join(f"- **{it.outcome}**: {it.name}. {it.said}" for it in report.targets),
        "## Conformance\n\n" + _conformance(report.conformance),
        *_layers(report.layers),
        *_steps("Training", report.steps, memory=True),
        *_steps("Prediction", report.inference, memory=False),
        "## What was done\n\n" + _done(report),
        *_problems(report),
        "## How it was measured\n\n" + METHOD,
    ]
    return "\n\n".join(parts) + "\n"


def folder(report: GpuReport, out: Path | None = None) -> Path:
    """Where the report goes: `out`, or a folder by the card's name, such as docs/reference/gpu/nvidia-h100-80gb-hbm3."""
    words = "".join(letter if letter.isalnum() else " " for letter in report.card.name.lower()).split()
    return out or Path("docs", "reference", "gpu", "-".join(words))


def write(report: GpuReport, out: Path | None = None) -> None:
    """Write REPORT.md and report.json."""
    place = folder(report, out)
    place.mkdir(parents=True, exist_ok=True)
    for name, text in (("REPORT.md", to_markdown(report)), ("report.json", report.to_json())):
        write_whole(place / name, text.encode())


def _head(report: GpuReport) -> str:
    card = report.card
    machine = ", ".join(f"{report.machine[key]}" for key in ("cpu", "platform") if report.machine.get(key))
    cores = f", {report.machine['cores']} cores" if report.machine.get("cores") else ""
    facts = {
        "Card": f"{card.name}, compute capability {card.capability}, {card.memory_mib:,} MiB",
        "Driver": f"{card.driver}, up to CUDA {card.cuda}",
        "Backend": f"{report.backend} on {report.device}",
        "Versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        "Machine": f"{machine}{cores}",
        "Made": report.made,
        "Command": f"`{report.command}`",
        "Time": f"{report.seconds:.0f} s of {report.budget:.0f} s",
    }
    lines = "\n".join(f"- {name}: {said}" for name, said in facts.items())
    quick = "\n\n**A quick run**: fewer images, sizes and rounds than a whole one." if report.quick else ""
    remarks = "".join(f"\n\n{remark}" for remark in report.remarks)
    return f"# {report.backend} on an {card.name}\n\n{lines}{quick}{remarks}"


def _conformance(found: Conformance | None) -> str:
    if found is None:
        return "The suite was not run."
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found.counts.items() if count)
    precisions = " and ".join(found.precisions)
    said = (
        f"**{found.verdict}**: tier `{found.tier}` of the suite {found.suite}, level {found.level}, on {found.device}, in "
        f"{precisions}: {counts or 'no case'}, in {found.seconds:.0f} s."
    )
    more = [f"- {_flat(reason)}" for reason in found.reasons] + [f"- failed: `{name}`" for name in found.failures]
    return "\n".join([said, "", *more]).rstrip()


def _layers(cells: Sequence[LayerCell]) -> list[str]:
    """One table a precision: microseconds forward and back, a column for each way."""
    tables = []
    for precision in PRECISIONS:
        chosen = [cell for cell in cells if cell.precision == precision]
        if not chosen:
            continue
        ways = _ways(chosen)
        rows = []
        for layer in dict.fromkeys(cell.layer for cell in chosen):
            of_layer = {_way(cell): cell for cell in chosen if cell.layer == layer}
            forward = [_number(of_layer[way].forward_us if way in of_layer else None, ",.1f") for way in ways]
            back = [_number(of_layer[way].backward_us if way in of_layer else None, ",.1f") for way in ways]
            rows.append([layer, *forward, *back])
        heads = ["Layer", *(f"forward, {way}" for way in ways), *(f"back, {way}" for way in ways)]
        title = f"## Layer by layer, {precision}, batch {chosen[0].batch:,}, microseconds"
        tables.append(f"{title}\n\n{_table(heads, rows)}")
    return tables


def _steps(what: str, cells: Sequence[StepCell], *, memory: bool) -> list[str]:
    """One table a precision: seconds for 50,000 images, and the card's memory, by batch size."""
    tables = []
    for precision in PRECISIONS:
        chosen = [cell for cell in cells if cell.precision == precision]
        if not chosen:
            continue
        images = f"; {chosen[0].images:,} were measured" if chosen[0].images != 50_000 else ""
        heading = f"## {what}, {precision}, seconds for 50,000 images{images}"
        tables.append(f"{heading}\n\n{_by_batch(chosen, lambda cell: _number(cell.seconds_50k, '.3f'))}")
        if memory:
            table = _by_batch(chosen, lambda cell: _number(None if cell.problems else cell.device_mib, ",.0f"))
            tables.append(f"The card's memory at most, MiB:\n\n{table}")
    return tables


def _by_batch(cells: Sequence[StepCell], text: Callable[[StepCell], str]) -> str:
    ways = _ways(cells)
    rows = []
    for batch in sorted({cell.batch for cell in cells}):
        of_batch = {_way(cell): text(cell) for cell in cells if cell.batch == batch}
        rows.append([f"{batch:,}", *(of_batch.get(way, "-") for way in ways)])
    return _table(["Batch", *ways], rows)


def _done(report: GpuReport) -> str:
    rows = [[part.name, part.outcome, f"{part.seconds:.0f}", part.why] for part in report.parts]
    return _table(["Part", "Outcome", "Seconds", "Why"], rows)


def _problems(report: GpuReport) -> list[str]:
    """What does not count and why; the same reason once, with the places where it holds."""
    places: dict[tuple[str, str], list[str]] = {}
    for cells in (report.layers, report.steps, report.inference):
        for cell in cells:
            where = cell.layer if isinstance(cell, LayerCell) else f"batch {cell.batch}"
            for problem in cell.problems:
                places.setdefault((cell.title, problem), []).append(where)
    lines = [f"- {title}, {'; '.join(where)}: {_flat(problem)}" for (title, problem), where in places.items()]
    return ["## What does not count\n\n" + "\n".join(lines)] if lines else []


def _ways(cells: Sequence[LayerCell] | Sequence[StepCell]) -> list[str]:
    return list(dict.fromkeys(_way(cell) for cell in cells))


def _way(cell: LayerCell | StepCell) -> str:
    return f"{cell.library}, {cell.way}"


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def _table(heads: Cells, rows: Sequence[Cells]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_flat(cell) for cell in line)} |" for line in lines)


def _flat(text: str) -> str:
    """On one line of a table, whatever an engine says."""
    return " ".join(text.split()).replace("|", "\\|")
